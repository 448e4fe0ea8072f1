"""Run the published training scripts as stages of `train_tiny.py`: each a process with its minutes and its device."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import torch

from landscape_video.training.run.signals import STATUS
from landscape_video.training.settings.run import LOG
from shanshui.stages.family_run import FamilyRun
from shanshui.stages.training_logs import read_log, resumed_seconds


SCRIPTS = Path(__file__).resolve().parents[2]
# Minutes that a script may take before its first step. They count as its own, but do not appear in its log.
SET_UP = 5.0

logger = logging.getLogger("train_tiny")


def train_with_script(run: FamilyRun, stage: str, script: str, *flags: str) -> None:
    """Train a stage with a script of the training folder, on the image model in `RUN_DIR/base`."""
    command = [
        sys.executable, str(SCRIPTS / script), "--pretrained_model_name_or_path", str(run.run_dir / "base"),
        "--output_dir", str(run.run_dir / stage), "--checkpointing_steps", "100", "--checkpoints_total_limit", "2",
        "--mixed_precision", run.mixed_precision, *flags, *(["--torch_compile"] if run.compile else []),
    ]  # fmt: skip
    run_script(command, run.run_dir / stage, run.minutes[stage], run.device)


def run_script(command: list[str], output: Path, minutes: float, device: torch.device) -> None:
    """Run a training script until it has had its minutes, resuming from its last checkpoint in `output`.

    If this process is stopped, the script receives one SIGTERM and saves a checkpoint. It has a session of its own:
    otherwise Ctrl-C would reach it too, and a second signal makes it stop without saving.

    Raises:
        SystemExit: The script failed, with its exit code, or was killed by a signal.
    """
    log, status = output / LOG, output / STATUS
    if log.exists():
        minutes -= resumed_seconds(read_log(log)) / 60
    if minutes <= SET_UP and status.exists() and json.loads(status.read_text())["status"] == "time_over":
        logger.info("%s has had its minutes", output)
        return
    command = [*command, "--max_train_minutes", str(max(minutes, 0.01))]
    if any(output.glob("checkpoint-*")):
        command += ["--resume_from_checkpoint", "latest"]
    process = subprocess.Popen(command, env=os.environ | environment_for(device), start_new_session=True)
    try:
        code = process.wait()
    finally:
        process.terminate()
        process.wait()
    if code < 0:
        raise SystemExit(
            f"train_tiny: {Path(command[1]).name} was killed by signal {-code}; it may have run out of memory."
        )
    if code != 0:
        raise SystemExit(code)  # the script has printed the reason


def environment_for(device: torch.device) -> dict[str, str]:
    """Return the environment variables that make accelerate use a device."""
    if device.type == "cpu":
        return {"ACCELERATE_USE_CPU": "true"}
    if device.index is None:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[device.index] if visible else str(device.index)}
