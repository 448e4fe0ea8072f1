"""List the rows of the miniature study: the adapters to train, and what the NADM paper claims about each.

A row differs from the full model only in its flags of `train_motion.py`. The five rows of Table II are trained from
several seeds, to measure the spread of training; those of Tables III and IV from one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


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


FULL = "full"
ROWS = (
    Row(FULL, "full model", (), repeated=True),
    Row("without_sparse_causal", "without Sparse-Causal", ("--no_sparse_causal",), repeated=True),
    Row("without_versatile", "without Versatile", ("--no_versatile",), repeated=True),
    Row("without_contrastive", "without contrastive loss", ("--contrastive_weight", "0"), repeated=True),
    Row("current_previous", "current and previous frame", ("--sparse_causal_mode", "current_previous"), repeated=True),
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
