"""Optimizer, learning rate and moving average of a training run."""

import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn

from landscape_video.training.settings.run import OptimizationSettings


class MuonAdamW(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024: orthogonalized momentum) for matrices, AdamW for the other parameters.

    Combines torch's own optimizers into one with a single group and state. Muon's steps are scaled to the length of
    AdamW's, so one learning rate serves both. A matrix has one moment instead of two.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 1e-2,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "fused": True})  # fused: step counts are loaded onto the device
        matrices = [parameter for parameter in parameters if parameter.ndim == 2]
        others = [parameter for parameter in parameters if parameter.ndim != 2]
        self.parts = [torch.optim.Muon(matrices, lr, weight_decay, adjust_lr_fn="match_rms_adamw")] if matrices else []
        if others:
            self.parts.append(torch.optim.AdamW(others, lr, betas, eps, weight_decay, fused=True))
        self._share_state()

    def _share_state(self) -> None:
        for part in self.parts:
            part.state = self.state

    @torch.no_grad()
    def step(self, closure: Callable[[], torch.Tensor] | None = None) -> torch.Tensor | None:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = self.param_groups[0]["lr"]
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share_state()


def launched_precision(settings: OptimizationSettings) -> str | None:
    """Return the precision of the settings, else of the launcher; with DeepSpeed, accelerate loses the latter."""
    return settings.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION")


def make_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizationSettings) -> torch.optim.Optimizer:
    """Build the optimizer of the settings: AdamW, AdamW with 8-bit moments, or Muon.

    Raises:
        ValueError: bitsandbytes is not installed.
    """
    parameters = list(parameters)
    keywords = {
        "lr": settings.learning_rate,
        "betas": (settings.adam_beta1, settings.adam_beta2),
        "weight_decay": settings.adam_weight_decay,
        "eps": settings.adam_epsilon,
    }
    if settings.optimizer == "muon":
        return MuonAdamW(parameters, **keywords)
    if not settings.use_8bit_adam:
        # A fused step skips an overflow silently, but accelerate must know that the step was skipped.
        return torch.optim.AdamW(parameters, **keywords, fused=launched_precision(settings) != "fp16")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ValueError("`use_8bit_adam` needs bitsandbytes: pip install bitsandbytes.") from None
    return AdamW8bit(parameters, **keywords)


def moment_bytes(settings: OptimizationSettings) -> int:
    """Bytes that the optimizer keeps for each parameter; for Muon, those of a matrix."""
    return 2 if settings.use_8bit_adam else {"adamw": 8, "muon": 4}[settings.optimizer]


def learning_rate_at(step: int, settings: OptimizationSettings) -> float:
    """Learning rate of step number `step`, counted from 0."""
    peak, warmup = settings.learning_rate, settings.lr_warmup_steps
    if settings.lr_scheduler == "constant":
        return peak
    # 1) linear warm-up
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    if settings.lr_scheduler == "constant_with_warmup":
        return peak
    # 2) decay to zero at the end of training
    progress = (step - warmup) / max(1, settings.max_train_steps - warmup)
    if settings.lr_scheduler == "linear":
        return peak * (1 - progress)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))


class WeightAverage:
    """Exponential moving average of parameters, kept in float32 whatever their own precision.

    With a decay of 0.9999, a step changes an average by less than half precision can hold: there it would never move.

    Args:
        parameters: Parameters to average, by name.
        decay: Decay of diffusers' `EMAModel`, approached as (1 + n) / (10 + n).
        foreach: Use torch's fused kernels, which weights that FSDP has split lack.
    """

    def __init__(self, parameters: dict[str, nn.Parameter], decay: float = 0.9999, foreach: bool = True) -> None:
        self.parameters = parameters
        self.ema = EMAModel(parameters.values(), decay=decay, foreach=foreach)
        self.ema.to(dtype=torch.float32)

    def averages(self) -> dict[str, torch.Tensor]:
        """Return the averages by the names of their parameters."""
        return dict(zip(self.parameters, self.ema.shadow_params, strict=True))

    def step(self) -> None:
        """Update the averages after an optimizer step."""
        self.ema.step(self.parameters.values())


@contextmanager
def ema_weights(average: WeightAverage | None) -> Iterator[None]:
    """Within the block, the parameters hold their moving average, if there is one."""
    if average is None:
        yield
        return
    parameters = list(average.parameters.values())
    average.ema.store(parameters)
    average.ema.copy_to(parameters)
    try:
        yield
    finally:
        average.ema.restore(parameters)
