"""Train a model for a number of minutes instead of steps. A run can be stopped and resumed at any time."""

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
from shanshui.stages.family_run import FamilyRun


logger = logging.getLogger(__name__)

WARMUP_STEPS = 100
DECAY_FROM = 0.6  # fraction of the training time from which the learning rate falls
LOG_STEPS = 20  # steps that a line of the log averages over
CHECKPOINT_SECONDS = 120.0  # training time between two checkpoints

# Receives a seeded generator and the fraction of the training time that has passed (0 to 1), and returns named losses;
# the one called "loss" is minimized.
ComputeLosses = Callable[[torch.Generator, float], dict[str, torch.Tensor]]


def learning_rate_factor(step: int, fraction: float) -> float:
    """Linear warm-up in steps, constant, then a cosine to zero over the last part of the training time."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    decay = max(0.0, (fraction - DECAY_FROM) / (1 - DECAY_FROM))
    return warmup * 0.5 * (1 + math.cos(math.pi * min(1.0, decay)))


def train_for(
    run: FamilyRun,
    stage: str,
    model: nn.Module,
    compute_losses: ComputeLosses,
    *,
    learning_rate: float,
    weight_decay: float,
    seed: int = 0,
) -> nn.Module:
    """Train `model` until the stage has had its minutes, counting the time before earlier stops.

    With `mixed_precision` "bf16" the losses are computed under autocast; weights, optimizer and EMA stay float32.
    Step k draws its random numbers from a generator seeded with (seed, k), so a resumed run continues as if it had
    never stopped; only the learning rate depends on wall-clock time. `checkpoint.pt` and `log.jsonl` are written to
    the folder of the stage.

    Returns:
        The model with its EMA weights, in evaluation mode, without gradients.

    Raises:
        RuntimeError: The gradient is not finite.
    """
    directory, total = run.run_dir / stage, 60 * run.minutes[stage]
    directory.mkdir(parents=True, exist_ok=True)
    device = next(model.parameters()).device
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=weight_decay, fused=True)
    ema = EMAModel(parameters, decay=0.999, use_ema_warmup=True, power=0.75)
    ema.to(device)
    checkpoint = directory / "checkpoint.pt"
    step, seconds = _load(checkpoint, model, optimizer, ema)
    model.train()
    bar = tqdm(total=round(total), initial=min(round(seconds), round(total)), unit="s", desc=stage)
    generator = torch.Generator(device)
    saved_at, pending = seconds, []
    while seconds < total:
        start = time.perf_counter()
        generator.manual_seed(seed * 1_000_003 + step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * learning_rate_factor(step, seconds / total)
        with run.autocast():
            losses = compute_losses(generator, seconds / total)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(parameters, 1.0)
        if not torch.isfinite(norm):
            raise RuntimeError(
                f"stage {stage}: the gradient is {norm.item()} at step {step}; lower its learning rate."
            )
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        ema.step(parameters)
        step += 1
        pending.append({name: value.detach().float() for name, value in {**losses, "gradient_norm": norm}.items()})
        seconds += time.perf_counter() - start
        bar.update(min(round(seconds), round(total)) - bar.n)
        if step % LOG_STEPS == 0 or seconds >= total:
            bar.set_postfix(step=step, loss=_log(directory / "log.jsonl", step, seconds, pending)["loss"])
            pending.clear()
        if seconds - saved_at > CHECKPOINT_SECONDS:
            _save(checkpoint, model, optimizer, ema, step, seconds)
            saved_at = seconds
    bar.close()
    if seconds != saved_at:
        _save(checkpoint, model, optimizer, ema, step, seconds)
    ema.copy_to(parameters)
    logger.info("%s: %d steps in %.1f minutes on %s", stage, step, seconds / 60, device)
    return model.eval().requires_grad_(False)


def _log(path: Path, step: int, seconds: float, pending: list[dict[str, torch.Tensor]]) -> dict[str, float]:
    """Append the means over the pending steps as a line of JSON."""
    means = {name: round(sum(values[name] for values in pending).item() / len(pending), 5) for name in pending[0]}
    line = {"step": step, "minutes": round(seconds / 60, 3)} | means
    with path.open("a") as log:
        log.write(json.dumps(line) + "\n")
    return line


def _save(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel, step: int, seconds: float):
    state = {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "ema": ema.shadow_params,
        "ema_step": ema.optimization_step,
        "step": step,
        "seconds": seconds,
    }
    with write_file(path) as unfinished:
        torch.save(state, unfinished)


def _load(path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ema: EMAModel) -> tuple[int, float]:
    """Restore a checkpoint, if there is one; returns the steps and seconds trained so far."""
    if not path.exists():
        return 0, 0.0
    state = torch.load(path, map_location=next(model.parameters()).device, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    ema.shadow_params, ema.optimization_step = state["ema"], state["ema_step"]
    return state["step"], state["seconds"]
