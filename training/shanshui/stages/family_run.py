"""Settings, folders and logs of one run of `train_tiny.py`, shared by all its stages."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch


def read_log(path: Path) -> list[dict]:
    """Return the complete lines of a log; an empty list if there is no log."""
    log = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            log.append(json.loads(line))
        except json.JSONDecodeError:  # a line that is still being written, or was cut off
            continue
    return log


def resumed_seconds(log: list[dict]) -> float:
    """Return the training time of a log whose "seconds" start from zero at each resumption."""
    seconds = [line["seconds"] for line in log] + [0.0]
    return sum(last for last, after in pairwise(seconds) if after < last)


@dataclass(frozen=True)
class FamilyRun:
    """Settings of a run.

    Attributes:
        run_dir: Folder of the rendered clips, logs, checkpoints and models.
        export_dir: Folder that the finished family is written to.
        clips: Number of clips rendered for training, and again as many for the image retention branch.
        workers: Rendering processes; None for one per core, 0 to render in this process.
        minutes: Training time of each stage that trains.
        motion_steps: Steps over which the learning rate of the motion adapter falls to zero.
        picture_steps: Steps of the image retention branch on single frames.
        retention_steps: Steps over which the learning rate of the branch falls to zero on whole clips.
        batch_scale: Factor on every batch size; 1 suits a CPU.
        mixed_precision: "no" or "bf16".
        compile: Whether to compile the UNets and the branch.
        device: Device that every stage computes on.
    """

    run_dir: Path
    export_dir: Path
    clips: int
    workers: int | None
    minutes: Mapping[str, float]
    motion_steps: int
    picture_steps: int
    retention_steps: int
    batch_scale: int
    mixed_precision: str
    compile: bool
    device: torch.device

    def model(self, stage: str) -> Path:
        """Folder that a stage saves its model to."""
        return self.run_dir / stage / "model"

    def autocast(self) -> torch.autocast:
        """Context that computes in bfloat16 where `mixed_precision` asks for it."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed_precision == "bf16")


def computes_bfloat16_fast(device: str) -> bool:
    """Whether bfloat16 is faster than float32: on GPUs, and on CPUs with AMX matrix units."""
    return device.startswith("cuda") or torch.cpu.get_capabilities().get("amx_bf16", False)
