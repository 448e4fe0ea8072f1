"""Dynamic degree and flicker on clips whose motion is known."""

import numpy as np
import pytest
from skimage.registration import optical_flow_ilk

from known_motion import moving_noise
from landscape_video.evaluation.metrics.motion_metrics import dynamic_degree, measure_flow


@pytest.mark.parametrize("pixels", [0, 1, 3])
def test_a_shift_has_its_own_length(pixels):
    figures = measure_flow(moving_noise(pixels))
    assert figures.magnitude == pytest.approx(pixels, abs=0.1 + 0.1 * pixels)
    assert figures.dynamic_degree == pytest.approx(pixels, abs=0.15 + 0.1 * pixels)
    assert figures.dynamic_degree == dynamic_degree(moving_noise(pixels))
    assert figures.unexplained_flicker < 1.5


def test_the_magnitude_agrees_with_another_flow():
    clip = moving_noise(2)
    rows, columns = optical_flow_ilk(clip[0, ..., 0], clip[1, ..., 0], radius=10)
    theirs = np.hypot(rows, columns)[10:-10, 20:-20].mean()
    assert measure_flow(clip[:2]).magnitude == pytest.approx(theirs, rel=0.1)


def test_the_dynamic_degree_looks_at_the_fastest_twentieth():
    clip = np.repeat(moving_noise(0)[:1], 6, axis=0)
    clip[:, 30:60, 40:80] = moving_noise(3)[:, 30:60, 40:80]  # a tenth of the picture
    figures = measure_flow(clip)
    assert figures.dynamic_degree > 2 and figures.magnitude < 1


def test_flicker_is_the_mean_absolute_difference():
    clip = np.random.default_rng(0).integers(0, 256, (4, 32, 40, 3), dtype=np.uint8)
    assert measure_flow(clip).flicker == pytest.approx(np.abs(np.diff(clip.astype(float), axis=0)).mean())
    brighter = np.full((5, 32, 32, 3), 100, np.uint8)
    brighter[1::2] += 7
    assert measure_flow(brighter).flicker == 7 == pytest.approx(measure_flow(brighter).unexplained_flicker)


def test_motion_is_flicker_and_flow_explains_it():
    figures = measure_flow(moving_noise(3))
    assert figures.flicker > 5 * figures.unexplained_flicker > 0


def test_a_still_clip_neither_moves_nor_flickers():
    figures = measure_flow(np.repeat(moving_noise(0)[:1], 3, axis=0))
    assert figures.flicker == figures.unexplained_flicker == 0
    assert figures.dynamic_degree == pytest.approx(0, abs=1e-3)
