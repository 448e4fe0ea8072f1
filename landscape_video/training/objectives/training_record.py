"""Facts about a training run that are stored beside each model, for its card."""

import json
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState

from landscape_video.training.settings.training import TrainingSettings
from motion_adapter.model_card import RECORD


@dataclass
class TrainingRecord:
    """Facts about a run: its settings, and what the log says when a model is written.

    Args:
        settings: Settings of the run.
        num_clips: Number of training clips.
        num_processes: Number of training processes.
    """

    settings: TrainingSettings
    num_clips: int
    num_processes: int

    def write(self, directory: Path) -> None:
        """Write `training.json` beside a model: settings, figures of the last log line, machine."""
        on_gpu = PartialState().device.type == "cuda"
        cpu = f"{platform.machine()} CPU, {torch.get_num_threads()} threads"
        log = self.settings.run.log_file
        lines = log.read_text(encoding="utf-8").splitlines() if log.is_file() else []
        record: dict[str, Any] = {
            "base_model": self.settings.base_model,
            "settings": self.settings.published(),
            "figures": {"clips": self.num_clips, **(json.loads(lines[-1]) if lines else {})},
            "machine": {
                "processes": self.num_processes,
                "device": torch.cuda.get_device_name() if on_gpu else cpu,
                "trained_with_torch": version("torch"),
            },
        }
        (directory / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
