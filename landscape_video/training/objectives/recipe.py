"""Interface between the training loop and what it trains."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import nn


class Recipe(ABC):
    """Something trainable: its parameters, its losses and what it exports.

    `landscape_video.training.run.training_loop.train` trains any recipe. It replaces `model` by what accelerate makes
    of it, so `compute_losses` must call `model`, while `trainable` and `export` need the bare networks.

    Attributes:
        model: Module with all trainable parameters, whose forward pass computes the losses.
        frozen: Other models on the device, for the estimate of memory.
    """

    model: nn.Module
    frozen: list[nn.Module]

    @abstractmethod
    def trainable(self) -> dict[str, nn.Parameter]:
        """Trainable parameters by the names that checkpoints give them. FSDP replaces the parameters."""

    @abstractmethod
    def compute_losses(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Losses of a batch, float32 scalars. `total` is minimized; the log shows the others as NAME_loss.

        The first of the others is the one that is watched for divergence.
        """

    @abstractmethod
    def export(self, directory: Path | None, final: bool = False) -> None:
        """Write what users load into `directory`, each model in a folder of its own, whole or not at all.

        Args:
            directory: None in processes that only help to gather weights which FSDP has split.
            final: Whether training has ended; then what only further training needs is written as well.
        """

    def averaged(self) -> dict[str, nn.Parameter]:
        """Those of `trainable` that are exported, which a moving average can replace; all of them by default."""
        return self.trainable()


def log_terms(losses: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Losses that the log shows: all but their weighted sum, unless that is the only one."""
    return {name: loss.detach() for name, loss in losses.items() if name != "total" or len(losses) == 1}
