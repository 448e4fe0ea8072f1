"""How a training run ends and what it leaves to read: signals, exit codes, the log and the status file."""

import errno
import json
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator

from checkpoints import CheckpointError, write_json_atomically
from motion_objective import MotionLosses


EXIT_FAILED = 1
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start it again
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
STATUS = "status.json"
LOG = "log.jsonl"


class TrainingFailed(RuntimeError):
    """The run cannot go on; the message says why and what to change."""


class StopSignals:
    """Notes SIGTERM, SIGUSR1 (what SLURM sends before the end of a job) and SIGINT instead of dying of them.

    The second signal acts as if there were no handler, for whoever will not wait for the checkpoint.
    """

    def __init__(self) -> None:
        self.received: str | None = None  # the signal's name
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._handlers = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self.__exit__()


class TrainLog:
    """Averages what the steps report and appends a line to `log.jsonl` when asked to.

    The sums stay tensors on their device, so that a step does not wait for the one before it.
    """

    def __init__(self, output_dir: Path, first_step: int, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.path = output_dir / LOG if accelerator.is_main_process else None
        if self.path is not None:
            output_dir.mkdir(parents=True, exist_ok=True)
            _forget_after(self.path, first_step)
        self._start = self._window_start = time.monotonic()
        self._clear()

    def _clear(self) -> None:
        self._clips = 0
        self._losses: list[torch.Tensor] = []
        self._grad_norms: list[torch.Tensor] = []

    def add(self, losses: MotionLosses, clips: int, grad_norm: torch.Tensor | None) -> None:
        """Take in one batch of `clips` clips; `grad_norm` where it ended a step whose gradient was applied."""
        contrastive = losses.contrastive if losses.contrastive is not None else torch.zeros_like(losses.diffusion)
        self._losses.append(torch.stack([losses.diffusion, contrastive]))
        self._clips += clips * self.accelerator.num_processes
        if grad_norm is not None:
            self._grad_norms.append(grad_norm.detach())

    def means(self) -> dict[str, float]:
        """Means over all processes since the last `write`.

        Raises:
            TrainingFailed: a loss or a gradient was not finite.
        """
        losses = self.accelerator.reduce(torch.stack(self._losses).mean(dim=0), "mean").tolist()
        grad_norm = torch.stack(self._grad_norms).mean().item() if self._grad_norms else 0.0
        means = {"diffusion_loss": losses[0], "contrastive_loss": losses[1], "grad_norm": grad_norm}
        for name, value in means.items():
            if not abs(value) < float("inf"):  # also false for NaN
                raise TrainingFailed(
                    f"The {name} became {value}: nothing of these steps was saved. Resume from the last checkpoint "
                    "with a lower --learning_rate or a longer --lr_warmup_steps, or with --mixed_precision bf16 or no."
                )
        return means

    def write(self, step: int, learning_rate: float) -> dict[str, float]:
        """Append one line for the batches since the last one, and return it. Raises as `means` does."""
        now = time.monotonic()
        line = {
            "step": step,
            **self.means(),
            "learning_rate": learning_rate,
            "clips_per_second": self._clips / (now - self._window_start),
            "seconds": now - self._start,
        }
        self._window_start = now
        self._clear()
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: _rounded(value) for key, value in line.items()}) + "\n")
        return line


def write_status(output_dir: Path, status: str, **values: Any) -> None:
    """Write `status.json`: "running", "finished", "time_over", "stopped" or "failed", and what belongs to it."""
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json_atomically(output_dir / STATUS, {"status": status, **values})


def explain(error: Exception) -> str | None:
    """One line on an error that the user can do something about; None for what should not have happened."""
    text = " ".join(str(error).split())
    if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in text:
        return (
            "Out of memory: use --gradient_checkpointing, --mixed_precision bf16, fewer frames "
            f"(--num_frames_range) or a smaller --train_batch_size. {text}"
        )
    if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in text:
        return (
            "The disk is full: the last checkpoint before this one is intact. Free space or set "
            f"--checkpoints_total_limit, then resume. {text}"
        )
    if isinstance(error, (TrainingFailed, CheckpointError, ValueError, OSError)):
        return str(error)
    return None


def _forget_after(path: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run does again, and a line that a crash cut short."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            if json.loads(line)["step"] <= step:
                kept.append(line)
        except (ValueError, KeyError):
            continue
    path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")


def _rounded(value: float) -> float:
    return float(f"{value:.6g}") if isinstance(value, float) else value
