"""Scenes of a video, and the stretches that are cut from them."""

from fractions import Fraction

import numpy as np
import pytest

from landscape_video.training.preparation.scenes import Stretch, find_scenes, stretches, without_repeats
from pipeline_landscape_video.video_io import VideoFrame
from video_files import painted_pan


def test_scenes_begin_at_cuts_and_times_end_with_the_video():
    pixels = np.concatenate([painted_pan(0, 20), painted_pan(1, 7), painted_pan(2, 20)])
    video = [VideoFrame(frame, Fraction(i, 10), Fraction(1, 10)) for i, frame in enumerate(pixels)]
    starts, times, repeats = find_scenes(video, threshold=3.0)
    assert starts == [0, 20, 27] and times == [Fraction(i, 10) for i in range(48)] and not any(repeats)
    assert find_scenes(video, threshold=200.0).starts == [0]


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


def test_repeated_frames_count_as_one_picture():
    pixels = np.concatenate([painted_pan(0, 8).repeat(3, axis=0), painted_pan(1, 8).repeat(3, axis=0)])
    video = [VideoFrame(frame, Fraction(i, 24), Fraction(1, 24)) for i, frame in enumerate(pixels)]
    starts, times, repeats = find_scenes(video, threshold=3.0)
    pictures = list(without_repeats(video, repeats))
    assert starts == [0, 8]
    assert times[:15] == [Fraction(i, 8) for i in range(15)]
    assert [frame.timestamp for frame in pictures] == times[:-1] and times[-1] == 2
    assert sum(frame.duration for frame in pictures) == 2
