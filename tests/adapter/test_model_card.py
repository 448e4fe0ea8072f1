"""Write the card of a repository, and refuse facts that the Hub does not understand."""

import ast

import pytest
from huggingface_hub import ModelCard, RepoCard

from motion_adapter.code_files import code_revision
from motion_adapter.model_card import CardFacts, check_license, model_card, training_rows, usage_code
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL
from tiny_models import build_motion_adapter


TRAINING = {
    "settings": {"learning_rate": 1e-5, "num_frames_range": [8, 16], "train_data_dir": "/home/someone/clips"},
    "figures": {"steps": 40_000, "diffusion_loss": 0.1234},
    "base_model": "a/stills",
}


def card_for(**facts) -> str:
    return model_card(CardFacts("me/mountains", "apache-2.0", **facts), build_motion_adapter())


def test_metadata_is_what_the_hub_reads():
    card = card_for(base_model="a/stills")
    assert card.startswith("---\n")
    data = RepoCard(card, ignore_metadata_errors=False).data  # a `ModelCard` would drop tags that are there twice
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "diffusers", "text-to-video")
    assert (data.base_model, data.get("base_model_relation")) == ("a/stills", "adapter")
    assert data.tags == ["landscape-painting", "animatediff", "motion-adapter"]


def test_a_base_model_that_is_no_repository_is_in_the_text_only():
    card = card_for(base_model=EMBEDDED_MODEL)
    assert ModelCard(card).data.base_model is None
    assert "shanshui-tiny, which is part of the `landscape-video` package" in card
    assert "from pipeline_landscape_video import SHANSHUI_TINY" in card
    assert "guidance_scale" not in card  # the model says it itself
    full = card_for(base_model=EMBEDDED_MODEL, full=True)
    assert "SHANSHUI_TINY" not in full and "shanshui-tiny" in full


def test_figures_settings_and_revision_are_in_the_card_and_paths_are_not():
    card = card_for(base_model="a/stills", training=TRAINING)
    for row in ("| learning rate | 1e-05 |", "| num frames range | 8, 16 |", "| steps | 40000 |", code_revision()):
        assert row in card
    assert "/home" not in card and "train data dir" not in card
    assert "The training of these weights was not recorded." in card_for(base_model="a/stills")


def test_rows_hold_no_path_of_a_machine_and_cannot_break_the_table():
    training = {"settings": {"note": "a | b\nc", "folder": "~/x", "drive": "C:\\x"}}
    assert training_rows(training) == [("note", "a | b\nc")]
    assert "| note | a \\| b c |" in card_for(base_model="a/stills", training=training)


def test_sampling_settings_of_a_pipeline_are_in_its_card():
    sampling = {"num_inference_steps": 25, "guidance_scale": 2.0, "eta": 1.0}
    card = card_for(base_model=EMBEDDED_MODEL, full=True, sampling=sampling)
    assert "settings of this pipeline are `num_inference_steps` 25, `guidance_scale` 2, `eta` 1." in card
    assert "sampling settings" not in card_for(base_model="a/stills")


DIFFUSERS = "diffusers' own pipelines run it with"
EVOLVED = "AnimateDiff and AnimateDiff-Evolved (ComfyUI) run it with"
UNTRAINED = "in both, the queries and keys of the second attention are untrained"
WITH_CLIP_NORM = f"{DIFFUSERS} full attention; {EVOLVED} full attention and the norm of each frame"
WITH_FRAME_NORM = f"{DIFFUSERS} full attention and the norm of the clip; {EVOLVED} full attention"


@pytest.mark.parametrize(
    ("mode", "norm", "line"),
    [
        ("previous", "clip", f"{WITH_CLIP_NORM}; {UNTRAINED}."),
        ("previous", "frame", f"{WITH_FRAME_NORM}; {UNTRAINED}."),
        ("current_previous", "clip", f"{WITH_CLIP_NORM}."),
        ("current_previous", "frame", f"{WITH_FRAME_NORM}."),
        ("first_previous", "clip", f"{WITH_CLIP_NORM}."),
        ("first_previous", "frame", f"{WITH_FRAME_NORM}."),
        ("full", "clip", f"{EVOLVED} the norm of each frame."),
        ("full", "frame", f"{DIFFUSERS} the norm of the clip."),
    ],
)
def test_the_card_says_what_other_programs_make_of_the_adapter(mode, norm, line):
    card = model_card(CardFacts("me/mountains", "mit", "a/stills"), build_motion_adapter(mode, norm))
    assert f"generate different frames: {line}\n" in card
    assert f"trained with `sparse_causal_mode` `{mode}` and `motion_norm` `{norm}`" in card
    assert "the node Load Motion Adapter of `comfyui_landscape_video` runs it as trained" in card


def test_pinned_lines_name_the_commit_wherever_something_is_loaded_from_the_repository():
    for full in (False, True):
        facts = CardFacts("me/mountains", "mit", "a/stills", full)
        code = usage_code(facts, 32, "0" * 40)
        ast.parse(code)
        assert code.count('revision="' + "0" * 40) == 2
        assert "num_frames=16" in code and 'prompt = "mist' in code and "num_frames=8" in usage_code(facts, 8)


def test_the_prompt_begins_with_the_trigger_word():
    training = {"settings": {"trigger_word": 'my "shanshui"'}}
    assert r'prompt = "my \"shanshui\", mist drifting' in card_for(base_model="a/stills", training=training)


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        (
            {"license": "apache"},
            "`license` must be one that the Hub knows, got 'apache'; choose one of apache-2.0",
        ),
        ({"license": "other"}, "`license` other needs a name: set `license_name`"),
        ({"base_model": "/home/stills"}, "'/home/stills' is not a name on the Hub"),
    ],
)
def test_facts_that_the_hub_would_not_understand_are_refused(facts, message):
    with pytest.raises(ValueError, match=message):
        model_card(CardFacts(**{"repo_id": "me/x", "license": "mit", **facts}), build_motion_adapter())
    check_license("other", "my-terms")


def test_another_license_has_a_name_and_a_place():
    facts = CardFacts("me/x", "other", "a/stills", license_name="my-terms", license_link="https://example.org/terms")
    data = ModelCard(model_card(facts, build_motion_adapter())).data
    assert (data.license, data.license_name, data.license_link) == ("other", "my-terms", "https://example.org/terms")


def test_the_card_of_an_image_to_video_pipeline(tiny_components):
    facts = CardFacts("me/mountains", "mit", EMBEDDED_MODEL, full=True, image_to_video=True)
    text = model_card(facts, tiny_components()["motion_adapter"])
    assert ModelCard(text).data.pipeline_tag == "image-to-video"
    assert "image retention branch" in text
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert 'image = Image.open("painting.png")' in code and "    num_frames=16,\n" in code
    assert 'guidance_order="picture_first"' in code and "hold_first_frame=True" in code  # as `animate`
    assert "custom_pipeline" not in code  # would mean the text-to-video pipeline
