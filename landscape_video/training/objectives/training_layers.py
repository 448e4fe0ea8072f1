"""Precision, activation checkpointing and compilation of a motion UNet while it trains.

All of this acts on the modules in place and leaves the names of parameters, so what is saved stays the same.
"""

from functools import partial

import torch
from diffusers import UNetMotionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch.utils.checkpoint import checkpoint


# Layers that are recomputed in the backward pass, by the choices of --gradient_checkpointing.
CHECKPOINTED = {
    "attention": (Transformer2DModel, AnimateDiffTransformer3D),
    "all": (ResnetBlock2D, Transformer2DModel, AnimateDiffTransformer3D),
}

MAX_LENGTHS = 64  # clip lengths that get a graph of their own; more of them run without compilation


def lower_precision(unet: UNetMotionModel, dtype: torch.dtype, device: torch.device) -> None:
    """Let the frozen image layers compute in `dtype`, as in sampling, and the motion modules under autocast.

    The motion modules' weights stay float32. Autocast around the whole UNet would convert every norm of the image
    layers to float32 and back and keep both copies. The UNet then takes `encoder_hidden_states` in `dtype`. For
    float32 nothing changes.
    """
    if dtype == torch.float32:
        return
    unet.conv_in.register_forward_pre_hook(lambda _, inputs: (inputs[0].to(dtype),))  # noise is added in float32
    for name, module in unet.named_modules():
        if ".motion_modules." not in f".{name}." and not any(module.children()):
            module.to(dtype)
    for module in unet.modules():
        if isinstance(module, AnimateDiffTransformer3D):
            module.forward = torch.autocast(device.type, dtype)(module.forward)


def checkpoint_layers(unet: UNetMotionModel, layers: str) -> None:
    """Keep only the inputs of layers for the backward pass, and recompute the rest there.

    diffusers' own `enable_gradient_checkpointing` leaves out the motion modules, the largest part.

    Args:
        layers: "attention" wraps spatial transformers and motion modules, "all" the residual blocks as well.
    """
    for module in unet.modules():
        if isinstance(module, CHECKPOINTED[layers]):
            module.forward = partial(checkpoint, module.forward, use_reentrant=False)


def compile_unet(unet: UNetMotionModel, backend: str = "inductor") -> None:
    """Compile the forward pass, and with it the backward pass, as one graph for each number of frames.

    Layers compiled for any number of frames are slower than uncompiled ones on a CPU, and there are more kinds of them
    than torch compiles before it gives up. Call this after `checkpoint_layers`.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, MAX_LENGTHS)
    unet.forward = torch.compile(unet.forward, dynamic=False, backend=backend)
