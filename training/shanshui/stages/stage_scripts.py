"""The published training scripts as stages of `train_tiny.py`: each a process that gets its minutes and its device."""

import json
import logging
import os
import subprocess
from pathlib import Path

import torch

from landscape_video.training.run.run_control import LOG, STATUS
from shanshui.stages.model_card import read_log, resumed_seconds


SET_UP = 5.0  # minutes that a script may take before its first step: they are its own, but not in its log

logger = logging.getLogger("train_tiny")


def run_script(command: list[str], output: Path, minutes: float, device: torch.device) -> None:
    """Run a training script until it has had its minutes, from its last checkpoint in `output` if there is one.

    When this process is to stop, the script is told so once, and saves a checkpoint. It is in a session of its own,
    because a Ctrl-C that reaches it as well would be the second signal, which does not wait.
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
        raise SystemExit(f"train_tiny: {Path(command[1]).name} was killed by signal {-code}, perhaps for its memory.")
    if code != 0:
        raise SystemExit(code)  # it has said why


def environment_for(device: torch.device) -> dict[str, str]:
    """What makes accelerate take that device."""
    if device.type == "cpu":
        return {"ACCELERATE_USE_CPU": "true"}
    if device.index is None:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[device.index] if visible else str(device.index)}
