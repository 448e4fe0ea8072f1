"""Figures with 95 % bootstrap intervals."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


RESAMPLES = 1000


@dataclass(frozen=True)
class Interval:
    """A figure, the 2.5 % and 97.5 % points of its bootstrap distribution, and the number of clips behind it."""

    value: float
    low: float
    high: float
    count: int

    def text(self, digits: int = 2) -> str:
        """As in "0.93 [0.89, 0.96]"."""
        if math.isnan(self.value):
            return "-"
        return f"{self.value:.{digits}f} [{self.low:.{digits}f}, {self.high:.{digits}f}]"


def bootstrap(
    statistic: Callable[..., np.ndarray], *columns: np.ndarray, resamples: int = RESAMPLES, seed: int = 0
) -> Interval:
    """Percentile bootstrap (Efron, 1979) over clips.

    Args:
        statistic: from columns (draws, clips, ...) to one number a draw, (draws,); those below are such functions.
        columns: arrays (clips, ...) that belong together row by row: whole rows are drawn, with replacement.
        resamples: number of draws.
        seed: of the draws.

    Returns:
        The statistic of the columns as they are, with its interval. All is NaN without any clips; draws for which the
        statistic is NaN (a ratio to nothing) are left out.
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
    return values.mean(axis=1)


def median(values: np.ndarray) -> np.ndarray:
    return np.median(values, axis=1)


def ratio_of_means(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return _divide(mean(numerator), mean(denominator))


def ratio_of_medians(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return _divide(median(numerator), median(denominator))


def balanced_accuracy(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """The mean of "said where it is" and "not said where it is not", in [0, 1]; 0.5 is what guessing reaches.

    It does not depend on how common a motif is: never painting a rare one is not rewarded. Where there is nothing to
    say, or nothing else, the other half counts alone.

    Args:
        truth: bool (draws, clips), or (draws, clips, motifs) for the mean over motifs.
        said: of the same shape.
    """
    halves = np.stack(
        [
            _divide((truth & said).sum(axis=1), truth.sum(axis=1)),
            _divide((~truth & ~said).sum(axis=1), (~truth).sum(axis=1)),
        ]
    )
    return np.nanmean(halves, axis=0).reshape(len(truth), -1).mean(axis=1)


def _divide(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """NaN where there is nothing to divide by."""
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator != 0)
