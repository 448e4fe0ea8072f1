"""Compare the training losses of a row of the miniature study with the full model's, seed by seed.

    python benchmarks/paired_losses.py runs/study frame_norm

Runs of one seed see the same clips, timesteps and noise in each step, so their difference varies less than the losses
themselves. The study writes the logs that are read here.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from landscape_video.files import read_json_lines
from miniature_claims import FULL, MOST_SEEDS, ROWS, Run, seed_margin
from miniature_training import trained_folder


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", help="output folder of miniature_study.py", type=Path)
    parser.add_argument("row", help="row to compare", choices=[row.key for row in ROWS if row.key != FULL])
    parser.add_argument("--intervals", help="parts of the training (default: %(default)s)", type=int, default=4)
    args = parser.parse_args(arguments)
    seeds = [seed for seed in range(MOST_SEEDS) if all(loss_file(args.study, key, seed) for key in (FULL, args.row))]
    if len(seeds) < 2:
        parser.error(f"{args.study} must have trained {args.row} and {FULL} from two seeds or more, got {len(seeds)}.")
    print("| steps | diffusion loss, full model | difference | margin over seeds |\n|---|---|---|---|")
    for first, last, full, difference in paired_losses(args.study, args.row, seeds, args.intervals):
        print(f"| {first} to {last} | {full.mean():.4f} | {difference.mean():+.5f} | ±{seed_margin(difference):.5f} |")
    print(f"\n{len(seeds)} seeds; 95 % margin of the paired differences (Student).")
    return 0


def loss_file(study: Path, key: str, seed: int) -> Path | None:
    """The log of a run, or None if it has not begun."""
    row = next(row for row in ROWS if row.key == key)
    log = trained_folder(study, Run(row, seed)) / "log.jsonl"
    return log if log.exists() else None


def paired_losses(
    study: Path, row: str, seeds: Sequence[int], intervals: int
) -> list[tuple[int, int, np.ndarray, np.ndarray]]:
    """Mean losses in parts of the training, over the steps that all runs have logged.

    Returns:
        First and last logged step of each part, the full model's loss of each seed, and the row's loss minus it.
    """
    losses = {
        (key, seed): {line["step"]: line["diffusion_loss"] for line in read_json_lines(loss_file(study, key, seed))}
        for key in (FULL, row)
        for seed in seeds
    }
    steps = sorted(set.intersection(*(set(run) for run in losses.values())))
    found = []
    for part in np.array_split(steps, intervals):
        full, other = (
            np.array([np.mean([losses[key, seed][step] for step in part]) for seed in seeds]) for key in (FULL, row)
        )
        found.append((int(part[0]), int(part[-1]), full, other - full))
    return found


if __name__ == "__main__":
    sys.exit(main())
