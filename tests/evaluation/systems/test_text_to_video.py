"""Every form of baseline on a small random pipeline of its own class, by one call."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    EulerDiscreteScheduler,
    LCMScheduler,
    MotionAdapter,
    TextToVideoSDPipeline,
    TextToVideoZeroPipeline,
    UNet3DConditionModel,
)

from landscape_video.evaluation.systems.clips import GeneratedClips
from landscape_video.evaluation.systems.text_to_video import DEFAULTS, FORMS, SystemSpec, parse_system
from pipeline_landscape_video.landscape_optical_flow import estimator_at_hand
from pipeline_landscape_video.landscape_sampling import PAPER_SAMPLING
from tiny_models import build_components


SETTINGS = replace(DEFAULTS, num_frames=4, steps=4)


@pytest.fixture(scope="module")
def modelscope(tmp_path_factory) -> Path:
    """A `TextToVideoSDPipeline` that has learned nothing."""
    parts = build_components()
    torch.manual_seed(0)
    unet = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(4, 8),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=2,
    )
    names = ("vae", "text_encoder", "tokenizer", "scheduler")
    folder = tmp_path_factory.mktemp("modelscope")
    TextToVideoSDPipeline(unet=unet, **{name: parts[name] for name in names}).save_pretrained(folder)
    return folder


def system(models: Path, modelscope: Path, form: str, **settings) -> SystemSpec:
    adapter = str(models / "adapter") if FORMS[form].needs_adapter else None
    model = {"landscape": models / "video", "diffusers": modelscope}.get(form, models / "still")
    lora = str(models / "lora") if form == "animatelcm" else None
    return SystemSpec(form, form, str(model), adapter, lora, replace(SETTINGS, **settings))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_generates_by_prompt_and_seed(models, modelscope, form):
    runner = FORMS[form](system(models, modelscope, form), "cpu")
    clip = runner.generate("misty mountains", 3)
    assert clip.shape == (4, 64, 64, 3) and clip.dtype == np.uint8 and clip.std() > 0
    np.testing.assert_array_equal(clip, runner.generate("misty mountains", 3))
    assert (clip != runner.generate("misty mountains", 4)).any()
    assert (clip != runner.generate("a boat over the river", 3)).any()


@pytest.mark.parametrize(
    ("form", "pipeline", "scheduler", "steps", "guidance"),
    [
        ("animatediff", AnimateDiffPipeline, DDIMScheduler, 25, 7.5),
        ("animatelcm", AnimateDiffPipeline, LCMScheduler, 6, 2.0),
        ("animatediff-lightning", AnimateDiffPipeline, EulerDiscreteScheduler, 4, 1.0),
        ("text2video-zero", TextToVideoZeroPipeline, DDIMScheduler, 50, 7.5),
        ("diffusers", TextToVideoSDPipeline, DDIMScheduler, None, None),
    ],
)
def test_each_form_is_put_together_as_its_authors_do(models, modelscope, form, pipeline, scheduler, steps, guidance):
    runner = FORMS[form](system(models, modelscope, form, steps=None), "cpu")
    assert type(runner.pipe) is pipeline and type(runner.pipe.scheduler) is scheduler
    assert runner.pipe.scheduler.config.beta_schedule == "linear"
    arguments = runner.arguments()
    assert (arguments.get("num_inference_steps"), arguments.get("guidance_scale")) == (steps, guidance)
    if form == "animatediff-lightning":
        assert runner.pipe.scheduler.config.timestep_spacing == "trailing"
    if form == "animatelcm":
        scales = {module.scaling["lora"] for module in runner.pipe.unet.modules() if hasattr(module, "scaling")}
        plain = replace(runner.spec, lora=None)
        assert len(scales) == 1 and runner.pipe.get_active_adapters() == ["lora"]
        assert (runner.generate("mist", 1) != FORMS[form](plain, "cpu").generate("mist", 1)).any()


def test_animatediff_equals_a_call_of_diffusers(models, modelscope):
    adapter = MotionAdapter.from_pretrained(models / "adapter")
    pipe = AnimateDiffPipeline.from_pretrained(models / "still", motion_adapter=adapter)
    pipe.scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        timestep_spacing="linspace",
        steps_offset=1,
        clip_sample=False,
    )
    generator = torch.Generator().manual_seed(5)
    theirs = pipe(
        "mist", num_frames=4, num_inference_steps=4, guidance_scale=7.5, generator=generator, output_type="np"
    )
    ours = FORMS["animatediff"](system(models, modelscope, "animatediff"), "cpu").generate("mist", 5)
    np.testing.assert_array_equal(ours, (theirs.frames[0] * 255).round().astype(np.uint8))


@pytest.mark.parametrize("steps", [4, 5, 10, 50])
def test_text2video_zero_moves_latents_at_the_published_place(models, modelscope, steps):
    runner = FORMS["text2video-zero"](system(models, modelscope, "text2video-zero", steps=steps), "cpu")
    arguments = runner.arguments()
    assert 0 < arguments["t0"] < arguments["t1"] < steps
    assert arguments["t0"] / steps == pytest.approx(44 / 50, abs=0.65 if steps < 10 else 0.19)
    if steps == 50:
        assert (arguments["t0"], arguments["t1"]) == (44, 47)


def test_interpolated_clips_have_the_asked_length(models, modelscope):
    for num_frames in (4, 5):
        spec = system(models, modelscope, "landscape", num_frames=num_frames, interpolate=True)
        runner = FORMS["landscape"](spec, "cpu")
        assert len(runner.sample("mist", 1)) == 5  # 3 were sampled
        assert len(runner.generate("mist", 1)) == num_frames


def test_each_model_is_sampled_with_its_own_guidance_and_eta(models, modelscope):
    tiny = SystemSpec("tiny", "landscape", "shanshui-tiny", settings=replace(SETTINGS, num_frames=2, steps=2))
    other = system(models, modelscope, "landscape")
    for spec, guidance_scale, eta in ((tiny, 2.0, 1.0), (other, 8.0, 0.0)):
        explicit = replace(spec, settings=replace(spec.settings, guidance_scale=guidance_scale, eta=eta))
        changed = replace(spec, settings=replace(spec.settings, guidance_scale=guidance_scale + 1))
        clip, same, different = (
            FORMS["landscape"](each, "cpu").generate("mist", 1) for each in (spec, explicit, changed)
        )
        np.testing.assert_array_equal(clip, same)
        assert (clip != different).any()


def test_a_system_that_does_not_run_is_named(models, modelscope, tmp_path):
    image_model = SystemSpec("images", "diffusers", str(models / "still"), settings=SETTINGS)
    with pytest.raises(ValueError, match="^images: StableDiffusionPipeline takes no num_frames"):
        FORMS["diffusers"](image_model, "cpu").generate("mist", 0)
    few = system(models, modelscope, "text2video-zero", steps=3)
    with pytest.raises(ValueError, match="`steps` must be at least 4 for Text2Video-Zero, got 3"):
        FORMS["text2video-zero"](few, "cpu").generate("mist", 0)
    (tmp_path / "empty").mkdir()
    for model, problem in ((tmp_path / "none", "no such file or folder"), (tmp_path / "empty", "model_index.json")):
        with pytest.raises(ValueError, match=f"^ours: .*{problem}"):
            FORMS["landscape"](SystemSpec("ours", "landscape", str(model)), "cpu")
    with pytest.raises(ValueError, match="^ours: "):
        FORMS["landscape"](
            replace(system(models, modelscope, "landscape"), name="ours", lora=str(models / "none")), "cpu"
        )
    with pytest.raises(ConnectionError, match="^ours: nobody/nothing"):  # the Hub is not asked in tests
        FORMS["landscape"](SystemSpec("ours", "landscape", "nobody/nothing"), "cpu")


def test_nan_and_missing_frames_are_refused(models, modelscope):
    runner = FORMS["landscape"](system(models, modelscope, "landscape"), "cpu")

    class Hasty(type(runner)):
        def sample(self, prompt: str, seed: int) -> np.ndarray:
            return super().sample(prompt, seed)[:3]

    with pytest.raises(ValueError, match="^landscape: the pipeline must return 4 frames, got 3"):
        Hasty(runner.spec, "cpu").generate("mist", 0)
    with torch.no_grad():
        runner.pipe.vae.decoder.conv_out.bias.fill_(torch.nan)
    with pytest.raises(ValueError, match="^landscape: the model computed NaN in float32"):
        runner.generate("mist", 0)


def test_the_record_knows_weights_and_settings(models, modelscope, tmp_path):
    spec = system(models, modelscope, "animatelcm")
    record = spec.record()
    assert record["steps"] == 4 and record["form"] == "animatelcm" and record["interpolate"] is False
    assert {len(record[f"{role}_sha256"]) for role in ("model", "adapter", "lora")} == {64}
    other = replace(spec, adapter=str(models / "wide_adapter")).record()
    assert other["adapter_sha256"] != record["adapter_sha256"] and other["model_sha256"] == record["model_sha256"]
    shutil.copytree(models / "adapter", tmp_path / "adapter")
    config = tmp_path / "adapter" / "config.json"
    config.write_text(config.read_text().replace('"previous"', '"current_previous"'))
    other = replace(spec, adapter=str(tmp_path / "adapter")).record()
    assert other["adapter_sha256"] == record["adapter_sha256"]
    assert other["adapter_config_sha256"] != record["adapter_config_sha256"]


def test_the_record_names_the_defaults_in_force(models, modelscope, monkeypatch):
    tiny = SystemSpec("tiny", "landscape", "shanshui-tiny")
    record = tiny.record()
    assert (record["steps"], record["guidance_scale"], record["eta"]) == (25, 2.0, 1.0)
    assert replace(tiny, settings=replace(DEFAULTS, guidance_scale=7)).record()["guidance_scale"] == 7
    assert system(models, modelscope, "landscape").record()["guidance_scale"] == 8
    assert system(models, modelscope, "animatelcm", steps=None).record()["steps"] == 6
    assert "flow_estimator" not in record
    assert (
        replace(tiny, settings=replace(DEFAULTS, interpolate=True)).record()["flow_estimator"] == estimator_at_hand()
    )
    folder = GeneratedClips(tiny, ["mist"], models, 0, 1).folder
    monkeypatch.setitem(PAPER_SAMPLING["text"], "num_inference_steps", 30)
    assert GeneratedClips(tiny, ["mist"], models, 0, 1).folder != folder  # as with a version that has another


def test_systems_in_one_line():
    shared = replace(DEFAULTS, num_frames=8, height=64, steps=30, guidance_scale=3.0, interpolate=True)
    spec = parse_system("animatelcm=sd15,adapter=lcm,lora=lcm.safetensors,steps=8,guidance=1.5,name=LCM", shared)
    settings = replace(DEFAULTS, num_frames=8, height=64, steps=8, guidance_scale=1.5)
    assert spec == SystemSpec("LCM", "animatelcm", "sd15", "lcm", "lcm.safetensors", settings)
    plain = parse_system("diffusers=modelscope", shared)
    assert plain.name == "diffusers" and plain.settings.steps is None and plain.settings.guidance_scale is None
    assert parse_system("landscape=shanshui-tiny", shared).settings.interpolate


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("animatediff", "a system must be FORM=MODEL"),
        ("=sd15", "a system must be FORM=MODEL"),
        ("diffusers=", "a system must be FORM=MODEL"),
        ("zeroscope=folder", "the form must be one of landscape, animatediff.*, got 'zeroscope'"),
        ("animatediff=sd15", "animatediff needs adapter=FOLDER"),
        ("diffusers=x,adapter=y", "diffusers takes no adapter"),
        ("diffusers=x,steps=many", "steps must be a number, got 'many'"),
        ("diffusers=x,seed=3", "expected steps, guidance, adapter, lora or name, each with =VALUE, got 'seed=3'"),
        ("diffusers=x,name=", "each with =VALUE, got 'name='"),
    ],
)
def test_systems_that_are_none(text, problem):
    with pytest.raises(ValueError, match=problem):
        parse_system(text)
