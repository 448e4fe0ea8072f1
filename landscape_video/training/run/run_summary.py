"""Summary of a run before its first step: what trains, the memory it needs, and how long it will take."""

import logging
import time
from collections.abc import Iterable, Mapping

import torch
from torch import nn

from landscape_video.training.objectives.recipe import Recipe
from landscape_video.training.objectives.sharded_weights import local_numel
from landscape_video.training.run.optimization import moment_bytes
from landscape_video.training.run.step_cost import StepCost
from landscape_video.training.settings.training import TrainingSettings


# Groups of trainable parameters, by substrings of their names.
GROUPS = {
    "image retention branch": ("image_retention.",),
    "versatile attention": (".attn1.", ".norm1."),
    "sparse-causal attention": (".attn2.", ".norm2."),
    "feed-forward": (".ff.", ".norm3."),
    "projections": (".proj_in.", ".proj_out.", ".norm."),
    "noise adapter": ("noise_adapter.",),
    "other layers": ("",),
}
MEASURED_STEPS = 5

logger = logging.getLogger("training")


def describe_run(
    settings: TrainingSettings,
    recipe: Recipe,
    models: Iterable[nn.Module],
    cost: StepCost | None,
    num_clips: int,
    num_processes: int,
    first_step: int,
) -> None:
    """Log a line each for what trains, what does not, memory and epochs.

    Args:
        settings: Settings of the run.
        recipe: What trains, as the accelerator has prepared it.
        models: All models on the device.
        cost: Cost of the longest batch; None leaves activations out.
        num_clips: Number of training clips.
        num_processes: Number of training processes.
        first_step: Number of steps that an earlier run has finished.
    """
    optimization = settings.optimization
    clips_per_step = optimization.train_batch_size * optimization.gradient_accumulation_steps * num_processes
    for line in (
        *describe_trainable(recipe),
        describe_memory(models, recipe.trainable(), cost, moment_bytes(optimization), optimization.use_ema),
        describe_epochs(num_clips, clips_per_step, optimization.max_train_steps, first_step),
    ):
        logger.info("%s", line)
    if settings.validation.validation_steps is None:
        logger.info("Losses do not show whether clips move: set --validation_steps to generate and measure some.")


def count_groups(trainable: Mapping[str, nn.Parameter]) -> dict[str, int]:
    """Number of parameters by the part they belong to, without empty parts."""
    sizes = dict.fromkeys(GROUPS, 0)
    for name, parameter in trainable.items():
        group = next(group for group, parts in GROUPS.items() if any(part in name for part in parts))
        sizes[group] += parameter.numel()
    return {group: size for group, size in sizes.items() if size}


def describe_trainable(recipe: Recipe) -> tuple[str, str]:
    """What trains, part by part, and what does not."""
    groups = count_groups(recipe.trainable())
    parts = ", ".join(f"{group} {millions(size)}" for group, size in groups.items())
    frozen = {name: p for name, p in recipe.model.named_parameters() if not p.requires_grad}
    motion = sum(parameter.numel() for name, parameter in frozen.items() if "motion_modules." in name)
    image = sum(parameter.numel() for parameter in frozen.values()) - motion
    dtype = next((parameter.dtype for name, parameter in frozen.items() if "motion_modules." not in name), None)
    return (
        f"Trains: {millions(sum(groups.values()))} parameters ({parts}).",
        f"Frozen: {millions(image)} parameters of the image layers ({dtype}), {millions(motion)} of motion modules.",
    )


def describe_memory(
    models: Iterable[nn.Module],
    trainable: Mapping[str, nn.Parameter],
    cost: StepCost | None,
    moment_bytes: int,
    use_ema: bool,
) -> str:
    """The memory that a process will need.

    Args:
        models: All models on the device.
        trainable: Parameters that train.
        cost: Cost of the longest batch; None leaves activations out.
        moment_bytes: Bytes that the optimizer keeps for each parameter.
        use_ema: Whether there is a moving average.
    """
    tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    count = sum(local_numel(parameter) for parameter in trainable.values())
    parts = {
        "weights": sum(local_numel(tensor) * tensor.element_size() for tensor in tensors),
        "gradients": 4 * count,  # float32
        "optimizer": moment_bytes * count,
        "average": 4 * count * use_ema,
        "activations": 0 if cost is None else cost.peak_bytes,
    }
    listed = ", ".join(f"{part} {gibibytes(size)}" for part, size in parts.items() if size)
    return f"Memory of a process: about {gibibytes(sum(parts.values()))} GiB ({listed}), without torch itself."


def describe_epochs(num_clips: int, clips_per_step: int, steps: int, first_step: int) -> str:
    """How often each clip will be seen."""
    return (
        f"{num_clips} clips, {clips_per_step} a step: an epoch is {num_clips / clips_per_step:.1f} steps, and the "
        f"{steps} steps{f', {first_step} of them done,' if first_step else ''} are "
        f"{steps * clips_per_step / num_clips:.1f} epochs."
    )


class StepTimer:
    """Logs once how long a step takes and how long the remaining ones will."""

    def __init__(self, device: torch.device, first_step: int, max_train_steps: int) -> None:
        self.device = device
        self.first_step = first_step
        self.max_train_steps = max_train_steps
        self._start: float | None = None

    def after(self, step: int) -> None:
        """Take the time after a step. The first step is left out, because it allocates and compiles."""
        done = step - self.first_step
        if done not in (1, MEASURED_STEPS):
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if done == 1:
            self._start = time.monotonic()
            return
        seconds = (time.monotonic() - self._start) / (MEASURED_STEPS - 1)
        left = self.max_train_steps - step
        logger.info(
            "A step takes %.2f seconds (mean of steps 2 to %d): %d more take about %s.",
            seconds, MEASURED_STEPS, left, duration(left * seconds),
        )  # fmt: skip


def millions(count: int) -> str:
    return f"{count / 1e6:.2f} M"


def gibibytes(size: float) -> str:
    return f"{size / 2**30:.2f}"


def duration(seconds: float) -> str:
    """`4 minutes`, `3.5 hours`, `2.1 days`."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds"
