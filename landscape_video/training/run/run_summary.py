"""What a run is about to do, said before its first step: what trains, how much memory it takes, how long it lasts."""

import argparse
import logging
import time
from collections.abc import Iterable

import torch
from accelerate import PartialState
from diffusers import DDPMScheduler, UNetMotionModel
from torch import nn
from transformers import CLIPTextModel

from landscape_video.training.data.clip_sampling import ClipDataset
from landscape_video.training.run.fsdp import own_numel
from landscape_video.training.run.optimization import moment_bytes
from landscape_video.training.run.step_cost import StepCost, count_step


# Parts of a motion module, and what trains besides, by what the names of their parameters contain.
GROUPS = {
    "image retention branch": ("image_retention.",),
    "versatile attention": (".attn1.", ".norm1."),
    "sparse-causal attention": (".attn2.", ".norm2."),
    "feed-forward": (".ff.", ".norm3."),
    "projections": (".proj_in.", ".proj_out.", ".norm."),
    "noise adapter": ("noise_adapter.",),
}
MEASURED_STEPS = 5

logger = logging.getLogger("train_motion")


def count_longest_step(
    args: argparse.Namespace,
    unet: nn.Module,
    noise_scheduler: DDPMScheduler,
    text_encoder: CLIPTextModel,
    latent_shape: tuple[int, int, int],
) -> StepCost:
    """What the forward pass of the longest batch costs; of a UNet that is not split over processes yet."""
    channels, height, width = latent_shape
    longest = (args.train_batch_size, channels, args.num_frames_range[1], height, width)
    text_shape = (args.train_batch_size, text_encoder.config.max_position_embeddings, text_encoder.config.hidden_size)
    return count_step(
        unet, noise_scheduler, longest, text_shape, text_encoder.dtype, text_encoder.device, forward_only=True
    )


def describe(
    args: argparse.Namespace,
    unet: UNetMotionModel,
    models: list[nn.Module],
    trainable: list[tuple[str, nn.Parameter]],
    cost: StepCost,
    dataset: ClipDataset,
    step: int,
) -> None:
    """Log what will train, what it takes, and how long an epoch is; `models` are all that lie on the device."""
    clips_per_step = args.train_batch_size * args.gradient_accumulation_steps * PartialState().num_processes
    for line in (
        *describe_training(unet, trainable),
        describe_memory(models, trainable, cost, moment_bytes(args), args.use_ema),
        describe_epochs(len(dataset), clips_per_step, args.max_train_steps, step),
    ):
        logger.info("%s", line)
    if args.validation_steps is None:
        logger.info("Losses do not show whether clips move; --validation_steps paints some and measures it.")


def count_groups(trainable: Iterable[tuple[str, nn.Parameter]]) -> dict[str, int]:
    """Number of parameters by the part they belong to, parts without any left out."""
    sizes = dict.fromkeys(GROUPS, 0)
    for name, parameter in trainable:
        group = next(group for group, parts in GROUPS.items() if any(part in name for part in parts))
        sizes[group] += parameter.numel()
    return {group: size for group, size in sizes.items() if size}


def describe_training(unet: UNetMotionModel, trainable: list[tuple[str, nn.Parameter]]) -> list[str]:
    """Lines on what trains and what does not."""
    groups = count_groups(trainable)
    idle = sum(p.numel() for name, p in unet.named_parameters() if "motion_modules." in name and not p.requires_grad)
    image = sum(p.numel() for name, p in unet.named_parameters() if "motion_modules." not in name)
    return [
        f"Trains: {millions(sum(groups.values()))} parameters ("
        + ", ".join(f"{group} {millions(size)}" for group, size in groups.items())
        + ").",
        f"Frozen: {millions(image)} parameters of the image layers ({unet.dtype}), {millions(idle)} of motion modules "
        f"that are without effect. Attention is {unet.config.sparse_causal_mode}.",
    ]


def describe_memory(
    models: Iterable[nn.Module],
    trainable: list[tuple[str, nn.Parameter]],
    cost: StepCost,
    moment_bytes: int,
    ema: bool,
) -> str:
    """A line on the memory that a process will need.

    Args:
        models: all that lie on the device.
        cost: of the longest batch.
        moment_bytes: what the optimizer keeps for each parameter.
    """
    weights = sum(own_numel(p) * p.element_size() for model in models for p in (*model.parameters(), *model.buffers()))
    count = sum(own_numel(parameter) for _, parameter in trainable)
    parts = {
        "weights": weights,
        "gradients": 4 * count,
        "optimizer": moment_bytes * count,
        "average": 4 * count * ema,
        "activations": cost.peak_bytes,
    }
    listed = ", ".join(f"{part} {gibibytes(size)}" for part, size in parts.items() if size)
    return f"Memory of a process: about {gibibytes(sum(parts.values()))} GiB ({listed}), without torch itself."


def describe_epochs(num_clips: int, clips_per_step: int, steps: int, first_step: int) -> str:
    """A line on how often each clip will be seen."""
    return (
        f"{num_clips} clips, {clips_per_step} a step: an epoch is {num_clips / clips_per_step:.1f} steps, and the "
        f"{steps} steps{f', {first_step} of them done,' if first_step else ''} are "
        f"{steps * clips_per_step / num_clips:.1f} epochs."
    )


class StepTimer:
    """Logs, once, how long a step takes and how long the rest will."""

    def __init__(self, device: torch.device, first_step: int, max_train_steps: int) -> None:
        self.device = device
        self.first_step = first_step
        self.max_train_steps = max_train_steps
        self._start: float | None = None

    def after(self, step: int) -> None:
        """To be called after each step. The first one counts for nothing: it allocates and compiles."""
        done = step - self.first_step
        if done not in (1, MEASURED_STEPS):
            return
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        if done == 1:
            self._start = time.monotonic()
            return
        seconds = (time.monotonic() - self._start) / (MEASURED_STEPS - 1)
        left = (self.max_train_steps - step) * seconds
        logger.info(
            "A step takes %.2f seconds (mean of steps 2 to %d): %d more take about %s.",
            seconds, MEASURED_STEPS, self.max_train_steps - step, duration(left),
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
