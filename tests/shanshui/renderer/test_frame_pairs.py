"""Pairs with flow, and frames with depth: those of the training clips, the same however they are rendered."""

import numpy as np
import pytest

from shanshui.renderer.dataset import render_depth, render_pairs, scene_of
from shanshui.renderer.rendering import render_ground_truth


SETTINGS = {"count": 3, "seed": 7, "frames": 5, "fps": 8, "size": 64}


def test_pairs_are_neighboring_frames_of_their_clips(tmp_path):
    pairs = render_pairs(tmp_path, workers=0, **SETTINGS)
    assert all(0 <= first < 4 for first in pairs.first)
    for index, first in enumerate(pairs.first):
        truth = render_ground_truth(scene_of(index, 7, False), [first / 8, (first + 1) / 8], 64, 64, consistent=True)
        assert np.array_equal(pairs.frames[index], truth.frames)
        assert np.allclose(pairs.flow[index], truth.forward_flow[0], atol=0.01)
        assert np.array_equal(pairs.valid[index], truth.forward_valid[0])


def test_rendering_resumes(tmp_path):
    whole = render_pairs(tmp_path / "whole", workers=0, **SETTINGS)
    render_pairs(tmp_path / "part", workers=0, **SETTINGS)
    metadata = tmp_path / "part" / "pairs.jsonl"
    lines = metadata.read_text().splitlines(keepends=True)
    metadata.write_text(lines[0] + lines[1][:20])
    frames = np.load(tmp_path / "part" / "frames.npy", mmap_mode="r+")
    frames[1:] = 0
    resumed = render_pairs(tmp_path / "part", workers=1, **SETTINGS)
    assert np.array_equal(resumed.frames, whole.frames) and metadata.read_text() == "".join(lines)
    with pytest.raises(ValueError, match="other settings"):
        render_pairs(tmp_path / "part", workers=0, **{**SETTINGS, "seed": 8})


def test_depth_belongs_to_frames_of_its_clip(tmp_path):
    rendered = render_depth(tmp_path, 2, seed=7, every=2, frames=5, fps=8, size=32, workers=0)
    assert rendered.frames.shape == (2, 3, 32, 32, 3)
    for index in range(2):
        truth = render_ground_truth(scene_of(index, 7, False), [0.0, 0.25, 0.5], 32, 32)
        assert np.array_equal(rendered.frames[index], truth.frames)
        assert np.allclose(rendered.depth[index], truth.depth, atol=1e-3) and np.ptp(truth.depth) > 0.3
    (tmp_path / "depth.jsonl").write_text((tmp_path / "depth.jsonl").read_text().splitlines(keepends=True)[0])
    before = rendered.depth.copy()
    np.load(tmp_path / "depth.npy", mmap_mode="r+")[1] = 0
    resumed = render_depth(tmp_path, 2, seed=7, every=2, frames=5, fps=8, size=32, workers=0)
    assert np.array_equal(resumed.depth, before)
