"""What a training step costs, counted without computing it: FLOP, and the memory that activations take.

The step runs on fake tensors, which have shapes and no data, so that Stable Diffusion's size fits anywhere.
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


class StepCost(NamedTuple):
    """`flop` counts a multiply-add as two; `kept_bytes` is alive between forward and backward, `peak_bytes` at most.

    Weights, gradients and the optimizer are in neither.
    """

    flop: int
    kept_bytes: int
    peak_bytes: int


class LiveBytes(TorchDispatchMode):
    """Follows how many bytes of tensors that were made within it are alive."""

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
                if id(storage) not in inputs and storage not in self._seen:  # a view of an input takes no memory
                    self._seen.add(storage)
                    self.current += storage.nbytes()
                    weakref.finalize(storage, self._free, storage.nbytes())
        self.peak = max(self.peak, self.current)
        return outputs

    def _free(self, size: int) -> None:
        self.current -= size


def make_fake(model: nn.Module, mode: FakeTensorMode) -> nn.Module:
    """Give a model on the meta device fake parameters on the CPU, in place: there, autocast and attention are real."""
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
    """The cost of the diffusion loss of one batch, forward and backward. (The noise adapter's is small beside it.)

    Args:
        unet: with real or fake parameters; it computes nothing, and its gradients stay as they were.
        latent_shape: (batch, channels, num_frames, height, width).
        text_shape: (batch, tokens, dim).
        dtype: of the text's states.
        before: what else belongs to the step, such as encoding the clip.
        forward_only: count only that: half the time, and all of `kept_bytes`.
        mode: in which the fake parameters of `unet` were made, if they are fake.
    """
    scheduler = deepcopy(scheduler)  # it moves its table to the device of what it is given, which is fake here
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
        total = motion_losses(unet, None, scheduler, latents, text, noise, timesteps).total
        kept_bytes = live.current
        if not forward_only:
            parameters = [parameter for parameter in unet.parameters() if parameter.requires_grad]
            torch.autograd.grad(total, parameters, allow_unused=True)
        return StepCost(flop.get_total_flops(), kept_bytes, live.peak)
