"""Pairs of frames with flow: those of the training clips, the same however they are rendered."""

import numpy as np
import pytest

from shanshui.renderer.dataset import render_pairs, scene_of
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
