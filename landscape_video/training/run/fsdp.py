"""Weights that FSDP has split over the processes: what that asks of a run, and how they become whole again.

Checkpoints and exports hold whole weights whichever way a run is launched, so that each resumes the other's.
"""

import argparse
import os
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy
from torch.distributed.tensor import DTensor, distribute_tensor

from landscape_video.training.run.optimization import launched_precision


def fsdp_plugin(args: argparse.Namespace) -> FullyShardedDataParallelPlugin | None:
    """What accelerate is to know about FSDP, if the launch configuration asks for it.

    Raises:
        ValueError: a setting, there or among the flags, with which FSDP does not work here.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    if os.environ.get("FSDP_VERSION") != "2":
        raise ValueError("FSDP works here in its second version: set `fsdp_version: 2`, as examples/launch/fsdp.yaml.")
    plugin = FullyShardedDataParallelPlugin(
        auto_wrap_policy="transformer_based_wrap",  # the layers that `MotionObjective` names
        cpu_ram_efficient_loading=False,
    )
    for wrong, line in (
        (plugin.activation_checkpointing, "Instead of FSDP's activation checkpointing take --gradient_checkpointing."),
        # Left whole, the averaged weights of a validation would be those that the next step trains with.
        (not plugin.reshard_after_forward, "Weights have to be split again: set `fsdp_reshard_after_forward: true`."),
        (type(plugin.cpu_offload) is not OffloadPolicy, "FSDP's offloading is not supported here."),
        (args.use_8bit_adam, "--use_8bit_adam does not work with FSDP, which splits the moments of AdamW only."),
        (args.optimizer != "adamw", f"--optimizer {args.optimizer} does not work with FSDP: it takes whole matrices."),
        (args.torch_compile, "--torch_compile does not work with FSDP, which acts between the layers of the UNet."),
        (launched_precision(args) == "fp16", "Mixed precision fp16 does not work with FSDP: take bf16."),
    ):
        if wrong:
            raise ValueError(f"{line} examples/launch/fsdp.yaml works.")
    plugin.mixed_precision_policy = MixedPrecisionPolicy()  # `lower_precision` sees to it, layer by layer
    return plugin


def enable_fsdp_on_cpu(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin | None) -> None:
    """Torch splits weights over processes without a GPU as well, but accelerate would do without, silently."""
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Both: a new `AcceleratorState` takes over what `PartialState` says.
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds a part of the weights, so that all have to take part in what needs them whole."""
    return accelerator.distributed_type == DistributedType.FSDP


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all its parts, gathered where it was split; then every process has to call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_model(model: nn.Module) -> nn.Module:
    """A diffusers model with whole weights, itself if they are; every process has to call this."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    with torch.device("meta"):
        copy = type(model).from_config(model.config)
    copy.load_state_dict({name: whole(tensor) for name, tensor in model.state_dict().items()}, assign=True)
    return copy


def split_like(tensor: Any, parameter: nn.Parameter) -> Any:
    """Of a whole tensor, what this process holds of a parameter of its shape; anything else as it is."""
    if not isinstance(parameter, DTensor) or getattr(tensor, "shape", None) != parameter.shape:
        return tensor
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(tensor.to(parameter.device), mesh, placements, src_data_rank=None)  # all have read it


def own_numel(parameter: nn.Parameter) -> int:
    """How many numbers of a parameter this process holds."""
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()
