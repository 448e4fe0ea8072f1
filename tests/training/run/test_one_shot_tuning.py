"""Tuning on one clip: what it learns, keeps, caches and restores."""

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from landscape_video.generation.depth_member import widen_for_depth
from landscape_video.training.run.one_shot_tuning import tune_one_shot
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.landscape_spatio_temporal_attention import (
    has_spatio_temporal_attention,
    install_spatio_temporal_attention,
    load_tuned,
    tuned_parameters,
)
from tiny_models import build_components


@pytest.fixture(scope="module")
def pipe() -> LandscapeVideoPipeline:
    return LandscapeVideoPipeline(**build_components())


@pytest.fixture(scope="module")
def video() -> np.ndarray:
    """10 frames with a square that moves, 36 x 44 pixels: not a multiple of 8."""
    frames = np.full((10, 36, 44, 3), 200, np.uint8)
    for index, frame in enumerate(frames):
        frame[10:20, 2 * index : 2 * index + 10] = 30
    return frames


def tune(pipe: LandscapeVideoPipeline, video: np.ndarray, cache_dir: Path, **options) -> Path:
    defaults = {"num_frames": 4, "max_train_steps": 2, "learning_rate": 1e-3, "checkpointing_steps": 100}
    return tune_one_shot(pipe, video, "a boat", cache_dir=cache_dir, **defaults | options)


def test_tuning_learns_the_clip_and_leaves_the_pipeline_as_it_was(pipe, video, tmp_path, caplog):
    before = copy.deepcopy(pipe.unet.state_dict())
    requires_grad = [weight.requires_grad for weight in pipe.unet.parameters()]
    seen = []
    with caplog.at_level("INFO", logger="training"):
        path = tune(pipe, video, tmp_path, max_train_steps=30, callback=lambda *progress: seen.append(progress))
    assert [(step, total) for step, total, _ in seen] == [(step, 30) for step in range(1, 31)]
    assert all(torch.equal(before[name], value) for name, value in pipe.unet.state_dict().items())
    assert before.keys() == pipe.unet.state_dict().keys() and not has_spatio_temporal_attention(pipe.unet)
    assert requires_grad == [weight.requires_grad for weight in pipe.unet.parameters()]
    now, then = (float(word) for word in caplog.messages[-1].split("error ")[1].split(" before")[0].split(" ("))
    assert now < then and "of the source" in caplog.messages[-1]
    other = copy.deepcopy(pipe.unet)
    assert load_tuned(other, path)["prompt"] == "a boat"
    assert any(parameter.abs().max() > 0 for name, parameter in tuned_parameters(other).items() if "to_out" in name)
    assert {file.name for file in path.parent.iterdir()} == {"tuned.safetensors", "README.md", "training.json"}
    card, record = (path.parent / "README.md").read_text(), json.loads((path.parent / "training.json").read_text())
    assert "| frames | 4 |" in card and record["settings"]["max_train_steps"] == 30
    assert str(tmp_path) not in card + (path.parent / "training.json").read_text()
    assert not list(path.parents[1].glob("checkpoint-*"))


def test_a_second_call_returns_at_once_and_other_settings_do_not(pipe, video, tmp_path):
    path = tune(pipe, video, tmp_path)
    written = path.stat().st_mtime_ns
    steps = []
    assert tune(pipe, video, tmp_path, callback=lambda *progress: steps.append(progress)) == path
    assert path.stat().st_mtime_ns == written and not steps
    others = {
        tune(pipe, video, tmp_path, learning_rate=2e-3),
        tune(pipe, 255 - video, tmp_path),
        tune_one_shot(pipe, video, "a pine", cache_dir=tmp_path, num_frames=4, max_train_steps=2),
    }
    assert len(others | {path}) == 4


def test_a_stopped_call_keeps_what_was_learned_and_resumes(pipe, video, tmp_path):
    whole = tune(pipe, video, tmp_path / "whole", max_train_steps=6)
    stopped = tune(pipe, video, tmp_path / "part", max_train_steps=6, callback=lambda step, total, loss: step == 3)
    assert stopped.is_file() and (stopped.parents[1] / "checkpoint-3").is_dir()
    partly = load_file(stopped)
    steps = []
    resumed = tune(
        pipe, video, tmp_path / "part", max_train_steps=6, callback=lambda step, total, loss: steps.append(step)
    )
    assert resumed == stopped and steps == [4, 5, 6]
    assert any(not torch.equal(tensor, partly[name]) for name, tensor in load_file(resumed).items())
    assert all(torch.equal(tensor, load_file(whole)[name]) for name, tensor in load_file(resumed).items())


@pytest.mark.parametrize("options", [{"temporal_attention": "adapter"}, {"gradient_checkpointing": "all"}])
def test_other_ways_of_tuning(pipe, video, tmp_path, options):
    before = copy.deepcopy(pipe.unet.state_dict())
    path = tune(pipe, video, tmp_path, **options)
    load_tuned(copy.deepcopy(pipe.unet), path)
    assert all(torch.equal(before[name], value) for name, value in pipe.unet.state_dict().items())
    assert not any("forward" in module.__dict__ for module in pipe.unet.modules())


def test_previews_show_the_clip_while_it_is_tuned(pipe, video, tmp_path, monkeypatch):
    monkeypatch.setattr("landscape_video.training.run.one_shot_tuning.PREVIEW_STEPS", 2)
    previews = []
    tune(pipe, video, tmp_path, max_train_steps=4, on_preview=previews.append)
    assert [(preview.shape, preview.dtype) for preview in previews] == [((4, 40, 48, 3), np.uint8)] * 2
    assert (previews[0] != previews[1]).any()


def test_a_long_clip_is_tuned_in_windows(pipe, video, tmp_path):
    shapes = []
    hook = pipe.unet.register_forward_pre_hook(lambda unet, args: shapes.append(args[0].shape[2]))
    tune(pipe, np.concatenate([video, video[::-1]]), tmp_path, num_frames=20)
    hook.remove()
    assert set(shapes) == {16}


def test_a_model_that_reads_depth_is_tuned_with_it(pipe, video, tmp_path):
    models = LandscapeVideoPipeline(**build_components())
    widen_for_depth(models.unet)
    depth = torch.rand(10, 1, 36, 44) * 2 - 1
    path = tune(models, video, tmp_path, depth=depth)
    assert tune(models, video, tmp_path, depth=-depth) != path
    with pytest.raises(ValueError, match="was tuned on another model"):
        load_tuned(pipe.unet, path)
    with pytest.raises(ValueError, match="`depth` must be given: this model reads depth"):
        tune(models, video, tmp_path)
    with pytest.raises(ValueError, match=r"`depth` must have the shape \(10, 1, 36, 44\), as the video"):
        tune(models, video, tmp_path, depth=depth[:5])
    with pytest.raises(ValueError, match="`depth` must be None: this model does not read depth"):
        tune(pipe, video, tmp_path, depth=depth)


def test_wrong_clips_and_models_are_refused(pipe, video, tmp_path):
    with pytest.raises(ValueError, match="`video` must have at least 2 frames to tune on, got 1"):
        tune(pipe, video[:1], tmp_path)
    with pytest.raises(ValueError, match="`video` must be uint8 frames"):
        tune(pipe, video / 255, tmp_path)
    with pytest.raises(ValueError, match="`num_frames` must be"):
        tune(pipe, video, tmp_path, num_frames=65)
    tuned = LandscapeVideoPipeline(**build_components())
    install_spatio_temporal_attention(tuned.unet)
    with pytest.raises(ValueError, match="`unet` must not have tuned weights yet"):
        tune(tuned, video, tmp_path)
    assert not list(tmp_path.iterdir())
