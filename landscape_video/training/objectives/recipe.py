"""Define `Recipe`, the interface between the training loop and what it trains.

Facts about the run are stored beside each model, for its card.
"""

import json
import platform
from abc import ABC, abstractmethod
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from torch import nn

from landscape_video.training.settings.training import TrainingSettings
from motion_adapter.model_card import RECORD


class Recipe(ABC):
    """Something trainable: its parameters, its losses and what it exports.

    `landscape_video.training.run.training_loop.train` trains any recipe. It replaces `model` by
    accelerate's wrapper, so `compute_losses` must call `model`, while `trainable` and `export` need the bare networks.

    Attributes:
        model: Module with all trainable parameters, whose forward pass computes the losses.
        frozen: Frozen models on the device, for the estimate of memory.
    """

    model: nn.Module
    frozen: list[nn.Module]

    @abstractmethod
    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by the names that checkpoints give them. FSDP replaces the parameters."""

    @abstractmethod
    def compute_losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Return the losses of a batch, float32 scalars. `total` is minimized; the log shows the others as NAME_loss.

        The first of the others is watched for divergence.
        """

    @abstractmethod
    def export(self, directory: Path | None, final: bool = False) -> None:
        """Write the models that users load into `directory`, each atomically into a folder of its own.

        Args:
            directory: None in processes that only help to gather weights which FSDP has split.
            final: Whether training has ended. Then models that only further training needs are written as well.
        """

    def averaged(self) -> dict[str, nn.Parameter]:
        """Return the exported parameters among `trainable`: with an EMA, their averages are exported. Default: all."""
        return self.trainable()


def log_terms(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the losses that the log shows: all but `total`, unless it is the only one."""
    return {name: loss.detach() for name, loss in losses.items() if name != "total" or len(losses) == 1}


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
