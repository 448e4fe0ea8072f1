"""Compute intervals of preferences where every rater has answered several times."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import NormalDist


LEVEL = 0.95
METHOD = (
    "95 % intervals: Wilson's score interval for the number of independent answers that the answers are worth, which "
    "is their number divided by the design effect of raters (Korn and Graubard, 1998), at most the number of answers."
)


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] with its interval, the number of answers and the number of raters."""

    value: float
    low: float
    high: float
    answers: int
    raters: int


def preference(votes: Iterable[Sequence[int]]) -> Share:
    """Share of chosen among asked, from (chosen, asked) of every rater.

    The variance of the share is that of a ratio of sums over raters, R / (R - 1) sum (x_r - p n_r)^2 / n^2. Wilson's
    interval is taken for an effective number of answers, p (1 - p) / variance, reduced for few raters by the quantiles
    of Student's t with R - 1 degrees of freedom. Where the variance over raters is unknown (one rater, or all agree),
    each rater counts as one answer.

    Raises:
        ValueError: There are no answers.
    """
    votes = [(chosen, asked) for chosen, asked in votes if asked]
    if not votes:
        raise ValueError("there are no answers.")
    raters, answers = len(votes), sum(asked for _, asked in votes)
    share = sum(chosen for chosen, _ in votes) / answers
    effective = float(raters)
    if answers > raters > 1 and 0 < share < 1:
        squares = sum((chosen - share * asked) ** 2 for chosen, asked in votes)
        variance = raters / (raters - 1) * squares / answers**2
        effective = min(answers, share * (1 - share) / variance) if variance else answers
        z = NormalDist().inv_cdf((1 + LEVEL) / 2)
        effective *= (z / student_quantile((1 + LEVEL) / 2, raters - 1)) ** 2
    low, high = wilson(share, effective)
    return Share(share, low, high, answers, raters)


def wilson(share: float, answers: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of independent answers; their number need not be an integer."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    scale = 1 + z * z / answers
    center = (share + z * z / (2 * answers)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / answers + z * z / (4 * answers * answers))
    return max(0.0, center - half), min(1.0, center + half)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else by Abramowitz and Stegun 26.7.5.

    At the level used here, that expansion is within 0.2 % from 3 degrees of freedom on.
    """
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        a = 2 * probability - 1
        return a * math.sqrt(2 / (1 - a * a))
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4)
    )
