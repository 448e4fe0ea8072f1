"""A training loop that is given minutes instead of steps, and that can be stopped and taken up again at any time."""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers.training_utils import EMAModel
from torch import nn
from tqdm.auto import tqdm

from landscape_video.files import write_file


logger = logging.getLogger(__name__)

# A step gets its own seeded generator and the fraction of the training that is done, and returns named losses; the
# one called "loss" is minimised.
Step = Callable[[torch.Generator, float], dict[str, torch.Tensor]]


def learning_rate_factor(step: int, fraction: float, warmup_steps: int = 100, decay_from: float = 0.6) -> float:
    """Linear warm-up in steps, constant, then a cosine to zero over the last part of the time."""
    warmup = min(1.0, (step + 1) / warmup_steps)
    if fraction <= decay_from:
        return warmup
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, (fraction - decay_from) / (1 - decay_from))))


def train_for(
    minutes: float,
    model: nn.Module,
    step_function: Step,
    directory: Path,
    learning_rate: float,
    *,
    mixed_precision: str = "no",
    ema_decay: float = 0.999,
    weight_decay: float = 1e-2,
    seed: int = 0,
    checkpoint_every_minutes: float = 2.0,
) -> nn.Module:
    """Train `model` until it has seen `minutes` of training in all, earlier calls with the same directory counted in.

    `mixed_precision` "bf16" computes each step under bfloat16 autocast; weights, optimizer and average stay float32.
    Writes `checkpoint.pt` (atomically) and one JSON line for every 20 steps, and for the last, to `log.jsonl` into
    `directory`.
    Step k draws its randomness from a generator seeded with (seed, k), so that a resumed run goes on as if it had
    never stopped, up to the wall-clock schedule of the learning rate.

    Returns:
        The model with its averaged (EMA) weights, in evaluation mode, without gradients.
    """
    directory.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    ema = EMAModel(parameters, decay=ema_decay, use_ema_warmup=True, power=0.75)
    ema.to(device)
    step, seconds = _load(directory / "checkpoint.pt", model, optimizer, ema)
    model.train()
    total = round(60 * minutes)
    bar = tqdm(total=total, initial=min(round(seconds), total), unit="s", desc=directory.name)
    generator = torch.Generator(device)
    saved_at, sums, summed = seconds, {}, 0
    while seconds < 60 * minutes:
        start = time.perf_counter()
        fraction = seconds / (60 * minutes)
        generator.manual_seed(seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * learning_rate_factor(step, fraction)
        with torch.autocast(device.type, torch.bfloat16, enabled=mixed_precision == "bf16"):
            losses = step_function(generator, fraction)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise RuntimeError(f"{directory.name}: gradient {norm.item()} at step {step}; lower the learning rate.")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.step(parameters)
        step += 1
        for name, value in {**losses, "gradient_norm": norm}.items():
            sums[name] = sums.get(name, 0.0) + value.detach().float()
        summed += 1
        seconds += time.perf_counter() - start
        bar.update(min(round(seconds), total) - bar.n)
        if step % 20 == 0 or seconds >= 60 * minutes:
            figures = {name: round(value.item() / summed, 5) for name, value in sums.items()}
            line = {"step": step, "minutes": round(seconds / 60, 3)} | figures
            with open(directory / "log.jsonl", "a") as log:
                log.write(json.dumps(line) + "\n")
            bar.set_postfix(step=step, loss=line["loss"])
            sums, summed = {}, 0
        if seconds - saved_at > 60 * checkpoint_every_minutes:
            _save(directory / "checkpoint.pt", model, optimizer, ema, step, seconds)
            saved_at = seconds
    bar.close()
    if seconds != saved_at:
        _save(directory / "checkpoint.pt", model, optimizer, ema, step, seconds)
    ema.copy_to(parameters)
    logger.info("%s: %d steps in %.1f minutes on %s", directory.name, step, seconds / 60, device)
    return model.eval().requires_grad_(False)


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel, step: int, seconds: float):
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": [parameter.clone() for parameter in ema.shadow_params],
        "ema_step": ema.optimization_step,
        "step": step,
        "seconds": seconds,
    }
    with write_file(path) as unfinished:
        torch.save(state, unfinished)


def _load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel) -> tuple[int, float]:
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    ema.shadow_params = state["ema"]
    ema.optimization_step = state["ema_step"]
    return state["step"], state["seconds"]
