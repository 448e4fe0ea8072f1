"""Repeated frames: found in every rhythm, also after lossy encoding; what moves, stands or fades is left alone."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from known_motion import KnownFlow, pan
from pipeline_landscape_video import interpolate_frames
from pipeline_landscape_video.repeated_frames import find_repeats, measure_changes, place_pictures
from pipeline_landscape_video.video_io import read_video
from pipeline_landscape_video.video_writing import open_mp4
from video_files import painted_pan


RHYTHMS = {
    "twos": [i // 2 for i in range(24)],
    "threes": [i // 3 for i in range(36)],
    "8 in 30": [i * 4 // 15 for i in range(45)],
    "15 in 24": [i * 5 // 8 for i in range(40)],
    "pulldown to 60": [picture for picture in range(12) for _ in range(2 + picture % 2)],
    "pulldown to 30": [picture for picture in range(20) for _ in range(1 + (picture % 4 == 3))],
}


def encoded(tmp_path: Path, frames: np.ndarray | list[np.ndarray], crf: int | None) -> np.ndarray | list[np.ndarray]:
    if crf is None:
        return frames
    height, width, _ = frames[0].shape
    with open_mp4(tmp_path / "clip.mp4", width, height, fps=24, crf=crf) as writer:
        for frame in frames:
            writer.write(frame)
    return read_video(tmp_path / "clip.mp4").frames


def repeats_of(frames: np.ndarray) -> np.ndarray:
    return find_repeats(measure_changes(frames), fps=24)


@pytest.mark.parametrize("crf", [None, 30])
@pytest.mark.parametrize("rhythm", RHYTHMS)
def test_repeats_are_found_in_every_rhythm(tmp_path, rhythm, crf):
    shown = RHYTHMS[rhythm]
    frames = encoded(tmp_path, painted_pan(0, max(shown) + 1, 192, 256, speed=4)[shown], crf)
    expected = np.diff(shown, prepend=-1) == 0
    last = shown.index(shown[-1])  # the last picture moves on to nothing
    np.testing.assert_array_equal(repeats_of(frames)[: last + 1], expected[: last + 1])
    assert not repeats_of(frames)[last:].any()


def test_a_small_thing_that_moves_on_threes_is_enough(tmp_path):
    frames = np.repeat(painted_pan(0, 1, height=192, width=256), 24, axis=0)
    for number, frame in enumerate(frames):
        cv2.circle(frame, (40 + 6 * (number // 3), 60), 4, (10, 10, 10), -1)
    assert repeats_of(encoded(tmp_path, frames, 23))[:22].sum() == 14


def slow_pan(num_frames: int, speed: float) -> list[np.ndarray]:
    image = painted_pan(0, 1, height=192, width=300)[0]
    shifts = [np.float32([[1, 0, -speed * i], [0, 1, 0]]) for i in range(num_frames)]
    return [cv2.warpAffine(image, shift, (256, 192), flags=cv2.INTER_CUBIC) for shift in shifts]


@pytest.mark.parametrize("crf", [None, 30])
@pytest.mark.parametrize("kind", ["still", "fade", "slow pan", "pan", "title"])
def test_what_stands_fades_or_moves_has_no_repeats(tmp_path, kind, crf):
    still = np.repeat(painted_pan(1, 1), 48, axis=0)
    frames = {
        "still": still,
        "fade": (still * np.linspace(1, 0.2, 48)[:, None, None, None]).astype(np.uint8),
        "slow pan": slow_pan(48, 0.2),
        "pan": painted_pan(0, 24),
        "title": np.concatenate([still, painted_pan(0, 24)]),
    }[kind]
    frames = encoded(tmp_path, frames, crf)
    changes = measure_changes(frames)
    pictures = place_pictures(range(len(frames)), changes, find_repeats(changes, 24))
    assert pictures.numbers == list(range(len(frames))) == pictures.times


def placed(shown: list[int], scene_starts: tuple[int, ...] = (0,)) -> dict[int, float]:
    """Frame numbers and times of the pictures in a row of frames that show them."""
    changes = 20.0 * (np.diff(shown, prepend=shown[0]) != 0)
    pictures = place_pictures(range(len(shown)), changes, find_repeats(changes, 24), scene_starts)
    return dict(zip(*pictures, strict=True))


def test_pictures_of_an_even_rhythm_stay_at_their_times():
    assert placed(RHYTHMS["threes"]) == {number: float(number) for number in [*range(0, 34, 3), 34, 35]}


def test_a_long_hold_stands_and_moves_on_as_late_as_the_others():
    shown = [0] * 3 + [1] * 3 + [2] * 24 + [3] * 3 + [4] * 3 + [5]
    assert list(placed(shown)) == [0, 3, *range(6, 28), 30, 33, 36]


def test_a_pause_between_movements_on_ones_is_kept():
    shown = [*range(10), *[10] * 5, *range(11, 20)]
    assert list(placed(shown)) == list(range(24))


def test_the_last_picture_of_a_scene_stands_until_the_cut():
    shown = [i // 3 for i in range(24)]
    assert list(placed(shown, (0, 12))) == [0, 3, 6, 9, 10, 11, 12, 15, 18, 21, 22, 23]


@pytest.mark.parametrize(("rhythm", "step"), [("pulldown to 60", 2.5), ("pulldown to 30", 1.25), ("8 in 30", 3.75)])
def test_pulldown_is_evened_out(rhythm, step):
    times = [time for number, time in placed(RHYTHMS[rhythm]).items()]
    moves = np.diff(times)[1 : len(set(RHYTHMS[rhythm])) - 3]
    np.testing.assert_allclose(moves, step, atol=0.1)


def test_a_hand_drawn_rhythm_is_not_evened_out():
    holds = [2, 2, 3, 1, 2, 4, 3, 2, 1, 1, 3, 2, 2]
    shown = np.repeat(np.arange(len(holds)), holds).tolist()
    pictures = placed(shown)
    assert all(number == time for number, time in pictures.items()) and len(pictures) < len(shown)


def test_a_clip_on_threes_moves_evenly():
    positions = [6 * (i // 3) for i in range(16)]
    frames = pan(positions)
    done = []
    even = interpolate_frames(
        frames,
        KnownFlow(frames, positions),
        keep_duplicates=False,
        progress=lambda *counts: done.append(counts),
    )
    assert len(even) == 31 and done[-1] == (15, 15)
    for index in range(25):
        torch.testing.assert_close(even[index][..., 16:-16], pan([index])[0][..., 16:-16], rtol=0, atol=2e-3)
    assert torch.equal(interpolate_frames(frames, KnownFlow(frames, positions))[::2], frames)
