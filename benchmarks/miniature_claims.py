"""List the rows of the miniature study, compare them with the full model, and say what follows by a stated rule.

A row differs from the full model only in its flags of `train_motion.py`; the NADM paper makes a claim about most. The
five rows of Table II and the norm of each frame, which is not in the paper, are trained from several seeds, to measure
the spread of training; those of Tables III and IV from one.

`RULE` says when a difference counts. Nothing else decides a sentence: no value is judged by hand.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np


FULL = "full"
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
_WORDS = {AGREES: "agrees", DISAGREES: "disagrees", OPEN: "cannot tell the two apart"}


@dataclass(frozen=True)
class Row:
    """A row of the tables.

    Args:
        key: Name on the command line.
        name: Name in tables.
        flags: Flags of `train_motion.py`.
        repeated: Whether it is trained from several seeds.
    """

    key: str
    name: str
    flags: tuple[str, ...] = ()
    repeated: bool = False


@dataclass(frozen=True)
class Run:
    """One training of a row."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f"{self.row.key}-seed{self.seed}"


@dataclass(frozen=True)
class Claim:
    """What the paper claims about a row.

    Args:
        row: Key of the row.
        table: Number of the table.
        text: The claim.
        paper: The paper's values of the full model and of the row, by metric. Values that the paper itself does not
            tell apart are left out.
    """

    row: str
    table: str
    text: str
    paper: Mapping[str, tuple[float, float]]


ROWS = (
    Row(FULL, "full model", (), repeated=True),
    Row("without_sparse_causal", "without Sparse-Causal", ("--no_sparse_causal",), repeated=True),
    Row("without_versatile", "without Versatile", ("--no_versatile",), repeated=True),
    Row("without_contrastive", "without contrastive loss", ("--contrastive_weight", "0"), repeated=True),
    Row("current_previous", "current and previous frame", ("--sparse_causal_mode", "current_previous"), repeated=True),
    Row("frame_norm", "norm of each frame", ("--motion_norm", "frame"), repeated=True),
    Row("threshold_2", "threshold 2", ("--negative_threshold", "2")),
    Row("threshold_3", "threshold 3", ("--negative_threshold", "3")),
    Row("threshold_5", "threshold 5", ("--negative_threshold", "5")),
    Row("threshold_6", "threshold 6", ("--negative_threshold", "6")),
    Row("positives_within", "positives within threshold", ("--positives", "within_threshold")),
)
KEYS = tuple(row.key for row in ROWS)


def _claim(row: str, table: str, text: str, *figures: tuple[float, float]) -> Claim:
    return Claim(row, table, text, dict(zip(("CLIP-text", "CLIP-temp", "FVD16", "KVD16"), figures, strict=True)))


# NADM Tables II to IV: (full model, row). The full model has threshold 4 and the next frame as the positive.
CLAIMS = (
    _claim(
        "without_sparse_causal", "II", "Sparse-Causal attention helps",
        (30.526, 28.862), (0.981, 0.973), (53.7, 92.8), (10.5, 28.6),
    ),
    _claim(
        "without_versatile", "II", "Versatile attention helps",
        (30.526, 28.028), (0.981, 0.953), (53.7, 97.1), (10.5, 17.1),
    ),
    _claim(
        "without_contrastive", "II", "the contrastive loss helps",
        (30.526, 29.864), (0.981, 0.964), (53.7, 103.9), (10.5, 16.9),
    ),
    _claim(
        "threshold_2", "III", "threshold 4 is better than 2",
        (30.526, 30.462), (0.981, 0.975), (53.7, 57.2), (10.5, 18.6),
    ),
    _claim(
        "threshold_3", "III", "threshold 4 is better than 3",
        (30.526, 30.028), (0.981, 0.980), (53.7, 55.3), (10.5, 15.3),
    ),
    _claim(
        "threshold_5", "III", "threshold 4 is better than 5 (but for CLIP-text)",
        (30.526, 30.575), (0.981, 0.974), (53.7, 58.4), (10.5, 13.3),
    ),
    _claim(
        "threshold_6", "III", "threshold 4 is better than 6",
        (30.526, 29.942), (0.981, 0.964), (53.7, 60.9), (10.5, 16.6),
    ),
    Claim(
        "positives_within", "IV", "the next frame is a better positive than all near ones (but for CLIP-temp)",
        {"CLIP-temp": (0.981, 0.985), "FVD16": (53.7, 56.2), "KVD16": (10.5, 16.3)},
    ),
)  # fmt: skip


def runs_of(keys: Sequence[str], seeds: int) -> list[Run]:
    """The trainings of some rows, first seeds first, so that a study that stops early has every row once."""
    rows = [row for row in ROWS if row.key in keys]
    return [Run(row, seed) for seed in range(seeds) for row in rows if row.repeated or seed == 0]


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
    return Comparison(
        float(found.mean()),
        _prompt_margin(lambda clips: differences(clips).mean(), len(full[seeds[0]]), seed),
        seed_margin(found, np.array([statistic(values) for values in full.values()])),
    )


def _prompt_margin(value: Callable[[np.ndarray], float], count: int, seed: int) -> float | None:
    """95 % margin of a value of `count` clips, by drawing clips anew; None for a single clip."""
    draws = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    return SPREAD * float(np.std([value(clips) for clips in draws], ddof=1)) if count > 1 else None


def seed_margin(differences: np.ndarray, full: Sequence[float] = ()) -> float | None:
    """95 % margin over training seeds, see `RULE`; None if one seed is all that either was trained with."""
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


def _listed(labels: list[str]) -> str:
    return labels[0] if len(labels) == 1 else f"{', '.join(labels[:-1])} and {labels[-1]}"


def own_spread(
    row: Mapping[int, np.ndarray], statistic: Callable[[np.ndarray], float], seed: int = 0
) -> tuple[float, float | None, float | None]:
    """Mean of a row over training seeds, its 95 % margin over prompts, and the standard deviation over seeds.

    None stands for what needs more clips or seeds. For the arguments, see `compare`.
    """

    def over_seeds(chosen: np.ndarray | slice) -> np.ndarray:
        return np.array([statistic(clips[chosen]) for clips in row.values()])

    values, count = over_seeds(slice(None)), len(next(iter(row.values())))
    margin = _prompt_margin(lambda chosen: over_seeds(chosen).mean(), count, seed)
    return float(values.mean()), margin, float(np.std(values, ddof=1)) if len(values) > 1 else None
