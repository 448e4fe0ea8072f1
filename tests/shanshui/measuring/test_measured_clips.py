"""Clips are made once, the same in every process, and those of other models or settings are kept apart."""

from dataclasses import fields, replace

import numpy as np
import pytest

from landscape_video.generation.settings import ImageToVideoSettings
from shanshui.measuring.measured_clips import Variant
from shanshui_clips import REQUESTS, make_maker, make_variant


def test_clips_are_made_once(model, tmp_path):
    maker = make_maker(model, tmp_path / "clips")
    variant = make_variant(num_frames=3)
    clips = maker.clips(REQUESTS[:1], variant)
    assert clips[0].shape == (3, maker.size, maker.size, 3) and clips[0].dtype == np.uint8 and maker.made == 1
    path = maker.path(REQUESTS[0], variant)
    np.save(path, 255 - clips[0])
    again = make_maker(model, tmp_path / "clips")
    more = again.clips(REQUESTS, variant)
    np.testing.assert_array_equal(more[0], 255 - clips[0])
    assert again.made == 2 and len(more) == 3
    # A clip depends on its own request, not on what else was in the batch.
    alone = make_maker(model, tmp_path / "other", batch=1).clips(REQUESTS, variant)
    assert np.abs(alone[2].astype(int) - more[2]).max() <= 1
    assert {file.suffix for file in (tmp_path / "clips").rglob("*.*")} == {".npy"}


def test_processes_make_the_same_clips(model, tmp_path):
    variant = make_variant(num_frames=2)
    here = make_maker(model, tmp_path / "here", batch=1).clips(REQUESTS, variant)
    maker = make_maker(model, tmp_path / "there", batch=1, workers=2)
    there = maker.clips(REQUESTS, variant)
    assert maker.made == 3 and maker.seconds > 0
    assert max(np.abs(one.astype(int) - other).max() for one, other in zip(here, there, strict=True)) <= 1


def test_bfloat16_clips_are_nearly_the_same(model, tmp_path):
    variant = make_variant(num_frames=2)
    exact, rough = (
        make_maker(model, tmp_path, dtype=dtype).clips(REQUESTS, variant) for dtype in ("float32", "bfloat16")
    )
    difference = np.abs(np.stack(exact).astype(int) - np.stack(rough))
    assert 0 < difference.mean() < 3


def test_other_weights_and_prompts_are_other_clips(model, tmp_path):
    maker = make_maker(model, tmp_path)
    assert make_maker(model, tmp_path, seed=4).store != maker.store
    assert replace(REQUESTS[0], negative_prompt="rain").file_name != REQUESTS[0].file_name
    weights = model / "vae" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert make_maker(model, tmp_path).store != maker.store


CHANGES = {
    "steps": 3,
    "guidance_scale": 1.0,
    "num_frames": 8,
    "eta": 1.0,
    "guidance_order": "text_first",
    "image_guidance_scale": 0.5,
    "retention_scale": 0.0,
    "hold_first_frame": False,
}


@pytest.mark.parametrize("name", CHANGES)
def test_other_settings_are_other_clips(name):
    assert name in {each.name for each in fields(ImageToVideoSettings)}
    variant = Variant(ImageToVideoSettings(guidance_scale=4.0, eta=0.0, interpolate=False))
    assert variant.changed(**{name: CHANGES[name]}).name != variant.name


def test_other_noise_and_stages_are_other_clips():
    variant = make_variant()
    assert len({variant.name, replace(variant, noise=1).name, replace(variant, stages=2).name}) == 3
