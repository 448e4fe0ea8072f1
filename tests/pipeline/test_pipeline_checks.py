"""`LandscapeVideoPipeline` refuses invalid arguments, and warns, before the first step."""

import logging

import pytest
import torch
from diffusers import UNetMotionModel
from peft import LoraConfig
from PIL import Image

from pipeline_calls import PIPELINE_LOGGER, Steps, said, sample
from tiny_models import build_unet2d


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"num_frames": 40, "context_length": 33}, ValueError, "`context_length` must be at most 32, .*, got 33"),
        ({"num_frames": 40, "context_overlap": 16}, ValueError, "`context_overlap` must be smaller .*, 16, got 16"),
        (
            {"num_frames": 40, "context_weights": [1, 2]},
            ValueError,
            r"the shape \(16,\) or \(16, 1, 8, 8\), got \(2,\)",
        ),
        (
            {"context_schedule": "uniform"},
            ValueError,
            "`context_schedule` must be one of moved, static, got 'uniform'",
        ),
        ({"prompt": {0: "mist", 40: "rain"}, "num_frames": 40}, ValueError, "within the 40 frames, got frame 40"),
        ({"prompt": {0: "mist", 2: 5}}, ValueError, "`prompt` over time must be texts by .* first frame"),
        ({"prompt": {2: "mist"}}, ValueError, r"`prompt` over time must begin at frame 0, got \[2\]"),
        ({"negative_prompt": {0: "a", 3: "b", 1: "c"}}, ValueError, r"`negative_prompt` .* increasing .* \[0, 3, 1\]"),
        ({"prompt": {0: "mist", 2: "rain"}, "transition": 9}, ValueError, "`transition` must be at most 4, .*, got 9"),
        ({"transition": -1}, ValueError, "`transition` must be a whole number of frames of at least 0, got -1"),
        ({"prompt": ["mist"] * 2, "negative_prompt": ["rain"] * 3}, ValueError, "or 2, one per clip, got 3"),
        ({"num_frames": 0}, ValueError, "`num_frames` must be a whole number of at least 1, got 0"),
        ({"num_frames": 4.0}, ValueError, "`num_frames` must be a whole number of at least 1, got 4.0"),
        ({"num_inference_steps": 0}, ValueError, "`num_inference_steps` must be a whole number of at least 1, got 0"),
        (
            {"num_inference_steps": 1000},
            ValueError,
            "`num_inference_steps` must be smaller .* an offset of 1, got 1000",
        ),
        (
            {"num_inference_steps": 1001},
            ValueError,
            "`num_inference_steps` must be smaller for DDIMScheduler with 1000 timesteps .*, got 1001",
        ),
        ({"height": 60}, ValueError, "`height` must be a positive multiple of 8, got 60"),
        ({"width": 60}, ValueError, "`width` must be a positive multiple of 8, got 60"),
        ({"height": 0}, ValueError, "`height` must be a positive multiple of 8, got 0"),
        ({"width": -8}, ValueError, "`width` must be a positive multiple of 8, got -8"),
        ({"num_videos_per_prompt": 2}, ValueError, "`num_videos_per_prompt` must be 1, got 2; repeat the prompt"),
        ({"prompt": []}, ValueError, "`prompt` must hold at least one string, got an empty list"),
        ({"output_type": "gif"}, ValueError, "`output_type` must be one of pil, np, pt, latent, got 'gif'"),
        ({"sofp_mode": "cubic"}, ValueError, "`sofp_mode` must be one of quadratic, projection, linear, got 'cubic'"),
        ({"sofp_mode": "cubic", "interpolate": False}, ValueError, "`sofp_mode` must be one of .*, got 'cubic'"),
        (
            {"flow_estimator": "farneback"},
            ValueError,
            "`flow_estimator` must be one of raft, raft-small, dis, got 'farneback'",
        ),
        (
            {"latents": torch.zeros(1, 4, 5, 8, 8)},
            ValueError,
            r"must have the shape \(1, 4, 4, 8, 8\), .*, got \(1, 4, 5, 8, 8\)",
        ),
        (
            {"latents": torch.zeros(1, 4, 4, 8, 9)},
            ValueError,
            r"must have the shape \(1, 4, 4, 8, 8\), .*, got \(1, 4, 4, 8, 9\)",
        ),
        (
            {"latents": torch.zeros(4, 4, 8, 8)},
            ValueError,
            r"must have the shape \(1, 4, 4, 8, 8\), .*, got \(4, 4, 8, 8\)",
        ),
        (
            {"prompt": ["mist"] * 2, "latents": torch.zeros(1, 4, 4, 8, 8)},
            ValueError,
            r"must have the shape \(2, 4, 4, 8, 8\)",
        ),
        ({"prompt": 5}, ValueError, "`prompt` must be a string, a dictionary or a list, got 5"),
        ({"eta": 1.05}, ValueError, "`eta` must be between 0 and 1, got 1.05"),
        ({"eta": float("nan")}, ValueError, "`eta` must be between 0 and 1, got nan"),
        (
            {"decode_chunk_size": None},
            ValueError,
            "`decode_chunk_size` must be a whole number of at least 1, got None",
        ),
        ({"decode_chunk_size": 0}, ValueError, "`decode_chunk_size` must be a whole number of at least 1, got 0"),
        ({"output_type": Image.Image}, ValueError, "`output_type` must be one of .*, got <class"),
        ({"interpolat": False}, TypeError, r"unknown keyword `interpolat`; did you mean `interpolate`\?"),
        ({"video_length": 8}, TypeError, "unknown keyword `video_length`"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line_before_any_step(tiny_pipeline, arguments, error, message):
    pipe = tiny_pipeline()
    steps = Steps(pipe)
    with pytest.raises(error, match=message) as caught:
        sample(pipe, **arguments)
    assert "\n" not in str(caught.value)
    assert steps.count == 0


def test_as_many_frames_as_positions_are_allowed(tiny_pipeline):
    assert sample(tiny_pipeline(), num_frames=32, num_inference_steps=1, interpolate=False).shape[1] == 32


def test_image_unet_assigned_later_is_refused(tiny_pipeline):
    pipe = tiny_pipeline()
    pipe.unet = build_unet2d()
    with pytest.raises(ValueError, match="`pipe.unet` must be a `UNetMotionModel`, got an image UNet"):
        sample(pipe)


def test_motion_unet_assigned_later_gets_the_attention(tiny_pipeline, tiny_components):
    pipe, components = tiny_pipeline(), tiny_components()
    expected = sample(pipe)
    assigned = UNetMotionModel.from_unet2d(components["unet"], components["motion_adapter"])
    pipe.unet = assigned
    assert torch.equal(sample(pipe), expected)
    assert "sparse_causal_mode" not in assigned.config  # it may belong to another pipeline


def test_long_prompt_is_warned_about_with_what_was_cut(tiny_pipeline, caplog):
    sample(tiny_pipeline(), prompt="misty mountains " * 38 + "boat")
    (message,) = said(caplog, "diffusers.pipelines.animatediff.pipeline_animatediff")
    assert "truncated" in message and "mountains boat" in message and "\n" not in message


@pytest.mark.parametrize("wrap", [str, lambda text: [text]])
def test_long_negative_prompt_is_warned_about_with_what_was_cut(tiny_pipeline, caplog, wrap):
    pipe = tiny_pipeline()
    text = "misty mountains " * 37 + "rain snow"
    prompt = wrap("mist")
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER):
        sample(pipe, prompt=prompt, negative_prompt=wrap(text[:-5]))
        sample(pipe, prompt=prompt, negative_prompt=wrap(text), guidance_scale=1)  # not used, nothing to say
        assert not said(caplog)
        sample(pipe, prompt=prompt, negative_prompt=wrap(text))
    assert said(caplog) == ["`negative_prompt` was truncated after 77 tokens; this part is lost: 'snow'"]


# LoRA and fused projections


def add_lora(pipe):
    torch.manual_seed(1)  # the layers begin with random weights
    pipe.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v"], init_lora_weights=False))


@pytest.mark.parametrize("first", ["lora", "fused"])
def test_lora_on_fused_projections_is_refused(tiny_pipeline, first):
    pipe = tiny_pipeline()
    if first == "lora":
        add_lora(pipe)
        expected = sample(pipe)
        pipe.fuse_qkv_projections(vae=False)
    else:
        pipe.fuse_qkv_projections(vae=False)
        add_lora(pipe)
    steps = Steps(pipe)
    with pytest.raises(ValueError, match=r"no effect on projections fused .* call `pipe.unfuse_qkv_projections\(\)`"):
        sample(pipe)
    assert not steps.count
    pipe.unfuse_qkv_projections(vae=False)
    unfused = sample(pipe)
    if first == "lora":
        assert torch.equal(unfused, expected)


def test_merged_lora_acts_on_fused_projections(tiny_pipeline):
    pipe = tiny_pipeline()
    without = sample(pipe)
    add_lora(pipe)
    expected = sample(pipe)
    pipe.fuse_lora(components=["unet"])
    pipe.unload_lora_weights()
    pipe.fuse_qkv_projections(vae=False)
    torch.testing.assert_close(sample(pipe), expected, rtol=1e-3, atol=1e-4)
    assert not torch.allclose(without, expected, rtol=1e-3, atol=1e-4)
