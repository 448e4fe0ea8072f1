"""How a training run ends and what it leaves to read: signals, exit codes, the log and the status file."""

import errno
import json
import logging
import os
import signal
import time
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from safetensors import SafetensorError

from landscape_video.files import write_json, write_text
from landscape_video.training.objectives.motion_objective import MotionLosses
from landscape_video.training.run.checkpoints import CheckpointError, OutputDirInUse
from landscape_video.training.run.loss_watch import LossWatch


EXIT_FAILED = 1
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start it again
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGINT")
    if hasattr(signal, name)  # Windows has no USR1
)
STATUS = "status.json"
LOG = "log.jsonl"

logger = logging.getLogger("train_motion")


class TrainingFailed(RuntimeError):
    """The run cannot go on; the message says why and what to change."""


class StoppedAtStart(BaseException):
    """A signal came before the first step. No `Exception`: nothing that handles errors is to hold it up."""


class StopSignals:
    """Takes SIGTERM, SIGUSR1 (what SLURM sends before the end of a job) and SIGINT instead of dying of them.

    The first one raises `StoppedAtStart` while there is nothing to save, and is only noted once `training` is set.
    The second one acts as if there were no handler, for whoever will not wait for the checkpoint.
    """

    def __init__(self) -> None:
        self.training = False
        self.received: str | None = None  # the signal's name
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        self._handlers = {number: signal.signal(number, self._take) for number in STOP_SIGNALS}
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def _take(self, number: int, frame: FrameType | None) -> None:
        self.received = signal.Signals(number).name
        self.__exit__()
        if not self.training:
            raise StoppedAtStart(self.received)


class TrainLog:
    """Averages what the steps report and appends a line to `log.jsonl` when asked to.

    The sums stay tensors on their device, so that a step does not wait for the one before it.
    """

    def __init__(self, output_dir: Path, first_step: int, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.path = output_dir / LOG if accelerator.is_main_process else None
        if self.path is not None:
            output_dir.mkdir(parents=True, exist_ok=True)
            forget_after(self.path, first_step)
        self._watch = LossWatch(first_step)
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
        """Append one line for the batches since the last one, and return it. Raises as `means` does.

        What the numbers say of a run that goes wrong is put in words, see `LossWatch`.
        """
        now = time.monotonic()
        line = {
            "step": step,
            **self.means(),
            "learning_rate": learning_rate,
            "clips_per_second": self._clips / (now - self._window_start),
            "seconds": now - self._start,
        }
        self._window_start = now
        losses = torch.stack(self._losses)[:, 0].tolist()
        for warning in self._watch.look(step, losses, [norm.item() for norm in self._grad_norms]):
            logger.warning("Step %d: %s", step, warning)
        self._clear()
        self.accelerator.log({key: value for key, value in line.items() if key != "step"}, step=step)
        if self.path is not None:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({key: _rounded(value) for key, value in line.items()}) + "\n")
        return line


def check_trackers(names: list[str]) -> None:
    """Raise a ValueError for a tracker whose package is missing; accelerate would go on without it, silently."""
    present = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in present:
            raise ValueError(f"--report_to {name} needs a package that is not installed: pip install {name}.")


def write_status(output_dir: Path, status: str, **values: Any) -> None:
    """Write `status.json`: "running", "finished", "time_over", "stopped" or "failed", and what belongs to it."""
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / STATUS, {"status": status, **values})


def report_end(output_dir: Path, signals: StopSignals, error: BaseException) -> int | None:
    """Say why a run came to its end, in the log and in `status.json`, and give the exit code; None for a bug.

    Only the main process writes the file. What a finished run left there stays, unless training had begun again.
    """
    if isinstance(error, StoppedAtStart):
        status, exit_code, reason = "stopped", EXIT_STOPPED, f"{error} before the first step"
        logger.warning("Stopped by %s.", reason)
    else:
        status, exit_code, reason = "failed", EXIT_FAILED, explain(error)
        if reason is not None:
            logger.error("%s", reason)
    belongs_to_another = isinstance(error, OutputDirInUse) or _has_finished(output_dir)
    if int(os.environ.get("RANK", 0)) == 0 and (signals.training or not belongs_to_another):
        try:
            write_status(output_dir, status, exit_code=exit_code, reason=reason or repr(error))
        except OSError as full:
            logger.error("%s could not be written: %s", output_dir / STATUS, full)
    return exit_code if reason is not None else None


def _has_finished(output_dir: Path) -> bool:
    try:
        return json.loads((output_dir / STATUS).read_text(encoding="utf-8"))["status"] == "finished"
    except (OSError, ValueError, LookupError, TypeError):
        return False


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
    if isinstance(error, (TrainingFailed, CheckpointError, SafetensorError, ValueError, OSError)):
        return str(error)
    return None


def forget_after(path: Path, step: int) -> None:
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
    write_text(path, "".join(line + "\n" for line in kept))


def _rounded(value: float) -> float:
    return float(f"{value:.6g}") if isinstance(value, float) else value
