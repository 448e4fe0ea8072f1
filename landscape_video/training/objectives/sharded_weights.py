"""Weights that FSDP has split over the processes, gathered and split again.

Checkpoints and exports hold whole weights however a run is launched, so one kind of run can resume another's.
"""

from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """A tensor with all its parts; if it is split, every process must call this."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def whole_model(model: nn.Module) -> nn.Module:
    """A diffusers model with whole weights, itself if they are; if not, every process must call this."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    with torch.device("meta"):
        copy = type(model).from_config(model.config)
    copy.load_state_dict({name: whole(tensor) for name, tensor in model.state_dict().items()}, assign=True)
    return copy


def split_like(tensor: Any, parameter: nn.Parameter) -> Any:
    """This process's part of a whole tensor, split as a parameter of its shape is; anything else as it is."""
    if not isinstance(parameter, DTensor) or getattr(tensor, "shape", None) != parameter.shape:
        return tensor
    mesh, placements = parameter.device_mesh, parameter.placements
    return distribute_tensor(tensor.to(parameter.device), mesh, placements, src_data_rank=None)  # all have read it


def local_numel(parameter: nn.Parameter) -> int:
    """Number of a parameter's elements that this process holds."""
    return (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()
