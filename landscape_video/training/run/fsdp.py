"""Training with weights that FSDP splits over the processes."""

import os

from accelerate import Accelerator, PartialState
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch.distributed.fsdp import MixedPrecisionPolicy, OffloadPolicy

from landscape_video.training.run.optimization import launched_precision
from landscape_video.training.settings.optimization import OptimizationSettings


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
