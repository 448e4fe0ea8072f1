"""Moments that DeepSpeed (ZeRO) has split over the processes: what that asks of a run, and how they become whole.

Weights stay whole in every process. Checkpoints hold whole moments whichever way a run is launched, so that each
resumes the other's.
"""

import argparse
import os
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import DeepSpeedPlugin, DistributedType, is_deepspeed_available
from torch import nn

from landscape_video.training.run.optimization import launched_precision


STAGES = (1, 2)


def deepspeed_plugin(args: argparse.Namespace) -> DeepSpeedPlugin | None:
    """What accelerate is to know about DeepSpeed, if the launch configuration asks for it.

    Raises:
        ValueError: a setting, there or among the flags, with which DeepSpeed does not work here; or there is none.
    """
    if os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() != "true":
        return None
    stage = int(os.environ.get("ACCELERATE_DEEPSPEED_ZERO_STAGE", 2))
    places = [os.environ.get(f"ACCELERATE_DEEPSPEED_OFFLOAD_{what}_DEVICE") for what in ("OPTIMIZER", "PARAM")]
    for wrong, line in (
        ("ACCELERATE_DEEPSPEED_CONFIG_FILE" in os.environ, "DeepSpeed's own configuration file is not read here."),
        (stage not in STAGES, f"DeepSpeed's ZeRO works here in stages 1 and 2, not {stage}: FSDP splits the weights."),
        (not {"none", None}.issuperset(places), "DeepSpeed's offloading is not supported here."),
        (args.use_8bit_adam, "--use_8bit_adam does not work with DeepSpeed, which splits the moments of AdamW only."),
        (args.optimizer != "adamw", f"--optimizer {args.optimizer} does not work with DeepSpeed."),
        (args.torch_compile, "--torch_compile does not work with DeepSpeed."),
        (launched_precision(args) == "fp16", "Mixed precision fp16 does not work with DeepSpeed: take bf16."),
    ):
        if wrong:
            raise ValueError(f"{line} examples/launch/deepspeed.yaml works.")
    if not is_deepspeed_available():
        raise ValueError("DeepSpeed is not installed: `pip install deepspeed`, or take examples/launch/fsdp.yaml.")
    config = {
        **{precision: {"enabled": False} for precision in ("fp16", "bf16")},  # `lower_precision` sees to it, by layer
        "train_micro_batch_size_per_gpu": args.train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "gradient_clipping": args.max_grad_norm,
        "zero_optimization": {"stage": stage},
    }
    return DeepSpeedPlugin(hf_ds_config=config)


def enable_deepspeed_on_cpu(accelerator: Accelerator, plugin: DeepSpeedPlugin | None) -> None:
    """DeepSpeed splits moments over processes without a GPU as well, but accelerate would do without, silently."""
    if plugin is not None and accelerator.distributed_type == DistributedType.MULTI_CPU:
        # Both: a new `AcceleratorState` takes over what `PartialState` says.
        accelerator.state.distributed_type = PartialState().distributed_type = DistributedType.DEEPSPEED
        accelerator.state.deepspeed_plugins = {"default": plugin}
        plugin.select(_from_accelerator_state=True)


def are_moments_split(parameter: nn.Parameter) -> bool:
    """Whether each process holds a part of a parameter's moments, so that all have to take part in reading them."""
    return hasattr(parameter, "_hp_mapping")


def whole_moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter) -> dict[str, Any]:
    """The optimizer's state of a parameter, gathered where it was split; then every process has to call this."""
    if not are_moments_split(parameter):
        return optimizer.state[parameter]
    from deepspeed.utils import safe_get_full_optimizer_state

    (own,) = optimizer.state.values()  # of all parameters, this process's part
    return {
        name: moment.clone() if moment.ndim == 0 else safe_get_full_optimizer_state(parameter, name)
        for name, moment in own.items()
    }


def split_moments(optimizer: torch.optim.Optimizer, parameter: nn.Parameter, moments: dict[str, Any]) -> None:
    """Take over a parameter's weights, as they are now, and its whole moments: what of them this process holds."""
    from deepspeed.utils import safe_set_full_fp32_param

    safe_set_full_fp32_param(parameter, parameter.detach())
    (flat,) = optimizer.param_groups[0]["params"]  # of all parameters, this process's part
    own, held = optimizer.state[flat], parameter._hp_mapping
    for name, moment in moments.items():
        if moment.ndim == 0:
            own[name] = moment.clone()
            continue
        part = own.setdefault(name, torch.zeros_like(flat))
        if held is not None:
            place, source = held.get_hp_fragment_address(), held.lp_fragment_address
            part.narrow(0, place.start, place.numel).copy_(moment.flatten().narrow(0, source.start, source.numel))
