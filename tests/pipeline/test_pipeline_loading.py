"""`LandscapeVideoPipeline` and its components: attention, folders, other pipelines."""

import json
import logging
from itertools import combinations
from pathlib import Path

import pytest
import torch
from diffusers import (
    AnimateDiffPipeline,
    DDIMScheduler,
    EulerDiscreteScheduler,
    MotionAdapter,
    PNDMScheduler,
    StableDiffusionPipeline,
    UNet2DConditionModel,
    UNetMotionModel,
)
from transformers import CLIPImageProcessor

from pipeline_calls import PIPELINE_LOGGER, said
from pipeline_landscape_video import SPARSE_CAUSAL_MODES, LandscapeVideoPipeline
from tiny_models import build_motion_adapter, build_scheduler, build_unet2d


NOISE_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012}


def sample(pipe, **arguments):
    pipe.set_progress_bar_config(disable=True)
    if isinstance(pipe, LandscapeVideoPipeline):
        arguments["interpolate"] = False
    return pipe(
        "misty mountains",
        num_frames=4,
        num_inference_steps=2,
        guidance_scale=8,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
        **arguments,
    ).frames


def motion_unet(components):
    return UNetMotionModel.from_unet2d(components["unet"], components["motion_adapter"])


# The mode of the sparse-causal attention


@pytest.mark.parametrize("mode", SPARSE_CAUSAL_MODES)
def test_mode_of_the_adapter_is_installed(tiny_components, mode):
    pipe = LandscapeVideoPipeline(**tiny_components(sparse_causal_mode=mode))
    assert pipe.unet.config.sparse_causal_mode == mode
    stock = sample(AnimateDiffPipeline(**tiny_components()))
    assert torch.equal(sample(pipe), stock) == (mode == "full")


def test_modes_differ(tiny_components):
    clips = [
        sample(LandscapeVideoPipeline(**tiny_components(sparse_causal_mode=mode))) for mode in SPARSE_CAUSAL_MODES
    ]
    assert not any(torch.equal(one, other) for one, other in combinations(clips, 2))


def test_unknown_mode_is_refused(tiny_components):
    with pytest.raises(ValueError, match="`sparse_causal_mode` must be one of .*, got 'future'"):
        LandscapeVideoPipeline(**tiny_components(sparse_causal_mode="future"))


def test_mode_of_a_motion_unet_comes_before_the_adapters(tiny_components):
    components = tiny_components(sparse_causal_mode="previous")
    unet = motion_unet(components)
    unet.register_to_config(sparse_causal_mode="first_previous")
    pipe = LandscapeVideoPipeline(**components | {"unet": unet})
    assert pipe.unet.config.sparse_causal_mode == "first_previous"
    expected = sample(LandscapeVideoPipeline(**tiny_components(sparse_causal_mode="first_previous")))
    assert torch.equal(sample(pipe), expected)


def test_motion_unet_needs_no_adapter(tiny_components):
    components = tiny_components()
    pipe = LandscapeVideoPipeline(**components | {"unet": motion_unet(components), "motion_adapter": None})
    assert torch.equal(sample(pipe), sample(AnimateDiffPipeline(**components)))


def test_free_noise_of_a_motion_unet_needs_no_adapter(tiny_components):
    components = tiny_components()
    bare = LandscapeVideoPipeline(**components | {"unet": motion_unet(components), "motion_adapter": None})
    stock = AnimateDiffPipeline(**components)
    for pipe in (bare, stock):
        pipe.enable_free_noise(context_length=2, context_stride=1)
    assert torch.equal(sample(bare), sample(stock))
    assert bare.motion_adapter is None
    bare.enable_free_noise(context_length=None)
    assert bare._free_noise_context_length == bare.max_num_frames


def test_installed_unet_is_taken_as_it_is(tiny_components):
    components = tiny_components()
    unet = LandscapeVideoPipeline(**components).unet
    assert LandscapeVideoPipeline(**components | {"unet": unet}).unet is unet


# Adapters that do not fit


def test_image_unet_without_an_adapter_is_refused(tiny_components):
    with pytest.raises(ValueError, match="`motion_adapter` must be given"):
        LandscapeVideoPipeline(**tiny_components(motion_adapter=None))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            {"block_out_channels": (8, 24)},
            r"down_blocks.1 must have .* \[\(16, 4\)\], got \[\(24, 4\)\]",
        ),
        ({"block_out_channels": (8, 16, 16)}, r"up_blocks.1 must have .*, got \[\(16, 4\), \(16, 4\)\]"),
        ({"block_out_channels": (8,)}, "down_blocks.1"),
        (
            {"motion_layers_per_block": 2},
            r"down_blocks.0 must have .* \[\(8, 4\)\], got \[\(8, 4\), \(8, 4\)\]",
        ),
        ({"motion_norm_num_groups": 8}, r"down_blocks.0 must have .*, got \[\(8, 8\)\]"),
    ],
)
def test_adapter_that_does_not_fit_is_refused_in_one_line(tiny_components, overrides, message):
    adapter = build_motion_adapter(**overrides)
    with pytest.raises(ValueError, match=message) as caught:
        LandscapeVideoPipeline(**tiny_components(motion_adapter=adapter))
    assert "\n" not in str(caught.value)


def test_adapter_with_a_mid_block_fits(tiny_components):
    adapter = build_motion_adapter(use_motion_mid_block=True)
    pipe = LandscapeVideoPipeline(**tiny_components(motion_adapter=adapter))
    assert torch.isfinite(sample(pipe)).all()


def test_other_adapter_beside_a_motion_unet_is_warned_about(tiny_components, caplog):
    components = tiny_components()
    unet = motion_unet(components)
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER):
        LandscapeVideoPipeline(**components | {"unet": unet})
        assert not said(caplog)
        pipe = LandscapeVideoPipeline(**components | {"unet": unet, "motion_adapter": build_motion_adapter()})
    (message,) = said(caplog)
    assert message.startswith("`motion_adapter` is not used: `unet` has motion modules with different weights")
    pipe.unet.load_motion_modules(pipe.motion_adapter)  # what the warning recommends


# Folders


def test_pipeline_of_ours_is_loaded_as_it_was_saved(tiny_pipeline, tmp_path, caplog):
    pipe = tiny_pipeline()
    pipe.scheduler = EulerDiscreteScheduler(beta_schedule="scaled_linear", **NOISE_SCHEDULE)
    pipe.save_pretrained(tmp_path)
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER):
        loaded = LandscapeVideoPipeline.from_pretrained(tmp_path)
    assert not said(caplog)
    assert type(loaded.scheduler) is EulerDiscreteScheduler
    assert loaded.scheduler.config.beta_schedule == "scaled_linear"
    assert loaded.unet.config.sparse_causal_mode == "previous"
    assert torch.equal(sample(loaded), sample(pipe))


def save_like_stable_diffusion(components, folder: Path) -> None:
    """Stable Diffusion 1.5 in small: image UNet, PNDM with scaled_linear betas, entries of a safety checker."""
    StableDiffusionPipeline(
        vae=components["vae"],
        text_encoder=components["text_encoder"],
        tokenizer=components["tokenizer"],
        unet=components["unet"],
        scheduler=PNDMScheduler(beta_schedule="scaled_linear", skip_prk_steps=True, steps_offset=1, **NOISE_SCHEDULE),
        safety_checker=None,
        feature_extractor=CLIPImageProcessor(),
        requires_safety_checker=False,
    ).save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index |= {"safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"], "requires_safety_checker": True}
    (folder / "model_index.json").write_text(json.dumps(index))


def test_stable_diffusion_folder_with_an_adapter_folder(tiny_components, tmp_path, caplog):
    components = tiny_components(sparse_causal_mode="previous")
    save_like_stable_diffusion(components, tmp_path / "stable-diffusion")
    components["motion_adapter"].save_pretrained(tmp_path / "adapter")

    adapter = MotionAdapter.from_pretrained(tmp_path / "adapter")
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER):
        pipe = LandscapeVideoPipeline.from_pretrained(tmp_path / "stable-diffusion", motion_adapter=adapter)
    assert len(said(caplog)) == 1 and "PNDMScheduler" in said(caplog)[0]
    assert isinstance(pipe.feature_extractor, CLIPImageProcessor)
    assert "safety_checker" not in pipe.components
    expected = LandscapeVideoPipeline(**components)
    expected.scheduler = DDIMScheduler.from_config(expected.scheduler.config, set_alpha_to_one=False)  # PNDM's
    torch.testing.assert_close(sample(pipe), sample(expected))


def test_stable_diffusion_folder_without_an_adapter_is_refused(tiny_components, tmp_path):
    save_like_stable_diffusion(tiny_components(), tmp_path)
    with pytest.raises(ValueError, match="`motion_adapter` must be given"):
        LandscapeVideoPipeline.from_pretrained(tmp_path)


def test_folder_in_half_precision(tiny_pipeline, tmp_path):
    tiny_pipeline().save_pretrained(tmp_path)
    pipe = LandscapeVideoPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert {pipe.unet.dtype, pipe.vae.dtype, pipe.text_encoder.dtype} == {torch.bfloat16}
    assert torch.isfinite(sample(pipe)).all()


# Other pipelines


def test_from_pipe_of_an_image_pipeline(tiny_components):
    components = tiny_components()
    image_pipe = StableDiffusionPipeline(
        **{name: part for name, part in components.items() if name != "motion_adapter"},
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    image_pipe.set_progress_bar_config(disable=True)

    def image():
        generator = torch.Generator().manual_seed(0)
        return image_pipe("mist", num_inference_steps=1, generator=generator, output_type="pt").images

    before = image()
    pipe = LandscapeVideoPipeline.from_pipe(image_pipe, motion_adapter=components["motion_adapter"])
    assert torch.equal(sample(pipe), sample(LandscapeVideoPipeline(**components)))
    assert isinstance(image_pipe.unet, UNet2DConditionModel)
    assert torch.equal(image(), before)


def test_from_pipe_of_a_stock_pipeline_leaves_it_as_it_was(tiny_components):
    components = tiny_components(sparse_causal_mode="previous")
    stock = AnimateDiffPipeline(**components)
    before = sample(stock)
    pipe = LandscapeVideoPipeline.from_pipe(stock)
    expected = sample(LandscapeVideoPipeline(**components))
    assert not torch.equal(expected, before)
    assert torch.equal(sample(pipe), expected)
    assert torch.equal(sample(stock), before)
    assert "sparse_causal_mode" not in stock.unet.config
    for mine, theirs in zip(pipe.unet.parameters(), stock.unet.parameters(), strict=True):
        assert mine is theirs  # no memory is spent on it


def test_from_pipe_into_a_stock_pipeline_leaves_ours_as_it_was(tiny_pipeline):
    pipe = tiny_pipeline()
    before = sample(pipe)
    stock = AnimateDiffPipeline.from_pipe(pipe)
    assert torch.equal(sample(stock), before)  # the attention is in the UNet, which they share
    assert torch.equal(sample(pipe), before)


def test_same_components_again(tiny_pipeline):
    pipe = tiny_pipeline()
    assert torch.equal(sample(LandscapeVideoPipeline(**pipe.components)), sample(pipe))
    assert torch.equal(sample(LandscapeVideoPipeline.from_pipe(pipe)), sample(pipe))


def test_components_may_be_missing_to_encode_prompts_only(tiny_components):
    components = tiny_components()
    nothing = dict.fromkeys(components)
    pipe = LandscapeVideoPipeline(
        **nothing | {name: components[name] for name in ("tokenizer", "text_encoder")},
    )
    prompt_embeds, _ = pipe.encode_prompt("mist", "cpu", 1, False)
    assert prompt_embeds.shape == (1, 77, 16)


def test_two_levels_of_unet_are_not_special(tiny_components):
    unet = build_unet2d(
        block_out_channels=(8, 16, 16),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
    )
    adapter = build_motion_adapter(block_out_channels=(8, 16, 16))
    pipe = LandscapeVideoPipeline(**tiny_components(unet=unet, motion_adapter=adapter, scheduler=build_scheduler()))
    assert sample(pipe).shape == (1, 4, 3, 64, 64)
