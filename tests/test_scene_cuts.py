"""Scene cuts: found to the frame, and told apart from camera motion, fades and grain."""

import numpy as np
import pytest

from landscape_video.scene_cuts import SceneDetector
from video_files import moving_frames, painted_pan


def cuts_of(frames: list[np.ndarray] | np.ndarray, **settings: float) -> list[int]:
    detector = SceneDetector()
    for pixels in frames:
        detector.add(pixels)
    first, *cuts = detector.find_scenes(fps=10, **settings)
    assert first == 0
    return cuts


def night(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [(255 - frame) // 2 for frame in frames]


def test_cuts_are_told_from_motion():
    assert cuts_of(moving_frames(20, speed=6)) == []
    day = moving_frames(20, speed=2)
    assert cuts_of(day) == []
    assert cuts_of(day + night(day)) == [20]
    assert cuts_of(day[:6] + night(day)[:5] + day[:6]) == [6, 11]
    assert cuts_of(day[:1] + night(day)[:8] + day[:1]) == [1, 9]  # scenes of one frame, at both ends
    assert cuts_of(day[:1]) == []


def test_scenes_of_equal_brightness_are_told_apart_by_color():
    gray = [frame.mean(axis=-1, keepdims=True) / 2 for frame in moving_frames(6)]
    rust = [(frame + (100, 40, 10)).astype(np.uint8) for frame in gray]
    teal = [(frame + (0, 85, 50)).astype(np.uint8) for frame in gray]  # the same luma
    assert cuts_of(rust + teal) == [6]


def test_gray_images_with_grain_are_not_cut_to_pieces():
    # Ink on paper: the hue of a nearly gray pixel is noise.
    rng = np.random.default_rng(0)
    wash = [frame.mean(axis=-1, keepdims=True) / 2 + 100 for frame in moving_frames(20)]
    grainy = [(frame + rng.normal(0, 4, (48, 64, 3))).clip(0, 255).astype(np.uint8) for frame in wash]
    assert cuts_of(grainy) == []
    assert cuts_of(grainy[:10] + night(grainy)[:10]) == [10]


def test_short_scenes_count_and_a_fast_camera_does_not():
    scenes = np.concatenate([painted_pan(0, 20), painted_pan(1, 7), painted_pan(2, 20)])
    assert cuts_of(scenes) == [20, 27]
    assert cuts_of(scenes, threshold=200.0) == []
    assert cuts_of(painted_pan(0, 20, speed=16)) == []


@pytest.mark.parametrize("kind", ["fade", "dissolve"])
def test_gradual_changes_are_not_cuts(kind):
    first, second = painted_pan(0, 30).astype(float), painted_pan(1, 30).astype(float)
    share = np.clip((np.arange(30) - 10) / 10, 0, 1)[:, None, None, None]
    assert cuts_of((first * (1 - share) + second * share * (kind == "dissolve")).astype(np.uint8)) == []


@pytest.mark.parametrize("hold", [2, 3])
def test_movements_between_held_pictures_are_not_cuts(hold):
    scenes = [painted_pan(seed, 8, speed=2).repeat(hold, axis=0) for seed in (0, 1)]
    assert cuts_of(np.concatenate(scenes)) == [8 * hold]


def test_a_still_image_that_begins_to_move_is_not_cut():
    moving = painted_pan(0, 10, speed=9)
    assert cuts_of(np.concatenate([moving[:1].repeat(20, axis=0), moving])) == []
    slides = np.concatenate([painted_pan(seed, 1).repeat(20, axis=0) for seed in range(3)])
    assert cuts_of(slides) == [20, 40]


def test_a_shaking_camera_is_not_cut():
    image = painted_pan(0, 1, height=140, width=200)[0]
    rng = np.random.default_rng(0)
    places = np.where(rng.random((40, 2)) < 0.7, 20, rng.integers(0, 40, (40, 2)))  # rests, and jerks
    assert cuts_of([image[y : y + 96, x : x + 128] for y, x in places]) == []


@pytest.mark.parametrize("num_frames", [1, 3])
def test_a_flash_is_not_cut_and_another_scene_is(num_frames):
    scene, other = painted_pan(0, 20), painted_pan(1, 20)
    flash, insert = scene.copy(), scene.copy()
    flash[8 : 8 + num_frames] = (flash[8 : 8 + num_frames] * 0.6 + 120).clip(0, 255).astype(np.uint8)
    insert[8 : 8 + num_frames] = other[8 : 8 + num_frames]
    assert cuts_of(flash) == []
    assert cuts_of(insert) == [8, 8 + num_frames]


def test_short_scenes_with_slow_movement_are_not_held_pictures():
    lengths = (9, 4, 4, 4, 9)
    scenes = [painted_pan(seed, num_frames, speed=1, blot=8) for seed, num_frames in enumerate(lengths)]
    assert cuts_of(np.concatenate(scenes)) == np.cumsum(lengths[:-1]).tolist()
