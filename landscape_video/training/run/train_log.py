"""Log of a training run: mean losses of the steps, and warnings about runs that go wrong."""

import json
import logging
import math
import statistics
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from landscape_video.files import read_json_lines, write_text
from landscape_video.training.objectives.recipe import log_terms
from landscape_video.training.objectives.sharded_weights import whole
from landscape_video.training.run.signals import TrainingFailed
from landscape_video.training.settings.run import RunSettings


# Thresholds for trouble that losses and gradients show. Still clips are not among it: their loss is as low, so
# `validation.py` measures clips.
WINDOW = 100  # batches whose mean loss is compared; the loss of one batch depends mostly on its timesteps
DIVERGED_ABOVE = 1.5  # times the lowest mean of an earlier window
DEVIATIONS = 5  # standard errors between the two means; of 400 windows, one is 3 apart by chance
IDLE_STEPS = 100  # steps without a gradient

logger = logging.getLogger("training")


class TrainLog:
    """Averages the losses of the steps and appends lines to `log.jsonl` and the trackers.

    The losses stay tensors on their device, so that a step does not wait for the previous one.

    Args:
        settings: Run settings, with the folder of the log.
        first_step: Number of finished steps, after which lines of an earlier run are dropped.
        accelerator: Processes to average over; the main one writes.
    """

    def __init__(self, settings: RunSettings, first_step: int, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.path = settings.log_file if accelerator.is_main_process else None
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            drop_lines_after(self.path, first_step)
        self._watch = LossWatch(first_step)
        self._start = self._window_start = time.monotonic()
        self._clear()

    def _clear(self) -> None:
        self._clips = 0
        self._losses: list[dict[str, torch.Tensor]] = []
        self._grad_norms: list[torch.Tensor] = []

    def add(self, losses: dict[str, torch.Tensor], clips: int, grad_norm: torch.Tensor | float | None) -> None:
        """Add a batch of `clips` clips; `grad_norm` where it ended a step whose gradient was applied."""
        self._losses.append(log_terms(losses))
        self._clips += clips * self.accelerator.num_processes
        if grad_norm is not None:
            self._grad_norms.append(whole(torch.as_tensor(grad_norm).detach()))

    def means(self) -> dict[str, float]:
        """Means over all processes since the last line.

        Raises:
            TrainingFailed: A loss or a gradient is not finite.
        """
        stacked = torch.stack([torch.stack([*losses.values()]) for losses in self._losses])  # (batches, losses)
        losses = self.accelerator.reduce(stacked.mean(dim=0), "mean").tolist()
        means = {f"{name}_loss": loss for name, loss in zip(self._losses[0], losses, strict=True)}
        means["grad_norm"] = torch.stack(self._grad_norms).mean().item() if self._grad_norms else 0.0
        for name, value in means.items():
            if not math.isfinite(value):
                raise TrainingFailed(
                    f"The {name} became {value}: nothing of these steps was saved. Resume from the last checkpoint "
                    "with a lower --learning_rate or a longer --lr_warmup_steps, or with --mixed_precision bf16 or no."
                )
        return means

    def write(self, step: int, learning_rate: float) -> dict[str, float]:
        """Append one line for the batches since the last one, and return their means. Raises as `means` does."""
        now = time.monotonic()
        means = self.means()
        line = {
            **means,
            "learning_rate": learning_rate,
            "clips_per_second": self._clips / (now - self._window_start),
            "seconds": now - self._start,
        }
        self._window_start = now
        watched = next(iter(self._losses[0]))
        losses = [terms[watched].item() for terms in self._losses]
        for warning in self._watch.look(step, watched, losses, [norm.item() for norm in self._grad_norms]):
            logger.warning("Step %d: %s", step, warning)
        self._clear()
        self.accelerator.log(line, step=step)
        if self.path is not None:
            rounded = {name: float(f"{value:.6g}") for name, value in line.items()}
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": step, **rounded}) + "\n")
        return means


class LossWatch:
    """Warns once of each kind of trouble that losses and gradients show."""

    def __init__(self, first_step: int) -> None:
        self._last_change = first_step
        self._losses: list[float] = []
        self._lowest: tuple[float, float] | None = None  # mean and standard error of the best window
        self._said: set[str] = set()

    def look(self, step: int, name: str, losses: list[float], grad_norms: list[float]) -> list[str]:
        """Warnings after `step` steps, none if all is well.

        Args:
            name: Name of the loss that is watched.
            losses: Loss of each batch since the last look.
            grad_norms: Norm of each gradient that was applied since then.
        """
        warnings = []
        self._losses += losses
        if len(self._losses) >= WINDOW:
            error = statistics.stdev(self._losses) / math.sqrt(len(self._losses))
            warnings += self._compare(name, (statistics.fmean(self._losses), error))
            self._losses = []
        if any(norm > 0 for norm in grad_norms):
            self._last_change = step
        elif step - self._last_change >= IDLE_STEPS and "idle" not in self._said:
            self._said.add("idle")
            warnings.append(
                f"no gradient has reached the weights in {step - self._last_change} steps: nothing is learned, and "
                "clips stay as they are. With --mixed_precision fp16, use bf16 or no instead."
            )
        return warnings

    def _compare(self, name: str, now: tuple[float, float]) -> list[str]:
        before, self._lowest = self._lowest, min(now, self._lowest or now)
        if before is None or "diverges" in self._said:
            return []
        apart = now[0] - before[0] > DEVIATIONS * math.hypot(now[1], before[1])
        if not (apart and now[0] > DIVERGED_ABOVE * before[0]):
            return []
        self._said.add("diverges")
        return [
            f"the {name} loss is {now[0]:.4f} on average, {now[0] / before[0]:.1f} times its lowest so far: it "
            "diverges. Resume from an earlier checkpoint with a lower --learning_rate or a longer --lr_warmup_steps."
        ]


def check_trackers(names: tuple[str, ...]) -> None:
    """Raise a `ValueError` for a tracker whose package is missing; accelerate would silently skip it."""
    available = {str(tracker) for tracker in get_available_trackers()}
    for name in names:
        if name not in available:
            raise ValueError(f"`report_to` {name} needs a package that is not installed: pip install {name}.")


def drop_lines_after(path: Path, step: int) -> None:
    """Drop the lines of steps that a resumed run repeats, and a line that a crash cut short."""
    if path.exists():
        kept = [row for row in read_json_lines(path) if row.get("step", math.inf) <= step]
        write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in kept))
