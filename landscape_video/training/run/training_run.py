"""Start a training run (processes, seed, checkpoint), and report its errors in one line."""

import logging
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs, InitProcessGroupKwargs, ProjectConfiguration, set_seed

from landscape_video.training.run.checkpoints import find_checkpoint
from landscape_video.training.run.command_line import parse_settings
from landscape_video.training.run.hub_publishing import check_hub_access
from landscape_video.training.run.optimization import launched_precision
from landscape_video.training.run.sharding import (
    deepspeed_plugin,
    enable_deepspeed_on_cpu,
    enable_fsdp_on_cpu,
    fsdp_plugin,
    is_sharded,
)
from landscape_video.training.run.signals import StoppedAtStart, StopSignals, report_end
from landscape_video.training.run.train_log import check_trackers
from landscape_video.training.settings.training import TrainingSettings


Settings = TypeVar("Settings", bound=TrainingSettings)

EXIT_CODES = """\
exit codes:
  0   finished, or the time of --max_train_minutes is over; a checkpoint is saved
  1   failed
  2   wrong flags
  75  stopped by SIGTERM, SIGUSR1 or SIGINT: at once before the first step, later after saving a checkpoint; resume
      with --resume_from_checkpoint latest
OUTPUT_DIR/status.json says the same, for launchers that hide the code."""


@dataclass
class TrainingRun:
    """State of a run besides its recipe.

    Attributes:
        settings: Settings of the run.
        accelerator: Accelerator with the processes of the run.
        signals: Signals that stop the run.
        deadline: Time of `time.monotonic` at which the run stops.
        checkpoint: Checkpoint to resume from, None for a new run.
    """

    settings: TrainingSettings
    accelerator: Accelerator
    signals: StopSignals
    deadline: float
    checkpoint: Path | None

    @classmethod
    def start(cls, settings: TrainingSettings, signals: StopSignals) -> "TrainingRun":
        """Start the processes, seed them, and find the checkpoint to resume from.

        Raises:
            ValueError, ConnectionError, CheckpointError: The run could not train, resume or publish.
        """
        check_trackers(settings.run.report_to)
        deadline = time.monotonic() + 60 * (settings.optimization.max_train_minutes or math.inf)
        accelerator = make_accelerator(settings)
        set_seed(settings.run.seed)  # for new weights; whatever a step draws comes from (seed, step)
        if accelerator.is_main_process:
            check_hub_access(settings.hub)
        checkpoint = find_checkpoint(settings.run.output_dir, settings.run.resume_from_checkpoint)
        return cls(settings, accelerator, signals, deadline, checkpoint)

    @property
    def frozen_dtype(self) -> torch.dtype:
        """Type of the frozen models."""
        precision = launched_precision(self.settings.optimization)
        return {"fp16": torch.float16, "bf16": torch.bfloat16}.get(precision, torch.float32)

    @property
    def validates(self) -> bool:
        """Whether this process takes part in validation: the main one, or all that share the weights."""
        takes_part = self.accelerator.is_main_process or is_sharded(self.accelerator)
        return takes_part and self.settings.validation.validation_steps is not None


def make_accelerator(settings: TrainingSettings) -> Accelerator:
    """Set up the processes of a run, as the launcher and the settings say."""
    optimization, output_dir = settings.optimization, settings.run.output_dir
    fsdp, deepspeed = fsdp_plugin(optimization), deepspeed_plugin(optimization)
    accelerator = Accelerator(
        gradient_accumulation_steps=optimization.gradient_accumulation_steps,
        mixed_precision=optimization.mixed_precision,
        kwargs_handlers=[
            AutocastKwargs(enabled=False),  # `lower_precision` sets the precision of each layer
            InitProcessGroupKwargs(timeout=timedelta(hours=6)),  # others wait while one encodes or exports
        ],
        log_with=list(settings.run.report_to) or None,
        project_config=ProjectConfiguration(str(output_dir), logging_dir=str(output_dir / "logs")),
        fsdp_plugin=fsdp,
        deepspeed_plugin=deepspeed,
    )
    enable_fsdp_on_cpu(accelerator, fsdp)
    enable_deepspeed_on_cpu(accelerator, deepspeed)
    logging.getLogger().setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
    return accelerator


def run_script(
    main: Callable[[Settings, StopSignals], int], settings: type[Settings], description: str, argv: list[str] | None
) -> int:
    """Parse the flags, train, and turn errors into one line, a status file and an exit code.

    Args:
        main: Trains, and returns the exit code.
        settings: Class of the settings that the flags set.
        description: What the script does, for its help.
        argv: Command line without the program's name; the process's own by default.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    parsed = parse_settings(settings, description, argv, EXIT_CODES)
    signals = StopSignals()
    try:
        with signals:
            return main(parsed, signals)
    except (Exception, StoppedAtStart) as error:
        exit_code = report_end(parsed.run.output_dir, signals, error)
        if exit_code is None:
            raise
        return exit_code
