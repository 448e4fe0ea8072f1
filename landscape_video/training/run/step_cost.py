"""Count the cost of a training step without computing it: FLOP, and the memory of activations.

The step runs on fake tensors, which have shapes and no data, so models of Stable Diffusion's size fit anywhere.
"""

import weakref
from collections.abc import Callable
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
from landscape_video.training.settings.training import TrainingSettings


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
    """
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
        total = motion_losses(unet, None, scheduler, latents, text, noise, timesteps)["total"]
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
