"""Compare the rows of the miniature study with the full model, and say what follows by a stated rule.

`RULE` says when a difference counts. Nothing else decides a sentence: no value is judged by hand.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from miniature_rows import Claim


RESAMPLES = 200
SPREAD = 1.96  # standard deviations that hold 95 % of a normal distribution
# The 97.5 % quantile of Student's t by degrees of freedom: the spread of a few seeds is itself uncertain.
STUDENT = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
MOST_SEEDS = 1 + max(STUDENT)

AGREES, DISAGREES, OPEN = "agrees", "disagrees", "cannot be told apart"
RULE = (
    "A difference is a row minus the full model, with the same training seeds, prompts and noise. It counts if it is "
    "larger than both of its margins. The margin over prompts is "
    f"{SPREAD} standard deviations of {RESAMPLES} paired bootstrap draws. The margin over training seeds is Student's "
    "95 % margin of the paired differences. For a row trained once, it is that of the difference of two trainings "
    "that differ as the full model's seeds do. A difference that counts agrees with the paper if it has the sign of "
    "the paper's, and disagrees if not. All others, and those without a known spread over seeds, cannot be told apart "
    "at this budget. The margins are for one value at a time: of twenty values without any effect, one may count."
)


@dataclass(frozen=True)
class Comparison:
    """A row minus the full model, with two margins (half widths of 95 %).

    Args:
        difference: Row minus full model.
        prompt_margin: Margin over prompts; None for a single clip.
        seed_margin: Margin over training seeds; None if it is not known.
    """

    difference: float
    prompt_margin: float | None
    seed_margin: float | None

    @property
    def counts(self) -> bool:
        """Whether it is larger than both margins."""
        margins = (self.prompt_margin, self.seed_margin)
        return None not in margins and abs(self.difference) > max(margins)

    def text(self) -> str:
        """Format as in "+0.031 (prompts ±0.012, seeds ±0.020)"."""
        prompts, seeds = (
            "unknown" if margin is None else f"±{margin:.2g}" for margin in (self.prompt_margin, self.seed_margin)
        )
        return f"{self.difference:+.3g} (prompts {prompts}, seeds {seeds})"


def compare(
    row: Mapping[int, np.ndarray],
    full: Mapping[int, np.ndarray],
    statistic: Callable[[np.ndarray], float],
    seed: int = 0,
) -> Comparison:
    """Compare a row of the study with the full model.

    Args:
        row: Measurements of the row (clips, ...) by training seed, with the same clips in the same order everywhere.
            Only seeds that the full model was trained with count.
        full: Measurements of the full model.
        statistic: Computes the value from an array (clips, ...).
        seed: Seed of the bootstrap draws.

    Raises:
        ValueError: The two have no training seed in common.
    """
    seeds = sorted(row.keys() & full.keys())
    if not seeds:
        raise ValueError(f"rows must share a training seed, got {sorted(row)} and {sorted(full)}.")

    def differences(clips: np.ndarray | slice) -> np.ndarray:
        return np.array([statistic(row[one][clips]) - statistic(full[one][clips]) for one in seeds])

    found = differences(slice(None))
    count = len(full[seeds[0]])
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    draws = [differences(clips).mean() for clips in drawn] if count > 1 else []
    return Comparison(
        float(found.mean()),
        SPREAD * float(np.std(draws, ddof=1)) if draws else None,
        _seed_margin(found, np.array([statistic(values) for values in full.values()])),
    )


def _seed_margin(differences: np.ndarray, full: np.ndarray) -> float | None:
    if len(differences) > 1:
        return STUDENT[len(differences) - 1] * float(np.std(differences, ddof=1)) / math.sqrt(len(differences))
    if len(full) > 1:
        return STUDENT[len(full) - 1] * float(np.std(full, ddof=1)) * math.sqrt(2)
    return None


def verdict(comparison: Comparison, paper_full: float, paper_row: float) -> str:
    """Judge by `RULE` whether a difference agrees with the paper's: AGREES, DISAGREES or OPEN."""
    if not comparison.counts:
        return OPEN
    return AGREES if (comparison.difference > 0) == (paper_row > paper_full) else DISAGREES


def sentence(claim: Claim, comparisons: Mapping[str, Comparison], steps: int) -> str:
    """Say whether the numbers agree with a claim, in the metrics that the paper reports."""
    verdicts = {}
    for label, comparison in comparisons.items():
        name = label.partition("[")[0]
        if name in claim.paper:
            verdicts.setdefault(verdict(comparison, *claim.paper[name]), []).append(label)
    parts = [f"{word} in {_listed(verdicts[result])}" for result, word in _WORDS.items() if result in verdicts]
    return f"The paper says that {claim.text} (Table {claim.table}). At {steps} steps this study " + (
        "; ".join(parts) + "." if parts else "measured none of the paper's metrics."
    )


def difference_sentence(name: str, label: str, comparison: Comparison, full: float, steps: int) -> str:
    """Compare one value of a row with the full model's, where the paper makes no claim."""
    if not comparison.counts:
        return f"{name}: its {label} cannot be told apart from the full model's at {steps} steps."
    word = "higher" if comparison.difference > 0 else "lower"
    share = f", {100 * abs(comparison.difference / full):.2g} %" if full else ""
    return f"{name}: its {label} is {word} than the full model's by {abs(comparison.difference):.3g}{share}."


_WORDS = {AGREES: "agrees", DISAGREES: "disagrees", OPEN: "cannot tell the two apart"}


def _listed(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def own_spread(
    row: Mapping[int, np.ndarray], statistic: Callable[[np.ndarray], float], seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Mean of a row over training seeds, its 95 % margin over prompts, and the standard deviation over seeds.

    None stands for what needs more clips or seeds. For the arguments, see `compare`.
    """
    values = np.array([statistic(clips) for clips in row.values()])
    count = len(next(iter(row.values())))
    drawn = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    draws = [np.mean([statistic(clips[rows]) for clips in row.values()]) for rows in drawn] if count > 1 else []
    return (
        float(values.mean()),
        SPREAD * float(np.std(draws, ddof=1)) if draws else None,
        float(np.std(values, ddof=1)) if len(values) > 1 else None,
    )
