"""How weights follow gradients: the optimizer, the learning rate of each step, and the average that is exported."""

import argparse
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.training_utils import EMAModel
from torch import nn


class MuonAdamW(torch.optim.Optimizer):
    """Muon for matrices (Jordan et al., 2024: momentum, orthogonalized), AdamW for the other parameters.

    Torch's own optimizers, as one with a single group and state. Muon's steps are scaled to the length of AdamW's, so
    one learning rate serves both; a matrix has one moment instead of two.
    """

    def __init__(
        self,
        parameters: list[nn.Parameter],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 1e-2,
        eps: float = 1e-8,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "fused": True})  # fused: counts of steps are loaded to the device
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


def launched_precision(args: argparse.Namespace) -> str | None:
    """Mixed precision of the flags, else of the launcher: DeepSpeed makes accelerate forget it."""
    return args.mixed_precision or os.environ.get("ACCELERATE_MIXED_PRECISION")


def make_optimizer(parameters: list[nn.Parameter], args: argparse.Namespace) -> torch.optim.Optimizer:
    """The optimizer that the flags say: AdamW, with --use_8bit_adam in a byte a moment, or Muon.

    Raises:
        ValueError: bitsandbytes is not installed.
    """
    settings = {
        "lr": args.learning_rate,
        "betas": (args.adam_beta1, args.adam_beta2),
        "weight_decay": args.adam_weight_decay,
        "eps": args.adam_epsilon,
    }
    if args.optimizer == "muon":
        return MuonAdamW(parameters, **settings)
    if not args.use_8bit_adam:
        # A fused step skips what has overflowed by itself, and accelerate, who has to know, does not hear of it.
        return torch.optim.AdamW(parameters, **settings, fused=launched_precision(args) != "fp16")
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise ValueError("--use_8bit_adam needs bitsandbytes: pip install bitsandbytes.") from None
    return AdamW8bit(parameters, **settings)


def moment_bytes(args: argparse.Namespace) -> int:
    """What the optimizer keeps for each parameter; of Muon, for a matrix."""
    return 2 if args.use_8bit_adam else {"adamw": 8, "muon": 4}[args.optimizer]


def learning_rate_at(step: int, args: argparse.Namespace) -> float:
    """The learning rate of step number `step`, counted from 0."""
    if args.lr_scheduler == "constant":
        return args.learning_rate
    # 1) a linear rise
    if step < args.lr_warmup_steps:
        return args.learning_rate * (step + 1) / (args.lr_warmup_steps + 1)
    if args.lr_scheduler == "constant_with_warmup":
        return args.learning_rate
    # 2) down to zero at the end of training
    progress = (step - args.lr_warmup_steps) / max(1, args.max_train_steps - args.lr_warmup_steps)
    if args.lr_scheduler == "linear":
        return args.learning_rate * (1 - progress)
    return args.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


@contextmanager
def averaged(ema: EMAModel | None, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Within the block, the parameters hold their moving average, if there is one."""
    if ema is None:
        yield
        return
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)
