"""Summarize a run before its first step: what trains, the memory it needs, and how long it will take.

A training step is counted without computing it (FLOP, memory of activations): on fake tensors, which have shapes and
no data, so that models of Stable Diffusion's size fit anywhere.
"""

import logging
import time
import weakref
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from copy import deepcopy
from typing import Any, NamedTuple

import torch
from diffusers import SchedulerMixin
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from landscape_video.training.objectives.motion_objective import motion_losses
from landscape_video.training.objectives.motion_recipe import MotionRecipe
from landscape_video.training.objectives.recipe import Recipe
from landscape_video.training.objectives.sharded_weights import local_numel
from landscape_video.training.run.optimization import moment_bytes
from landscape_video.training.settings.training import TrainingSettings


# Groups of trainable parameters, by substrings of their names.
GROUPS = {
    "image retention branch": ("image_retention.",),
    "image layers": (".attentions.", ".resnets.", ".downsamplers.", ".upsamplers."),
    "versatile attention": (".attn1.", ".norm1."),
    "sparse-causal attention": (".attn2.", ".norm2."),
    "feed-forward": (".ff.", ".norm3."),
    "projections": (".proj_in.", ".proj_out.", ".norm."),
    "noise adapter": ("noise_adapter.",),
    "other layers": ("",),
}
MEASURED_STEPS = 5

logger = logging.getLogger("training")


class StepCost(NamedTuple):
    """Cost of a training step.

    Attributes:
        flop: Floating-point operations; a multiply-add counts as two.
        kept_bytes: Memory that is alive between the forward and the backward pass, without weights and gradients.
        peak_bytes: Largest memory at any time, without weights, gradients and optimizer.
    """

    flop: int
    kept_bytes: int
    peak_bytes: int


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of live tensors that were created within it."""

    def __init__(self) -> None:
        super().__init__()
        self.current = self.peak = 0
        self._seen: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        inputs = {id(leaf.untyped_storage()) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
        for output in tree_leaves(outputs):
            if isinstance(output, torch.Tensor):
                storage = output.untyped_storage()
                if id(storage) not in inputs and storage not in self._seen:  # not a view of an input
                    self._seen.add(storage)
                    self.current += storage.nbytes()
                    weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.current)
        return outputs

    def _free(self, size: int) -> None:
        self.current -= size


def make_fake(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Give a model on the meta device fake parameters on the CPU, in place, where autocast and attention are real."""
    with mode:
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, tensor in tensors.items():
                    if tensor is not None:
                        fake = torch.empty(tensor.shape, dtype=tensor.dtype)
                        is_weight = isinstance(tensor, nn.Parameter)
                        tensors[name] = nn.Parameter(fake, tensor.requires_grad) if is_weight else fake
    return model


def count_step(
    unet: nn.Module,
    scheduler: SchedulerMixin,
    latent_shape: tuple[int, int, int, int, int],
    text_shape: tuple[int, int, int],
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    before: Callable[[], Any] = lambda: None,
    forward_only: bool = False,
    mode: FakeTensorMode | None = None,
    compute_losses: Callable[..., dict[str, torch.Tensor]] | None = None,
) -> StepCost:
    """Count the diffusion loss of one batch, forward and backward. The noise adapter's cost is small beside it.

    Args:
        unet: UNet with real or fake parameters; it computes nothing, and its gradients stay as they were.
        scheduler: Noise schedule.
        latent_shape: (batch, channels, num_frames, height, width).
        text_shape: (batch, tokens, dim).
        dtype: Type of the prompt embeddings.
        device: Device of the batch.
        before: What else belongs to the step, such as encoding the clip.
        forward_only: Count only the forward pass: half the time, and all of `kept_bytes`.
        mode: Mode in which the fake parameters of `unet` were created, if they are fake.
        compute_losses: Loss, called with `unet`, `scheduler`, latents, prompt embeddings, noise and timesteps;
            `motion_losses` without a noise adapter by default.
    """
    compute_losses = compute_losses or (lambda unet, *batch: motion_losses(unet, None, *batch))
    scheduler = deepcopy(scheduler)  # it moves its table to the batch's device, which is fake here
    with ExitStack() as stack:
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        stack.enter_context(mode or FakeTensorMode(allow_non_fake_inputs=True))
        latents = torch.empty(latent_shape, device=device)
        noise = torch.empty_like(latents)
        timesteps = torch.zeros(latent_shape[:1], dtype=torch.int64, device=device)
        text = torch.empty(text_shape, dtype=dtype, device=device)
        flop = stack.enter_context(FlopCounterMode(display=False))
        live = stack.enter_context(LiveBytes())
        before()
        total = compute_losses(unet, scheduler, latents, text, noise, timesteps)["total"]
        kept_bytes = live.current
        if not forward_only:
            parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
            torch.autograd.grad(total, parameters, allow_unused=True)
        return StepCost(flop.get_total_flops(), kept_bytes, live.peak)


def count_longest_step(settings: TrainingSettings, recipe: MotionRecipe) -> StepCost:
    """Count the forward pass of the longest batch, before the UNet is split over processes."""
    batch_size, num_frames = settings.optimization.train_batch_size, settings.data.num_frames_range[1]
    channels, height, width = recipe.inputs.latent_shape
    text_encoder = recipe.inputs.prompt_embeds.text_encoder
    return count_step(
        recipe.unet,
        recipe.inputs.noise_scheduler,
        (batch_size, channels, num_frames, height, width),
        (batch_size, text_encoder.config.max_position_embeddings, text_encoder.config.hidden_size),
        text_encoder.dtype,
        text_encoder.device,
        forward_only=True,
    )


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
    if settings.validation is not None and settings.validation.validation_steps is None:
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
