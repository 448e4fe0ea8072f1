"""Train with weights that FSDP splits over the processes, or with moments that DeepSpeed (ZeRO) splits.

Checkpoints hold whole moments however a run is launched, so one kind of run can resume another's.
"""

import os
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin, is_deepspeed_available
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy

from landscape_video.training.run.optimization import launched_precision
from landscape_video.training.settings.run import OptimizationSettings


STAGES = (1, 2)  # of ZeRO: moments, and gradients as well


def fsdp_plugin(settings: OptimizationSettings) -> FullyShardedDataParallelPlugin | None:
    """What accelerate must know about FSDP, if the launch configuration asks for it.

    Raises:
        ValueError: FSDP does not work here with a setting of the launch configuration or of the run.
    """
    if os.environ.get("ACCELERATE_USE_FSDP", "false").lower() != "true":
        return None
    if os.environ.get("FSDP_VERSION") != "2":
        raise ValueError("FSDP works here in its second version: set `fsdp_version: 2`, as examples/launch/fsdp.yaml.")
    plugin = FullyShardedDataParallelPlugin(
        auto_wrap_policy="transformer_based_wrap",  # the layers that `MotionObjective` names
        cpu_ram_efficient_loading=False,
    )
    problems = [
        (plugin.activation_checkpointing, "Use --gradient_checkpointing instead of FSDP's activation checkpointing."),
        # Left whole, the averaged weights of a validation would be those that the next step trains with.
        (not plugin.reshard_after_forward, "Weights must be split again: set `fsdp_reshard_after_forward: true`."),
        (type(plugin.cpu_offload) is not OffloadPolicy, "FSDP's offloading is not supported here."),
    ]
    refuse("FSDP", "examples/launch/fsdp.yaml", problems, settings)
    plugin.mixed_precision_policy = MixedPrecisionPolicy()  # `lower_precision` sets the precision of each layer
    return plugin


def refuse(way: str, example: str, problems: list[tuple[bool, str]], settings: OptimizationSettings) -> None:
    """Raise a `ValueError` with the first problem, or a setting that does not work with split weights or moments."""
    problems = [
        *problems,
        (settings.use_8bit_adam, f"`use_8bit_adam` does not work with {way}, which only splits AdamW's moments."),
        (settings.optimizer != "adamw", f"`optimizer` {settings.optimizer} does not work with {way}: use adamw."),
        (settings.torch_compile, f"`torch_compile` does not work with {way}."),
        (launched_precision(settings) == "fp16", f"Mixed precision fp16 does not work with {way}: use bf16."),
    ]
    for is_wrong, line in problems:
        if is_wrong:
            raise ValueError(f"{line} {example} works.")


def enable_fsdp_on_cpu(accelerator: Accelerator, plugin: FullyShardedDataParallelPlugin | None) -> None:
    """Let accelerate use FSDP without a GPU: torch supports it, but accelerate would silently not use it."""
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Both, because a new `AcceleratorState` takes over what `PartialState` says.
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.FSDP
        accelerator.state.fsdp_plugin = plugin


def is_sharded(accelerator: Accelerator) -> bool:
    """Whether each process holds a part of the weights, so that all must take part where they are needed whole."""
    return accelerator.distributed_type == DistributedType.FSDP


def deepspeed_plugin(settings: OptimizationSettings) -> DeepSpeedPlugin | None:
    """What accelerate must know about DeepSpeed, if the launch configuration asks for it.

    Raises:
        ValueError: DeepSpeed is not installed, or does not work here with a setting of the launch configuration or of
            the run.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return None
    stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2))
    places = [os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{what}_DEVICE") for what in ("OPTIMIZER", "PARAM")]
    problems = [
        ("ACCELERATE_DEEPSPEED_CONFIG_FILE" in os.environ, "DeepSpeed's own configuration file is not read here."),
        (stage not in STAGES, f"DeepSpeed's ZeRO works here in stages 1 and 2, not {stage}: FSDP splits the weights."),
        (not {"none", None}.issuperset(places), "DeepSpeed's offloading is not supported here."),
    ]
    refuse("DeepSpeed", "examples/launch/deepspeed.yaml", problems, settings)
    if not is_deepspeed_available():
        raise ValueError("DeepSpeed is not installed: `pip install deepspeed`, or use examples/launch/fsdp.yaml.")
    config = {
        **{precision: {"enabled": False} for precision in ("fp16", "bf16")},  # see `lower_precision`
        "train_micro_batch_size_per_gpu": settings.train_batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation_steps,
        "gradient_clipping": settings.max_grad_norm,
        "zero_optimization": {"stage": stage},
    }
    return DeepSpeedPlugin(hf_ds_config=config)


def enable_deepspeed_on_cpu(accelerator: Accelerator, plugin: DeepSpeedPlugin | None) -> None:
    """Let accelerate use DeepSpeed without a GPU: it supports that, but accelerate would silently not use it."""
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Both, because a new `AcceleratorState` takes over what `PartialState` says.
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.DEEPSPEED
        accelerator.state.deepspeed_plugins = {"default": plugin}
        plugin.select(_from_accelerator_state=True)


def are_moments_split(parameter: nn.Parameter) -> bool:
    """Whether each process holds a part of a parameter's moments, so that all must take part in reading them."""
    return hasattr(parameter, "_hp_mapping")


def whole_moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    """The optimizer's state of a parameter; where it is split, every process must call this."""
    if not are_moments_split(parameter):
        return optimizer.state[parameter]
    from deepspeed.utils import safe_get_full_optimizer_state

    (own,) = optimizer.state.values()  # this process's part of all parameters
    return {
        name: moment.clone() if moment.ndim == 0 else safe_get_full_optimizer_state(parameter, name)
        for name, moment in own.items()
    }


def split_moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, moments: dict[str, Any]) -> None:
    """Give the optimizer this process's part of a parameter's current weights and whole moments."""
    from deepspeed.utils import safe_set_full_fp32_param

    safe_set_full_fp32_param(parameter, parameter.detach())
    (flat,) = optimizer.param_groups[0]["params"]  # this process's part of all parameters
    own, held = optimizer.state[flat], parameter._hp_mapping
    for name, moment in moments.items():
        if moment.ndim == 0:
            own[name] = moment.clone()
            continue
        part = own.setdefault(name, torch.zeros_like(flat))
        if held is not None:
            place, source = held.get_hp_fragment_address(), held.lp_fragment_address
            part.narrow(0, place.start, place.numel).copy_(moment.flatten().narrow(0, source.start, source.numel))
