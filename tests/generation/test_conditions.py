"""Conditions made from a clip, and condition videos that do not fit."""

import numpy as np
import pytest

from landscape_video.generation.conditions import detect, read_condition
from pipeline_landscape_video.video_io import write_video


FRAMES = np.zeros((3, 32, 48, 3), np.uint8)
FRAMES[:, 8:24, 12:36] = 200


@pytest.mark.parametrize("detector", ["canny", "soft_edges"])
def test_edges_are_where_the_square_ends(detector):
    images = detect(detector, FRAMES)
    assert images.shape == FRAMES.shape and images.dtype == np.uint8
    assert images[:, 6:10, 16:32].max() > 200
    assert images[:, 13:19, 18:30].max() < 20 and images[:, :3].max() < 20


def test_soft_edges_have_one_scale_for_the_clip():
    frames = FRAMES.copy()
    frames[1] //= 4
    images = detect("soft_edges", frames)
    assert images[1].max() < 0.4 * images[0].max()


def test_depth_is_read_from_a_file(tmp_path):
    depth = np.linspace(0, 1, 3 * 32 * 48, dtype=np.float32).reshape(3, 32, 48)
    np.save(tmp_path / "depth.npy", depth)
    images = detect("depth", FRAMES, depth=str(tmp_path / "depth.npy"))
    assert np.abs(images[..., 0] / 255 - depth).max() < 0.01


def test_a_condition_video_must_be_long_enough(tmp_path):
    write_video(tmp_path / "poses", FRAMES, fps=8)
    assert np.array_equal(read_condition(tmp_path / "poses", 2), FRAMES[:2])
    with pytest.raises(ValueError, match="`condition_video` must have at least 4 frames, as the clip, got 3"):
        read_condition(tmp_path / "poses", 4)
    with pytest.raises(ValueError, match="`condition_video` must be a video or a folder"):
        read_condition(tmp_path / "none.mp4", 2)
