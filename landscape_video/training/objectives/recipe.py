"""Define `Recipe`, the interface between the training loop and what it trains."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import nn


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
