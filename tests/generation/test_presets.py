"""Presets: what they set, what they leave alone, and combinations that contradict them."""

import shutil
from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict

from landscape_video.generation.few_steps import FewStepFacts, base_hashes
from landscape_video.generation.generate_clip import generate_clip
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.presets import PRESETS, check_preset, use_preset
from landscape_video.generation.settings import ImageModelSettings, ModelSettings, TextToVideoSettings
from pipeline_landscape_video import LandscapeVideoPipeline
from tiny_models import build_components


TEXT = TextToVideoSettings(num_frames=2, seed=5, interpolate=False)


@pytest.fixture
def model(models, tmp_path):
    """A copy of the tiny pipeline with a few-step adapter that changes it."""
    folder = tmp_path / "model"
    shutil.copytree(models / "video", folder)
    unet = LandscapeVideoPipeline(**build_components()).unet
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "conv1"], init_lora_weights=False))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(unet))
    LandscapeVideoPipeline.save_lora_weights(folder / "few_steps", unet_lora_layers=layers)
    FewStepFacts(4, 2.0, base_hashes(folder, folder / "motion_adapter")).write(folder / "few_steps")
    return folder


def test_a_draft_takes_four_steps_with_its_weights_and_gives_the_pipeline_back(model):
    pipe = load_pipeline(ModelSettings(model=str(model), device="cpu"))
    own, scheduler = {name: weight.clone() for name, weight in pipe.unet.named_parameters()}, pipe.scheduler
    before = generate_clip(pipe, "mist", replace(TEXT, steps=4, guidance_scale=1.0))
    draft = generate_clip(pipe, "mist", replace(TEXT, preset="draft"))
    assert (draft.metadata["steps"], draft.metadata["guidance_scale"], draft.metadata["eta"]) == (4, 1.0, 0.0)
    assert draft.metadata["preset"] == "draft"
    assert pipe.scheduler is scheduler and not any("lora" in name for name, _ in pipe.unet.named_modules())
    assert all(torch.equal(weight, own[name]) for name, weight in pipe.unet.named_parameters())
    with use_preset(pipe, replace(TEXT, preset="draft")):
        changed = {name for name, weight in pipe.unet.named_parameters() if not torch.equal(weight, own[name])}
    assert any(name.endswith("conv1.weight") for name in changed) and all(
        "to_q" in name or "conv1" in name for name in changed
    )
    again = generate_clip(pipe, "mist", replace(TEXT, preset="draft"))
    assert (again.frames == draft.frames).all()
    after = generate_clip(pipe, "mist", replace(TEXT, steps=4, guidance_scale=1.0))
    assert (after.frames == before.frames).all() and not (after.frames == draft.frames).all()


@pytest.mark.parametrize("name", ["standard", "fine", "animatelcm"])
def test_other_presets_set_scheduler_and_what_is_not_given(models, name):
    pipe = load_pipeline(ModelSettings(model=str(models / "video"), device="cpu"))
    with use_preset(pipe, replace(TEXT, preset=name)):
        preset, sampling = PRESETS[name], pipe.resolve_sampling()
        assert type(pipe.scheduler).__name__ == (preset.scheduler or "DDIMScheduler")
        assert {key: sampling[key] for key in preset.sampling} == preset.sampling
        assert pipe.scheduler.config.beta_schedule == "linear"
    assert type(pipe.scheduler) is DDIMScheduler
    clip = generate_clip(pipe, "mist", replace(TEXT, preset=name, steps=2))
    assert clip.metadata["steps"] == 2


def test_an_adapter_of_other_weights_is_refused(model, models):
    adapter = str(models / "adapter")
    pipe = load_pipeline(ModelSettings(model=str(model), motion_adapter=adapter, device="cpu"))
    with pytest.raises(
        ValueError, match="^`preset` draft: the few-step adapter was distilled from other weights of mo"
    ):
        generate_clip(pipe, "mist", replace(TEXT, preset="draft"))


def test_a_draft_without_few_step_weights_has_the_models_guidance(models):
    pipe = load_pipeline(ModelSettings(model=str(models / "video"), device="cpu"))
    clip = generate_clip(pipe, "mist", replace(TEXT, preset="draft"))
    assert (clip.metadata["steps"], clip.metadata["guidance_scale"]) == (4, 8.0)


@pytest.mark.parametrize(
    ("settings", "given", "message"),
    [
        ({"preset": "draft", "steps": 8}, {}, "`steps` must be 4 with `preset` draft, got 8"),
        ({"preset": "draft", "guidance_scale": 4.0}, {}, "`guidance_scale` must be 1 with `preset` draft, .* got 4"),
        ({"preset": "draft", "negative_prompt": "mist"}, {}, "`negative_prompt` has no effect with `preset` draft"),
        ({"preset": "draft"}, {"lora": ["x"]}, "`lora` cannot be combined with `preset` draft"),
        ({"preset": "draft"}, {"offload": "model"}, "`offload` must be none with `preset` draft, got 'model'"),
        ({"preset": "animatelcm"}, {}, "`preset` animatelcm is for the motion modules of wangfuyun/AnimateLCM"),
    ],
)
def test_contradictions_are_one_line(model, settings, given, message):
    with pytest.raises(ValueError, match=message):
        check_preset(TextToVideoSettings(**settings), ModelSettings(model=str(model), **given))


def test_few_step_weights_are_for_text_to_video(model):
    pipe = load_pipeline(ImageModelSettings(device="cpu"))
    pipe.source_folder = model
    with use_preset(pipe, replace(TEXT, preset="draft")):
        assert pipe.resolve_sampling()["guidance_scale"] == 4.0
