"""Checks of animated images, on clips with known answers."""

import numpy as np
import pytest
import torch

from shanshui.measuring.animation_checks import (
    AnimationPredictions,
    beginning_check,
    camera_check,
    color_drift,
    drift_checks,
    fidelity_checks,
    held_check,
    same_palette_scores,
    stage_jump,
    stages_check,
    text_check,
)


def gray_clip(*levels: int) -> np.ndarray:
    return np.repeat(np.array(levels, np.uint8), 8 * 8 * 3).reshape(len(levels), 8, 8, 3)


def seen_with(cameras: list[str], first: float = 0.9, drift: float = 0.0) -> AnimationPredictions:
    ones = np.ones(len(cameras))
    drifts = drift * np.ones((len(cameras), 3))
    motion = {"cameras": np.array(cameras), "pans": 0 * ones, "zooms": 0 * ones, "magnitudes": ones, "flickers": ones}
    return AnimationPredictions(**motion, first_ssim=first * ones, first_clip=first * ones, drifts=drifts)


def test_a_jump_between_stages_is_told_from_motion_within():
    assert stage_jump(gray_clip(0, 10, 20, 30, 40, 50), 3) == 1
    assert stage_jump(gray_clip(0, 10, 20, 60, 70, 80), 3) == 4
    assert stage_jump(gray_clip(0, 10, 20, 20, 30, 40), 3) == 0
    assert stage_jump(gray_clip(5, 5, 5, 5), 2) == 0 and stage_jump(gray_clip(5, 5, 9, 9), 2) == np.inf
    smooth, jumping = [gray_clip(0, 10, 20, 30)] * 4, [gray_clip(0, 10, 40, 50)]
    assert stages_check(smooth, 2)[0].passed
    share, median = stages_check(smooth + jumping, 2)
    assert share.passed is False and share.figure.value == 0.8 and median.figure.value == 1


def test_drift_is_the_change_of_each_channel():
    clip = gray_clip(100, 200, 110)
    clip[-1, ..., 2] = 49
    assert color_drift(clip) == pytest.approx([10 / 255, 10 / 255, 51 / 255])
    still, moving = seen_with(["left"] * 3), seen_with(["left"] * 3, drift=0.08)
    assert [check.passed for check in drift_checks(still, still)] == [True, True, True, None]
    assert [check.passed for check in drift_checks(moving, still)] == [False, False, False, None]
    assert all(check.passed for check in drift_checks(moving, moving)[:3])  # the rendered clips change as much


def test_fidelity_is_measured_against_the_autoencoder_and_against_chance():
    ssim, clip = fidelity_checks(seen_with(["left"] * 4, 0.9), np.full(4, 0.92), np.full(4, 0.8))
    assert ssim.passed and ssim.figure.value == pytest.approx(0.9 / 0.92) and clip.passed
    ssim, clip = fidelity_checks(seen_with(["left"] * 4, 0.8), np.full(4, 0.92), np.full(4, 0.8))
    assert not ssim.passed and not clip.passed


def test_a_held_first_frame_is_not_judged_but_how_the_clip_leaves_it_is():
    held = held_check(seen_with(["left"] * 4, 0.9), np.full(4, 0.9))
    assert held.figure.value == pytest.approx(1) and held.passed is None
    smooth, jumping = gray_clip(0, 10, 20, 30), gray_clip(0, 16, 26, 36)
    assert beginning_check([smooth] * 4).passed and not beginning_check([smooth] * 3 + [jumping]).passed


def test_chance_is_the_similarity_of_other_images_of_the_palette():
    embeddings = torch.tensor([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float64)
    scores = same_palette_scores(embeddings, ["ink", "ink", "snow", "ink"])
    assert scores == pytest.approx([(0.6 + 1) / 2, 0.6, (1 + 0.6) / 2])


def test_texts_steer():
    cameras = np.array(["left", "right", "closer", "away"] * 5)
    rendered = seen_with(list(cameras))
    assert camera_check(rendered, rendered, cameras).passed
    assert not camera_check(seen_with(["left"] * 20), rendered, cameras).passed
    opposite = np.array(["right", "left", "away", "closer"] * 5)
    assert text_check(cameras, opposite, cameras).passed
    assert not text_check(cameras, cameras, cameras).passed
    assert not text_check(cameras, opposite, opposite).passed  # noise alone changes as much
