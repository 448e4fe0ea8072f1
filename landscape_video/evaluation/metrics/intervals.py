"""Compute statistics with 95 % bootstrap intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A value, the 2.5 % and 97.5 % points of its bootstrap distribution, and the number of clips behind it."""

    value: float
    low: float
    high: float
    count: int

    def text(self, digits: int = 2) -> str:
        """Format as in "0.93 [0.89, 0.96]"; "-" where there is no value."""
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def bootstrap(
    statistic: Callable[..., np.ndarray], *columns: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap (Efron, 1979) over clips.

    Args:
        statistic: Computes one number for each draw, (draws,), from columns (draws, clips, ...); see the functions
            below.
        columns: Arrays (clips, ...) that belong together row by row. Whole rows are drawn, with replacement.
        resamples: Number of draws.
        seed: Seed of the draws.

    Returns:
        The statistic of all clips with its interval. It is NaN without clips. Draws whose statistic is NaN (a ratio
        to nothing) are left out.
    """
    count = len(columns[0])
    if count == 0:
        return Interval(math.nan, math.nan, math.nan, 0)
    rows = np.random.default_rng(seed).integers(count, size=(resamples, count))
    value = float(statistic(*(column[None] for column in columns))[0])
    draws = statistic(*(column[rows] for column in columns))
    if np.isnan(draws).all():
        return Interval(value, math.nan, math.nan, count)
    low, high = np.nanpercentile(draws, (2.5, 97.5))
    return Interval(value, float(low), float(high), count)


def mean(values: np.ndarray) -> np.ndarray:
    """Mean over clips, (draws,) from (draws, clips)."""
    return values.mean(axis=1)


def median(values: np.ndarray) -> np.ndarray:
    """Median over clips, (draws,) from (draws, clips)."""
    return np.median(values, axis=1)


def ratio_of_means(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Ratio of two means over clips; NaN where the denominator is 0."""
    return _divide(mean(numerator), mean(denominator))


def ratio_of_medians(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Ratio of two medians over clips; NaN where the denominator is 0."""
    return _divide(median(numerator), median(denominator))


def balanced_accuracy(truth: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Mean of the true positive and the true negative rate, in [0, 1]; guessing reaches 0.5.

    Unlike accuracy, it does not depend on how common a motif is, so never showing a rare one is not rewarded. Where
    all clips are positive, or none is, the rate that is defined counts alone.

    Args:
        truth: bool (draws, clips), or (draws, clips, motifs) for the mean over motifs.
        predicted: bool, of the same shape.
    """
    positive = _divide((truth & predicted).sum(axis=1), truth.sum(axis=1))
    negative = _divide((~truth & ~predicted).sum(axis=1), (~truth).sum(axis=1))
    return np.nanmean([positive, negative], axis=0).reshape(len(truth), -1).mean(axis=1)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """Divide; NaN where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)
