"""Measures of a stretch of video, and the threshold at which each rejects it."""

import cv2
import numpy as np
import pytest

from landscape_video.training.preparation.clip_filters import (
    Bars,
    black_bars,
    find_faults,
    hash_distances,
    perceptual_hashes,
)
from landscape_video.training.settings.preparation import FilterSettings
from video_files import painted_pan, with_bars, with_text


def gray(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def why(samples: np.ndarray, seconds: float = 5.0, crop_bars: bool = False, **limits: float) -> list[str]:
    limits = FilterSettings(**{"min_size": 90, **limits})
    bars = Bars() if crop_bars else black_bars(samples)
    return find_faults(seconds, samples.shape[1:], samples, bars, limits)


PAN = gray(painted_pan(0, 8, speed=4, blot=3))


@pytest.mark.parametrize(
    ("samples", "arguments", "reason"),
    [
        (PAN, {"seconds": 1.9}, "too short: 1.90 s, less than 2 s"),
        (PAN, {"min_size": 97}, "too small: 128 x 96 pixels, less than 97 on the shorter side"),
        (PAN[:1].repeat(8, axis=0), {}, "still: motion 0.00, less than 0.8"),
        (PAN // 8, {}, "black: brightness "),
        (
            with_bars(painted_pan(0, 8, speed=4, blot=3), rows=8)[..., 0],
            {},
            "letterboxed: bars of 14.3%, more than 2.0%",
        ),
        (with_bars(painted_pan(0, 8, speed=4, blot=3), columns=8)[..., 0], {}, "letterboxed: bars of 11.1%"),
        (
            gray(with_text(painted_pan(0, 8, speed=4, blot=3), "INK TV", (70, 14))),
            {},
            "watermarked or subtitled: border text ",
        ),
        (
            gray(with_text(painted_pan(0, 8, speed=4, blot=3), "said he", (30, 90))),
            {},
            "watermarked or subtitled: border text ",
        ),
    ],
    ids=["short", "small", "still", "black", "letterbox", "pillarbox", "watermark", "subtitle"],
)
def test_each_fault_has_its_reason(samples, arguments, reason):
    (found,) = why(samples, **arguments)
    assert found.startswith(reason)


@pytest.mark.parametrize(
    ("samples", "arguments"),
    [
        (PAN, {}),
        (PAN, {"seconds": 1.9, "min_seconds": 1.5}),
        (PAN[:1].repeat(8, axis=0), {"min_motion": 0}),
        (PAN // 8, {"min_brightness": 10}),
        (with_bars(painted_pan(0, 8, speed=4, blot=3), rows=8)[..., 0], {"max_bars": 0.2}),
        (with_bars(painted_pan(0, 8, speed=4, blot=3), rows=8)[..., 0], {"crop_bars": True}),
        (gray(with_text(painted_pan(0, 8, speed=4, blot=3), "INK TV", (70, 14))), {"max_border_text": 1}),
    ],
    ids=["fit", "short", "still", "black", "letterbox", "cropped", "watermark"],
)
def test_each_threshold_can_let_it_pass(samples, arguments):
    assert why(samples, **arguments) == []


def test_a_seal_that_does_not_move_in_a_still_painting_passes():
    painting = painted_pan(0, 1).repeat(8, axis=0)
    painting[:, 40:50, 60:70] += (np.arange(8, dtype=np.uint8) * 5)[:, None, None, None]  # what moves in it
    assert why(gray(with_text(painting, "INK", (70, 90))), min_motion=0) == []


def test_subtitles_that_change_are_found():
    pan = painted_pan(0, 16, speed=4, blot=3)
    pan = np.concatenate([with_text(pan[:8], "the river said", (16, 90)), with_text(pan[8:], "nothing", (30, 90))])
    assert why(gray(pan))[0].startswith("watermarked or subtitled")


def test_bars_are_shares_and_come_in_pairs():
    assert black_bars(with_bars(PAN[..., None], rows=12)[..., 0]) == Bars(0.1, 0.1, 0.0, 0.0)
    night = PAN.copy()
    night[:, :12] = 0  # dark above only
    assert black_bars(night) == Bars() == black_bars(PAN * 0)


def test_hashes_recognize_an_image_in_another_size_and_coding():
    first, other = painted_pan(0, 8), painted_pan(1, 8)
    smaller = [cv2.resize(frame, (100, 75), interpolation=cv2.INTER_AREA) // 8 * 8 for frame in first]
    hashes = [
        np.array([int(text, 16) for text in perceptual_hashes(list(clip))], np.uint64)
        for clip in (first, smaller, other)
    ]
    near, far = hash_distances(np.stack(hashes[1:]), hashes[0])
    assert near <= 3 and far > 20
