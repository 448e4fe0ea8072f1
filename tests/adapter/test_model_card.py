"""The card of a repository: what stands in it, and what is refused."""

import ast
import re

import pytest
from huggingface_hub import ModelCard

from motion_adapter.code_files import code_revision
from motion_adapter.model_card import CardFacts, check_card, model_card, training_rows, usage_lines
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
    data = ModelCard(card_for(base_model="a/stills")).data
    assert (data.license, data.library_name, data.pipeline_tag) == ("apache-2.0", "diffusers", "text-to-video")
    assert (data.base_model, data.get("base_model_relation")) == ("a/stills", "adapter")
    assert data.tags == ["landscape-painting", "animatediff", "motion-adapter"]


def test_a_base_model_that_is_no_repository_is_in_the_text_only():
    card = card_for(base_model=EMBEDDED_MODEL)
    assert ModelCard(card).data.base_model is None
    assert "shanshui-tiny, which is part of the `landscape-video` package" in card
    assert "from pipeline_landscape_video import SHANSHUI_TINY" in card
    assert "guidance_scale=2, eta=1, " in card and "guidance_scale" not in card_for(base_model="a/stills")
    full = card_for(base_model=EMBEDDED_MODEL, full=True)
    assert "SHANSHUI_TINY" not in full and "shanshui-tiny" in full


def test_figures_settings_and_revision_are_in_the_card_and_paths_are_not():
    card = card_for(base_model="a/stills", training=TRAINING)
    for row in ("| learning rate | 1e-05 |", "| num frames range | 8, 16 |", "| steps | 40000 |", code_revision()):
        assert row in card
    assert "/home" not in card and "train data dir" not in card
    assert "Nothing is recorded" in card_for(base_model="a/stills")


def test_rows_cannot_break_the_table():
    assert training_rows({"settings": {"note": "a | b\nc", "folder": "~/x", "drive": "C:\\x"}}) == [
        ("note", "a / b c")
    ]


@pytest.mark.parametrize("mode", ["previous", "full"])
def test_the_card_says_what_stock_pipelines_make_of_the_adapter(mode):
    card = model_card(CardFacts("me/mountains", "mit", "a/stills"), build_motion_adapter(mode))
    assert ("run the\nadapter as plain attention" in card) is (mode == "previous")


def test_code_revision_names_version_code_and_commit():
    commit = r"(, commit [0-9a-f]{40}( with changes)?)?"
    assert re.fullmatch(rf"landscape-video [\w. ]+, code sha256 [0-9a-f]{{16}}{commit}", code_revision())
    assert code_revision() == code_revision()


def test_pinned_lines_name_the_commit_wherever_something_is_loaded_from_the_repository():
    for full in (False, True):
        facts = CardFacts("me/mountains", "mit", "a/stills", full)
        code = "\n".join(usage_lines(facts, 32, "0" * 40))
        ast.parse(code)
        assert code.count('revision="' + "0" * 40) == 2
        assert (
            "num_frames=16" in code and 'prompt = "mist' in code and "num_frames=8" in "\n".join(usage_lines(facts, 8))
        )


def test_the_prompt_begins_with_the_word_that_calls_what_was_learned():
    training = {"settings": {"trigger_word": "shanshui"}}
    assert 'prompt = "shanshui, mist drifting' in card_for(base_model="a/stills", training=training)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("license: apache-2.0", "license: apache", "knows no licence 'apache'"),
        ("license: apache-2.0", "license: other", "licence `other` needs a name"),
        ("pipeline_tag: text-to-video", "pipeline_tag: text-to-film", "knows no task 'text-to-film'"),
        ("library_name: diffusers", "library_name: transformers", "library_name is 'transformers'"),
        ("- animatediff", "- animatediff\n- animatediff", "names a tag twice"),
        ("base_model: a/stills", "base_model: /home/stills", "base_model is no name on the Hub"),
        ("---\n", "", "does not begin with its metadata"),
    ],
)
def test_a_card_that_the_hub_would_not_understand_is_refused(before, after, message):
    card = card_for(base_model="a/stills")
    check_card(card)
    assert before in card
    with pytest.raises(ValueError, match=message):
        check_card(card.replace(before, after))


def test_another_licence_has_a_name_and_a_place():
    facts = CardFacts("me/x", "other", "a/stills", license_name="my-terms", license_link="https://example.org/terms")
    data = ModelCard(model_card(facts, build_motion_adapter())).data
    assert (data.license, data.license_name, data.license_link) == ("other", "my-terms", "https://example.org/terms")


def test_the_card_of_a_pipeline_that_takes_pictures(tiny_components):
    facts = CardFacts("me/mountains", "mit", EMBEDDED_MODEL, full=True, takes_pictures=True)
    text = model_card(facts, tiny_components()["motion_adapter"])
    assert ModelCard(text).data.pipeline_tag == "image-to-video"
    assert "image retention branch" in text
    code = text.split("```python\n")[1].split("```")[0]
    compile(code, "card", "exec")
    assert "pipe(prompt, painting, num_frames=16" in code
    assert 'guidance_scale=4, guidance_order="picture_first", hold_first_frame=True, generator' in code  # as `animate`
    assert "custom_pipeline" not in code  # would mean the pipeline without pictures
