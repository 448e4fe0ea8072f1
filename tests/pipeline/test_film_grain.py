"""Film grain in interpolated frames: as much as in the originals, and none in clean clips."""

import cv2
import numpy as np
import pytest
import torch

from pipeline_landscape_video import interpolate_stream, load_flow_estimator


HEIGHT, WIDTH = 96, 128
DIS = load_flow_estimator("dis")


def moving_scene(num_frames: int, speed: float) -> np.ndarray:
    """Smooth blots that move to the right, (num_frames, height, width, 3), levels of 255."""
    noise = np.random.default_rng(1).normal(0, 1, (HEIGHT, WIDTH + 200, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 6)
    texture = 50 + 155 * (texture - texture.min()) / np.ptp(texture)
    shifts = [np.float32([[1, 0, -speed * number], [0, 1, 0]]) for number in range(num_frames)]
    return np.stack([cv2.warpAffine(texture, shift, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC) for shift in shifts])


def add_grain(frames: np.ndarray, strength: float, size: float, channels: int = 3) -> np.ndarray:
    """Add noise of `size` pixels, new in each frame, in one or three channels."""
    noise = np.random.default_rng(2).normal(0, 1, (*frames.shape[:3], channels)).astype(np.float32)
    if size:
        noise = np.stack([cv2.GaussianBlur(frame, (0, 0), size).reshape(frame.shape) for frame in noise])
    return np.rint((frames + strength * noise / noise.std()).clip(0, 255))


def interpolate(frames: np.ndarray, **options) -> np.ndarray:
    stream = zip(torch.from_numpy(frames).movedim(-1, 1).float() / 255, range(len(frames)), strict=True)
    return 255 * torch.stack([frame for frame, _ in interpolate_stream(stream, DIS, **options)]).movedim(1, -1).numpy()


def fine_detail(frame: np.ndarray, sigma: float = 1.0) -> float:
    gray = frame.astype(np.float32).mean(axis=-1)
    return float((gray - cv2.GaussianBlur(gray, (0, 0), sigma)).std())


@pytest.mark.parametrize(
    ("speed", "strength", "size", "channels"),
    [(0, 4, 0, 3), (1.7, 4, 0, 3), (1.7, 6, 0.8, 3), (3, 3, 0.6, 1), (6, 8, 1.2, 1)],
)
def test_new_frames_keep_the_grain(speed, strength, size, channels):
    frames = add_grain(moving_scene(5, speed), strength, size, channels)
    for times in (1, 2):
        made = interpolate(frames, keep_grain=True, times=times)
        for sigma in (0.7, 1.0, 2.0):
            detail = np.array([fine_detail(frame, sigma) for frame in made])
            share = np.delete(detail, np.s_[:: 2**times]) / detail[:: 2**times].mean()
            assert share.min() > 0.85 and share.max() < 1.15
        averaged = interpolate(frames, times=times)
        assert np.abs(made - averaged).mean() > 0.3 * strength * (1 - size / 2) / 2  # otherwise nothing was lost
        assert abs(made.mean() - averaged.mean()) < 0.05


def test_grain_is_not_added_where_frames_have_none():
    frames = np.rint(moving_scene(5, 1.7))
    np.testing.assert_array_equal(interpolate(frames, keep_grain=True), interpolate(frames))


def test_added_grain_repeats_neither_frame():
    frames = add_grain(np.full((5, HEIGHT, WIDTH, 3), 128.0), 4, 0.6)
    made = interpolate(frames, keep_grain=True)
    for first in range(0, 7, 2):
        around = [np.corrcoef(made[first].ravel(), made[first + k].ravel())[0, 1] for k in (1, 2)]
        assert around[0] < 0.6 and abs(around[1]) < 0.05
