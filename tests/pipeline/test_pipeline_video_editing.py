"""`LandscapeVideoEditingPipeline`: identity, masks, sizes, windows, depth, acceleration, and refusals."""

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline_calls import said
from pipeline_landscape_video import LandscapeVideoEditingPipeline, LandscapeVideoPipeline
from tiny_models import build_components, build_unet2d


CLIP = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3)).astype(np.uint8)
MASK = np.zeros((4, 64, 64), np.float32)
MASK[:, :, :32] = 1


def build(**overrides):
    pipe = LandscapeVideoEditingPipeline(**build_components(**overrides))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe():
    return build()


def edit(pipe, video=CLIP, source_prompt="mist", prompt="snow", **arguments):
    defaults = {"num_inference_steps": 4, "generator": torch.Generator().manual_seed(0), "output_type": "latent"}
    return pipe(video, source_prompt, prompt, **(defaults | arguments)).frames


@torch.no_grad()
def source_latents(pipe, video=CLIP):
    return pipe.encode_clip(torch.from_numpy(video).movedim(-1, 1) / 255, 16)


def test_equal_prompts_change_nothing_and_say_so(pipe, caplog):
    edited = edit(pipe, prompt="mist")
    assert torch.equal(edited, source_latents(pipe))
    assert any("nothing to change" in line for line in said(caplog))


@pytest.mark.parametrize("edit_mode", ["paired", "inversion"])
def test_an_edit_changes_the_clip_as_the_prompt_says(pipe, edit_mode):
    snow, rain = edit(pipe, prompt=["snow", "rain"], edit_mode=edit_mode)
    assert (snow - rain).abs().max() > 1e-3
    for edited, prompt in ((snow, "snow"), (rain, "rain")):  # as each of them alone
        assert torch.equal(edited[None], edit(pipe, prompt=prompt, edit_mode=edit_mode))


@pytest.mark.parametrize("edit_mode", ["paired", "inversion"])
def test_nothing_changes_outside_a_mask(pipe, edit_mode):
    edited, source = edit(pipe, mask=MASK, edit_mode=edit_mode), source_latents(pipe)
    assert torch.equal(edited[..., 4:], source[..., 4:])
    assert (edited[..., :4] - source[..., :4]).abs().max() > 1e-3


def test_each_object_follows_its_own_prompt(pipe):
    both = edit(pipe, prompt=["snow", "rain"], mask=[MASK, 1 - MASK])
    assert both.shape == (1, 4, 4, 8, 8)
    swapped = edit(pipe, prompt=["rain", "snow"], mask=[MASK, 1 - MASK])
    assert (both - swapped).abs().max() > 1e-3


@pytest.mark.parametrize("edit_mode", ["paired", "inversion"])
@pytest.mark.parametrize("count", [1, 3, 20])
def test_frames_out_are_frames_in(pipe, count, edit_mode):
    video = np.random.default_rng(1).integers(0, 255, (count, 50, 37, 3)).astype(np.uint8)
    frames = edit(pipe, video, edit_mode=edit_mode, num_inference_steps=2, output_type="np")
    assert frames.shape == (1, count, 50, 37, 3)


def test_arrays_tensors_and_images_are_the_same_clip(pipe):
    tensor = torch.from_numpy(CLIP).movedim(-1, 1) / 255
    images = [Image.fromarray(frame) for frame in CLIP]
    first, second, third = (edit(pipe, video) for video in (CLIP, tensor, images))
    assert torch.equal(first, second) and torch.equal(first, third)


def test_an_inversion_that_loses_the_clip_warns(pipe, caplog):
    latents = pipe.invert(CLIP, num_inference_steps=4)
    assert latents.shape == (1, 4, 4, 8, 8) and latents.dtype == torch.float32
    assert any("loses the clip" in line and "inversion_iterations" in line for line in said(caplog))


def test_acceleration_changes_no_edit():
    plain, fast = build(), build()
    fast.optimize()
    assert torch.allclose(edit(plain), edit(fast), atol=1e-4)


def test_a_model_with_inputs_for_depth_reads_it():
    pipe = build(unet=build_unet2d(in_channels=5))
    assert pipe.reads_depth
    depth = torch.linspace(-1, 1, 64).expand(4, 1, 64, 64)
    near, far = edit(pipe, depth=depth), edit(pipe, depth=-depth)
    assert (near - far).abs().max() > 1e-4


def test_components_are_those_of_text_to_video(tmp_path):
    LandscapeVideoPipeline(**build_components()).save_pretrained(tmp_path)
    pipe = LandscapeVideoEditingPipeline.from_pretrained(tmp_path)
    pipe.set_progress_bar_config(disable=True)
    assert torch.equal(edit(pipe), edit(build()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"video": CLIP.astype(np.float32)}, "`video` as an array must be uint8"),
        ({"video": torch.full((2, 3, 8, 8), 2.0)}, "values from 0 to 1"),
        ({"video": "river.mp4"}, "`video` must be an array, a tensor or PIL images, got str"),
        ({"prompt": []}, "`prompt` must hold at least one"),
        ({"edit_mode": "magic"}, "`edit_mode` must be one of paired, inversion"),
        ({"strength": 0}, "`strength` must be above 0"),
        ({"inversion_iterations": -1}, "`inversion_iterations` must be"),
        ({"mask": MASK[:, :32]}, "`mask` must have the shape"),
        ({"mask": MASK[:2]}, "`mask` must have the shape"),
        ({"mask": 0 * MASK}, "`mask` must not be empty"),
        ({"mask": 3 * MASK}, "`mask` must have values from 0 to 1"),
        ({"mask": [MASK, MASK], "prompt": ["a", "b", "c"]}, "or one for each of 3 prompts, got 2"),
        ({"depth": torch.zeros(4, 1, 64, 64)}, "this model reads no depth"),
    ],
)
def test_wrong_arguments_are_named(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        edit(pipe, **arguments)


@pytest.mark.parametrize(
    ("depth", "message"), [(None, "must be given"), (torch.zeros(2, 1, 64, 64), "must have the shape")]
)
def test_depth_of_another_count_is_named(depth, message):
    with pytest.raises(ValueError, match=message):
        edit(build(unet=build_unet2d(in_channels=5)), depth=depth)
