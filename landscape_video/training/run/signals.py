"""Ends of a training run: signals, exit codes, the status file, and errors explained in one line."""

import errno
import json
import logging
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from safetensors import SafetensorError

from landscape_video.files import write_json
from landscape_video.training.run.checkpoints import CheckpointError, OutputDirInUse


EXIT_FAILED = 1
EXIT_STOPPED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, start it again
STOP_SIGNALS = tuple(
    getattr(signal, name)
    for name in ("SIGTERM", "SIGUSR1", "SIGINT")
    if hasattr(signal, name)  # Windows has no USR1
)
STATUS = "status.json"

logger = logging.getLogger("training")


class TrainingFailed(RuntimeError):
    """The run cannot continue; the message says why and what to change."""


class StoppedAtStart(BaseException):
    """A signal came before the first step. Not an `Exception`, so that no error handler delays it."""


class StopSignals:
    """Records SIGTERM, SIGUSR1 (which SLURM sends before a job ends) and SIGINT, instead of ending the process.

    The first one raises `StoppedAtStart` while there is nothing to save, and is only noted once `training` is set.
    The second one acts as if there were no handler, for users who do not want to wait for the checkpoint.
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


def write_status(output_dir: Path, status: str, **values: Any) -> None:
    """Write `status.json`: "running", "finished", "time_over", "stopped" or "failed", and what belongs to it."""
    output_dir.mkdir(parents=True, exist_ok=True)
    write_json(output_dir / STATUS, {"status": status, **values})


def report_end(output_dir: Path, signals: StopSignals, error: BaseException) -> int | None:
    """Record in the log and in `status.json` why a run ended early, and return the exit code; None for a bug.

    Only the main process writes the file. The status of a finished run stays, unless training had begun again.
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
    """Explain an error that the user can fix in one line; return None for a bug."""
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
