"""Statistics with bootstrap intervals, on columns whose answer is known."""

import math

import numpy as np
import pytest

from landscape_video.evaluation.metrics.intervals import (
    balanced_accuracy,
    bootstrap,
    mean,
    median,
    ratio_of_means,
    ratio_of_medians,
)


def test_bootstrap_interval_of_a_share():
    values = np.arange(400) % 2
    interval = bootstrap(mean, values)
    assert interval.value == 0.5
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.5 / 20, rel=0.15)
    assert interval == bootstrap(mean, values)
    assert interval.text() == f"0.50 [{interval.low:.2f}, {interval.high:.2f}]"


def test_bootstrap_draws_rows_together_and_survives_nothing():
    column = np.random.default_rng(0).random(30) + 1
    together = bootstrap(ratio_of_means, 3 * column, column)
    assert (together.low, together.high) == pytest.approx((3, 3))
    empty = bootstrap(mean, np.array([]))
    assert math.isnan(empty.value) and empty.count == 0 and empty.text() == "-"
    assert math.isnan(bootstrap(ratio_of_means, column, 0 * column).low)


def test_medians_ignore_one_wild_clip():
    column, wild = np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 600.0])
    assert bootstrap(median, wild).value == 4 and bootstrap(ratio_of_medians, wild, column).value == 2


def test_balanced_accuracy_does_not_reward_saying_nothing():
    truth = np.array([True] + [False] * 9)

    def accuracy(truth: np.ndarray, predicted: np.ndarray) -> float:
        return bootstrap(balanced_accuracy, truth, predicted).value

    assert accuracy(truth, np.zeros(10, bool)) == 0.5
    assert accuracy(truth, truth) == 1.0
    assert accuracy(np.zeros(4, bool), np.array([True, False, False, False])) == 0.75
    assert accuracy(np.stack([truth, truth], axis=1), np.stack([truth, ~truth], axis=1)) == 0.5
    interval = bootstrap(balanced_accuracy, truth, truth)
    assert (interval.low, interval.high) == (1.0, 1.0)  # also in draws without the one clip that has it
