"""Build motion adapters from scratch or from a pretrained one; attach them to an image UNet, freeze, extract, save.

Every adapter is a plain `diffusers.MotionAdapter`. Three entries of its config are ours. Stock pipelines ignore
`sparse_causal_mode` (NADM Eq. 8) and `motion_norm`: they run any adapter with full attention and with the norm of the
whole clip. `removed_attentions` is for the ablations of NADM (Table II). Without them, the mode is `"full"`, the norm
`"clip"`, and nothing is removed.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.controlnets.controlnet import zero_module
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from pipeline_landscape_video.landscape_image_retention import ImageRetention
from pipeline_landscape_video.landscape_motion_attention import (
    build_motion_unet,
    check_motion_norm,
    check_sparse_causal_mode,
)
from pipeline_landscape_video.landscape_unet_compatibility import check_adapter_fits

from .weights_files import save_adapter


# The attentions of a motion block: the names of its attention layer and of the norm before it
ATTENTIONS = {"versatile": ("attn1", "norm1"), "sparse_causal": ("attn2", "norm2")}
OUR_CONFIG = ("sparse_causal_mode", "motion_norm", "removed_attentions")


def create_motion_adapter(
    unet: UNet2DConditionModel,
    sparse_causal_mode: str = "previous",
    motion_max_seq_length: int = 32,
    use_motion_mid_block: bool = False,
    motion_num_attention_heads: int | Sequence[int] = 8,
    motion_transformer_layers_per_block: int | Sequence[int] = 1,
    generator: torch.Generator | None = None,
    motion_norm: str = "clip",
) -> MotionAdapter:
    """Create an untrained adapter for `unet`, in float32 on its device.

    Every `proj_out` is zero, so that the motion UNet first predicts what the image UNet predicts for each frame.

    Args:
        unet: Image UNet to animate. Only its config and its device are read.
        sparse_causal_mode: Frames that the second attention sees, see `install_sparse_causal_attention`.
        motion_max_seq_length: Length of the position table, the maximum number of frames.
        use_motion_mid_block: Whether the mid block of the UNet gets a motion module.
        motion_num_attention_heads: Heads of both attentions, one number or one for each block. The channels of a block
            must be a multiple of it.
        motion_transformer_layers_per_block: Depth of the motion modules, one number or one for each block.
        generator: Source of the initial weights; PyTorch's global random state if `None`.
        motion_norm: Statistics of the norm, see `install_motion_norm`.

    Raises:
        ValueError: An unknown mode or norm, or channels that are not a multiple of the heads.
    """
    check_sparse_causal_mode(sparse_causal_mode)
    check_motion_norm(motion_norm)
    channels = tuple(unet.config.block_out_channels)
    heads, depth = motion_num_attention_heads, motion_transformer_layers_per_block
    heads_of_blocks = heads if isinstance(heads, Sequence) else [heads] * len(channels)
    for count, block_heads in zip(channels, heads_of_blocks, strict=False):  # `MotionAdapter` checks the lengths
        if count % block_heads:
            raise ValueError(
                f"`motion_num_attention_heads` must divide the channels of each block, got {block_heads} for a block "
                f"of {count} channels."
            )
    adapter = MotionAdapter(
        block_out_channels=channels,
        motion_layers_per_block=unet.config.layers_per_block,
        motion_transformer_layers_per_block=depth,
        motion_transformer_layers_per_mid_block=depth[-1] if isinstance(depth, Sequence) else depth,
        motion_num_attention_heads=heads,
        motion_norm_num_groups=unet.config.norm_num_groups,  # a motion UNet takes the image UNet's in any case
        motion_max_seq_length=motion_max_seq_length,
        use_motion_mid_block=use_motion_mid_block,
    )
    adapter.register_to_config(sparse_causal_mode=sparse_causal_mode, motion_norm=motion_norm)
    if generator is not None:
        _initialize_linear_layers(adapter, generator)
    for motion_module in _motion_modules(adapter):
        zero_module(motion_module.proj_out)
    check_adapter_fits(unet, adapter)
    return adapter.to(unet.device)


def warm_start_motion_adapter(
    unet: UNet2DConditionModel,
    pretrained: MotionAdapter,
    sparse_causal_mode: str = "previous",
    motion_max_seq_length: int = 32,
    use_motion_mid_block: bool = False,
    generator: torch.Generator | None = None,
    motion_norm: str = "clip",
) -> MotionAdapter:
    """Create an adapter for `unet` that starts from the weights of `pretrained` (AnimateDiff's, or one of ours).

    Mode, norm, number of positions and mid block may differ from those of `pretrained`. Position tables are a formula
    and are not copied. A mid block that `pretrained` lacks starts with a zero `proj_out`; one that is not asked for is
    dropped. Attentions that were removed from `pretrained` (see `remove_attentions`) stay removed.

    Args:
        unet, sparse_causal_mode, motion_max_seq_length, use_motion_mid_block, generator, motion_norm: See
            `create_motion_adapter`.
        pretrained: Source of the weights, of the number of heads and of the depth; it is not changed.

    Raises:
        ValueError: `pretrained` does not fit `unet`, or has parts that a new adapter lacks (PIA's image input).
    """
    check_adapter_fits(unet, pretrained)
    adapter = create_motion_adapter(
        unet,
        sparse_causal_mode,
        motion_max_seq_length,
        use_motion_mid_block,
        pretrained.config.motion_num_attention_heads,
        pretrained.config.motion_transformer_layers_per_block,
        generator,
        motion_norm,
    )
    weights = {
        name: weight
        for name, weight in pretrained.state_dict().items()
        if not name.endswith("pos_embed.pe") and (use_motion_mid_block or not name.startswith("mid_block."))
    }
    missing, unknown = adapter.load_state_dict(weights, strict=False)
    new = ("pos_embed.pe",) if pretrained.mid_block is not None else ("pos_embed.pe", "mid_block.")
    different = [name for name in missing if not any(part in name for part in new)] + unknown
    if different:
        raise ValueError(
            f"`pretrained` must hold a motion module for every block and nothing else, but {len(different)} weights "
            f"differ from a new adapter's, such as {different[0]}."
        )
    remove_attentions(adapter, pretrained.config.get("removed_attentions", ()))
    return adapter


def attach_motion_adapter(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """Build a motion UNet from copies of the image layers of `unet` and of the motion modules of `adapter`.

    It has the dtype, the device and the train or eval mode of `unet`, and the attention and norm that the config of
    `adapter` names.

    Raises:
        ValueError: The two do not fit (the message names block and sizes), or the mode or norm is unknown.
    """
    check_adapter_fits(unet, adapter)
    motion_unet = build_motion_unet(unet, adapter)
    remove_attentions(motion_unet, adapter.config.get("removed_attentions", ()))
    return motion_unet.train(unet.training)


def remove_attentions(model: UNetMotionModel | MotionAdapter, attentions: Sequence[str]) -> None:
    """Remove attentions from every motion block in place, for the ablations of NADM (Table II).

    Weight and bias of the attention's `to_out` are set to zero, so that it adds nothing and the file stays a plain
    `MotionAdapter`. The entry `removed_attentions` of the config keeps `freeze_idle_layers` from training it.

    Args:
        model: A motion UNet or an adapter.
        attentions: Any of `"versatile"` and `"sparse_causal"`.

    Raises:
        ValueError: An unknown attention.
    """
    for attention in attentions:
        if attention not in ATTENTIONS:
            raise ValueError(f"`attentions` must be any of {', '.join(ATTENTIONS)}, got {attention!r}.")
    if not attentions:
        return
    for block in _motion_blocks(model):
        for attention in attentions:
            layer, _ = ATTENTIONS[attention]
            zero_module(getattr(block, layer).to_out[0])
    removed = {*model.config.get("removed_attentions", ()), *attentions}
    model.register_to_config(removed_attentions=sorted(removed))


def freeze_image_layers(unet: UNetMotionModel) -> list[tuple[str, nn.Parameter]]:
    """Set `requires_grad` to True for the motion modules without their idle layers, and to False for the rest.

    Returns:
        Names and parameters that train, in the order of `unet.named_parameters()`.

    Raises:
        ValueError: See `freeze_idle_layers`.
    """
    unet.freeze_unet2d_params()
    freeze_idle_layers(unet)
    return [(name, parameter) for name, parameter in unet.named_parameters() if parameter.requires_grad]


def freeze_idle_layers(model: UNetMotionModel | ImageRetention) -> None:
    """Set `requires_grad` to False for layers of motion modules without effect: weight decay would change them.

    In mode `"previous"` these are `to_q` and `to_k` of the second attention, whose softmax over a single key is always
    1. A removed attention is idle as a whole, with the norm before it.

    Raises:
        ValueError: The motion modules run in another mode than the config names.
    """
    mode = model.config.get("sparse_causal_mode", "full")
    for block in _motion_blocks(model):
        running_mode = getattr(block.attn2, "sparse_causal_mode", "full")
        if running_mode != mode:
            raise ValueError(
                f"`sparse_causal_mode` must be {mode!r} as in the config of the {type(model).__name__}, got "
                f"{running_mode!r} in its motion modules: call `install_sparse_causal_attention(model, mode)` first."
            )
        if mode == "previous":
            block.attn2.to_q.requires_grad_(False)
            block.attn2.to_k.requires_grad_(False)
        for attention in model.config.get("removed_attentions", ()):
            for layer in ATTENTIONS[attention]:
                getattr(block, layer).requires_grad_(False)


def extract_motion_adapter(unet: UNetMotionModel) -> MotionAdapter:
    """Return the motion modules of `unet` as a `MotionAdapter` that shares their tensors.

    Its state dict includes the position tables. FSDP's sharded weights are gathered, so all processes must call this.

    Raises:
        ValueError: The motion modules lack parameters of an adapter, or hold others.
    """
    config = unet.config
    with torch.device("meta"):  # all tensors come from `unet`
        adapter = MotionAdapter(
            block_out_channels=config.block_out_channels,
            motion_layers_per_block=config.layers_per_block,
            motion_transformer_layers_per_block=config.temporal_transformer_layers_per_block,
            motion_transformer_layers_per_mid_block=config.temporal_transformer_layers_per_mid_block,
            motion_num_attention_heads=config.motion_num_attention_heads,
            motion_norm_num_groups=config.norm_num_groups,
            motion_max_seq_length=config.motion_max_seq_length,
            use_motion_mid_block=config.use_motion_mid_block,
        )
    weights = {name: weight for name, weight in unet.state_dict().items() if ".motion_modules." in name}
    different = sorted(weights.keys() ^ adapter.state_dict().keys())
    if different:
        raise ValueError(
            f"`unet` must have the motion modules of a `MotionAdapter`, but {len(different)} names differ, such as "
            f"{different[0]}: unload or fuse LoRA, and save before `fuse_qkv_projections` and split inference."
        )
    weights = {n: w.full_tensor().cpu() if hasattr(w, "full_tensor") else w for n, w in weights.items()}
    adapter.load_state_dict(weights, assign=True)
    copy_our_config(config, adapter)
    return adapter.train(unet.training)


def copy_our_config(config: Mapping[str, Any], adapter: MotionAdapter) -> None:
    """Copy the entries of a config that diffusers does not know to the config of `adapter`."""
    adapter.register_to_config(**{name: config[name] for name in OUR_CONFIG if name in config})


def save_motion_modules(unet: UNetMotionModel, directory: str | Path) -> None:
    """Save the motion modules of `unet` as a plain `MotionAdapter`: `config.json` and safetensors in `directory`.

    Unlike `unet.save_motion_modules`, this keeps mode, norm, depth and dtype of the motion modules. The file includes
    the position tables (`pos_embed.pe`), which ComfyUI would otherwise take to be zero.

    Raises:
        ValueError: See `extract_motion_adapter`.
        NotADirectoryError: `directory` is a file.
    """
    if Path(directory).is_file():  # diffusers would log it and write nothing
        raise NotADirectoryError(f"`directory` must be a folder, got the file {directory}.")
    save_adapter(extract_motion_adapter(unet), directory)


def _motion_modules(model: nn.Module) -> Iterator[AnimateDiffTransformer3D]:
    return (module for module in model.modules() if isinstance(module, AnimateDiffTransformer3D))


def _motion_blocks(model: nn.Module) -> Iterator[nn.Module]:
    return (block for motion_module in _motion_modules(model) for block in motion_module.transformer_blocks)


def _initialize_linear_layers(model: nn.Module, generator: torch.Generator) -> None:
    """Initialize as `nn.Linear` does without a generator: uniform in ±1 / sqrt(in_features)."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
