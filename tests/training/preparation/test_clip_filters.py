"""What is measured of a stretch of video, and where each threshold refuses it."""

from fractions import Fraction

import cv2
import numpy as np
import pytest

from landscape_video.training.preparation.clip_filters import (
    Bars,
    Thresholds,
    black_bars,
    hash_distances,
    perceptual_hashes,
    reasons,
)
from landscape_video.training.preparation.scene_cuts import Stretch, find_scenes, stretches
from pipeline_landscape_video.video_io import VideoFrame
from video_files import painted_pan, with_bars, with_text


def grey(frames: np.ndarray) -> np.ndarray:
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames])


def why(samples: np.ndarray, seconds: float = 5.0, crop_bars: bool = False, **limits: float) -> list[str]:
    height, width = samples.shape[1:]
    limits = Thresholds(**{"min_size": 90, **limits})
    return reasons(seconds, height, width, samples, black_bars(samples), crop_bars, limits)


PAN = grey(painted_pan(0, 8, speed=4, blot=3))


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
            grey(with_text(painted_pan(0, 8, speed=4, blot=3), "INK TV", (70, 14))),
            {},
            "watermarked or subtitled: border text ",
        ),
        (
            grey(with_text(painted_pan(0, 8, speed=4, blot=3), "said he", (30, 90))),
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
        (grey(with_text(painted_pan(0, 8, speed=4, blot=3), "INK TV", (70, 14))), {"max_border_text": 1}),
    ],
    ids=["fit", "short", "still", "black", "letterbox", "cropped", "watermark"],
)
def test_each_threshold_can_let_it_pass(samples, arguments):
    assert why(samples, **arguments) == []


def test_a_seal_that_does_not_move_in_a_still_painting_passes():
    painting = painted_pan(0, 1).repeat(8, axis=0)
    painting[:, 40:50, 60:70] += (np.arange(8, dtype=np.uint8) * 5)[:, None, None, None]  # what moves in it
    assert why(grey(with_text(painting, "INK", (70, 90))), min_motion=0) == []


def test_subtitles_that_change_are_found():
    pan = painted_pan(0, 16, speed=4, blot=3)
    pan = np.concatenate([with_text(pan[:8], "the river said", (16, 90)), with_text(pan[8:], "nothing", (30, 90))])
    assert why(grey(pan))[0].startswith("watermarked or subtitled")


def test_bars_are_shares_and_come_in_pairs():
    assert black_bars(with_bars(PAN[..., None], rows=12)[..., 0]) == Bars(0.1, 0.1, 0.0, 0.0)
    night = PAN.copy()
    night[:, :12] = 0  # dark above only
    assert black_bars(night) == Bars(0.0, 0.0, 0.0, 0.0) == black_bars(PAN * 0)


def test_hashes_know_a_picture_again_in_another_size_and_coding():
    first, other = painted_pan(0, 8), painted_pan(1, 8)
    smaller = [cv2.resize(frame, (100, 75), interpolation=cv2.INTER_AREA) // 8 * 8 for frame in first]
    hashes = [
        np.array([int(text, 16) for text in perceptual_hashes(list(clip))], np.uint64)
        for clip in (first, smaller, other)
    ]
    near, far = hash_distances(np.stack(hashes[1:]), hashes[0])
    assert near <= 3 and far > 20


# Scenes


def frames_of(clips: list[np.ndarray], rate: int = 10) -> list[VideoFrame]:
    pictures = np.concatenate(clips)
    return [VideoFrame(picture, Fraction(i, rate), Fraction(1, rate)) for i, picture in enumerate(pictures)]


def test_cuts_are_found_to_the_frame_and_a_fast_camera_is_none():
    clips = [painted_pan(0, 20), painted_pan(1, 7), painted_pan(2, 20)]
    starts, times = find_scenes(frames_of(clips))
    assert starts == [0, 20, 27] and times == [Fraction(i, 10) for i in range(48)]
    assert find_scenes(frames_of(clips), threshold=200.0)[0] == [0]
    assert find_scenes(frames_of([painted_pan(0, 20, speed=16)]))[0] == [0]


@pytest.mark.parametrize(
    ("trim_frames", "max_seconds", "expected"),
    [
        (0, 9.0, [(0, 0, 20), (1, 20, 23)]),
        (2, 9.0, [(0, 2, 18), (1, 20, 23)]),  # three frames are too few for trimming
        (1, 0.8, [(0, 1, 9), (0, 9, 17), (0, 17, 19), (1, 21, 22)]),
        (0, 0.05, [(0, i, i + 1) for i in range(20)] + [(1, i, i + 1) for i in range(20, 23)]),
    ],
)
def test_scenes_are_trimmed_and_cut_into_pieces(trim_frames, max_seconds, expected):
    times = [Fraction(i, 10) for i in range(24)]
    assert stretches([0, 20], times, trim_frames, max_seconds) == [Stretch(*numbers) for numbers in expected]
