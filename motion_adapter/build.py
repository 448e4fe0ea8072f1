"""
Motion adapters (NADM, Eqs. 6-8): made new or from a pretrained one, attached to a frozen image UNet, saved.

A file made here is a plain `diffusers.MotionAdapter`. Two entries of its config are ours: `sparse_causal_mode`, which
stock pipelines ignore (they run the adapter with plain attention), and `removed_attentions`, for the paper's
ablations. A stock adapter has neither and counts as mode `"full"` with nothing removed.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from pipeline_landscape_video.landscape_image_retention import ImageRetention
from pipeline_landscape_video.landscape_motion_attention import (
    check_adapter_fits,
    check_sparse_causal_mode,
    install_sparse_causal_attention,
)


ATTENTIONS = ("versatile", "sparse_causal")  # `attn1` and `attn2` of a motion block


def create_motion_adapter(
    unet: UNet2DConditionModel,
    sparse_causal_mode: str = "previous",
    motion_max_seq_length: int = 32,
    use_motion_mid_block: bool = False,
    motion_num_attention_heads: int | Sequence[int] = 8,
    motion_transformer_layers_per_block: int | Sequence[int] = 1,
    generator: torch.Generator | None = None,
) -> MotionAdapter:
    """
    A new adapter for `unet`, in float32 on its device. Every `proj_out` is zero, so that with it the motion UNet
    paints what the image UNet paints, frame by frame, until something was learnt.

    Args:
        unet: the image UNet to be animated; only its config and its device are read.
        sparse_causal_mode: how the second attention sees other frames, see `install_sparse_causal_attention`.
        motion_max_seq_length: length of the position table, the most frames of one clip.
        use_motion_mid_block: whether the middle of the UNet gets a motion module, too.
        motion_num_attention_heads: heads of both attentions, for all blocks of the UNet or for each; the channels of a
            block must be a multiple of it.
        motion_transformer_layers_per_block: depth of the motion modules, for all blocks of the UNet or for each.
        generator: draws the initial weights; torch's global random state without it.

    Raises:
        ValueError: an unknown mode, or channels that cannot be shared out to the heads.
    """
    check_sparse_causal_mode(sparse_causal_mode)
    channels = tuple(unet.config.block_out_channels)
    heads, depth = motion_num_attention_heads, motion_transformer_layers_per_block
    heads_of_blocks = heads if isinstance(heads, Sequence) else [heads] * len(channels)
    for count, block_heads in zip(channels, heads_of_blocks, strict=False):  # `MotionAdapter` checks the lengths
        if count % block_heads:
            raise ValueError(f"`unet` has a block of {count} channels, which is no multiple of {block_heads} heads.")
    adapter = MotionAdapter(
        block_out_channels=channels,
        motion_layers_per_block=unet.config.layers_per_block,
        motion_transformer_layers_per_block=depth,
        motion_transformer_layers_per_mid_block=depth[-1] if isinstance(depth, Sequence) else depth,
        motion_num_attention_heads=heads,
        motion_norm_num_groups=unet.config.norm_num_groups,  # a motion UNet uses the image UNet's, whatever is here
        motion_max_seq_length=motion_max_seq_length,
        use_motion_mid_block=use_motion_mid_block,
    )
    adapter.register_to_config(sparse_causal_mode=sparse_causal_mode)
    if generator is not None:
        _draw_linear_layers(adapter, generator)
    for motion_module in _motion_modules(adapter):
        _set_to_zero(motion_module.proj_out)
    check_adapter_fits(unet, adapter)
    return adapter.to(unet.device)


def warm_start_motion_adapter(
    unet: UNet2DConditionModel,
    pretrained: MotionAdapter,
    sparse_causal_mode: str = "previous",
    motion_max_seq_length: int = 32,
    use_motion_mid_block: bool = False,
    generator: torch.Generator | None = None,
) -> MotionAdapter:
    """
    A new adapter for `unet` that begins with the weights of `pretrained` (AnimateDiff's, or one of ours), under
    another mode, number of positions, or with or without the mid block. Positions are a formula, so they are not
    copied; a mid block that `pretrained` lacks begins with a zero `proj_out`, one that is not wanted is left out. What
    was removed from `pretrained` (see `remove_attentions`) stays removed.

    Args:
        unet, sparse_causal_mode, motion_max_seq_length, use_motion_mid_block, generator: as `create_motion_adapter`.
        pretrained: stays as it is; gives the number of heads and of blocks in each motion module.

    Raises:
        ValueError: `pretrained` does not fit `unet`, or has parts a new adapter has not (PIA's image input).
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
            f"`pretrained` and a new adapter differ in {len(different)} weights, such as {different[0]}: only motion"
            " modules can be taken over, and of all blocks."
        )
    remove_attentions(adapter, pretrained.config.get("removed_attentions", ()))
    return adapter


def attach_motion_adapter(unet: UNet2DConditionModel, adapter: MotionAdapter) -> UNetMotionModel:
    """
    A motion UNet of the image layers of `unet` and the motion modules of `adapter` (copies of both, in the dtype and
    on the device of `unet`), with the attention of the adapter's config installed; in eval mode if `unet` is.

    Raises:
        ValueError: the two do not fit (which block, which sizes), or the config names an unknown mode.
    """
    check_adapter_fits(unet, adapter)
    motion_unet = UNetMotionModel.from_unet2d(unet, adapter).to(unet.device)  # diffusers leaves it on the CPU
    install_sparse_causal_attention(motion_unet, adapter.config.get("sparse_causal_mode", "full"))
    remove_attentions(motion_unet, adapter.config.get("removed_attentions", ()))
    return motion_unet.train(unet.training)


def remove_attentions(model: UNetMotionModel | MotionAdapter, attentions: Sequence[str]) -> None:
    """
    Take attentions out of every motion block, in place, as the ablations of NADM (Table II) do: what an attention
    adds to its input is fixed at zero, by weight and bias of its `to_out`. The file stays a plain `MotionAdapter`;
    `removed_attentions` in the config keeps `freeze_image_layers` from training the parts that are without effect.

    Args:
        model: a motion UNet or an adapter.
        attentions: any of `"versatile"`, `"sparse_causal"`.

    Raises:
        ValueError: an unknown attention.
    """
    for attention in attentions:
        if attention not in ATTENTIONS:
            raise ValueError(f"Cannot remove the attention {attention!r}, only {' and '.join(ATTENTIONS)}.")
    if not attentions:
        return
    for block in _motion_blocks(model):
        for attention in attentions:
            _set_to_zero(_attention(block, attention).to_out[0])
    removed = {*model.config.get("removed_attentions", ()), *attentions}
    model.register_to_config(removed_attentions=sorted(removed))


def freeze_image_layers(unet: UNetMotionModel) -> list[tuple[str, nn.Parameter]]:
    """
    Set `requires_grad` of every parameter: True for the motion modules, False for the image layers and for what
    `freeze_idle_layers` finds.

    Returns:
        name and parameter of all that trains, in the order of `unet.named_parameters()`.

    Raises:
        ValueError: the mode in the config is not the one that the motion modules run with.
    """
    unet.freeze_unet2d_params()
    freeze_idle_layers(unet)
    return [(name, parameter) for name, parameter in unet.named_parameters() if parameter.requires_grad]


def freeze_idle_layers(model: UNetMotionModel | ImageRetention) -> None:
    """
    Set `requires_grad` to False for what is in a motion module but without effect, since weight decay would still
    change it: `to_q` and `to_k` of the second attention in mode `"previous"` (its softmax over one key is 1 whatever
    they are), and all of a removed attention with the norm in front of it.

    Raises:
        ValueError: the mode in the config is not the one that the motion modules run with.
    """
    mode = model.config.get("sparse_causal_mode", "full")
    removed = model.config.get("removed_attentions", ())
    for block in _motion_blocks(model):
        running_mode = getattr(block.attn2, "sparse_causal_mode", "full")
        if running_mode != mode:
            raise ValueError(
                f"The config of the {type(model).__name__} says sparse_causal_mode={mode!r}, its motion modules run"
                f" {running_mode!r}: call `install_sparse_causal_attention(model, mode)` first."
            )
        if mode == "previous":
            block.attn2.to_q.requires_grad_(False)
            block.attn2.to_k.requires_grad_(False)
        for attention in removed:
            _attention(block, attention).requires_grad_(False)
            _norm_before(block, attention).requires_grad_(False)


def extract_motion_adapter(unet: UNetMotionModel) -> MotionAdapter:
    """
    The motion modules of `unet` as a `MotionAdapter` that shares their tensors (so in their dtype), with the mode and
    the removed attentions in its config and the position tables in its state dict. Weights that FSDP has split are
    gathered, so that all processes have to call this.

    Raises:
        ValueError: the motion modules hold parameters that an adapter has not, or lack some.
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
            f"The motion modules are not those of a `MotionAdapter`: {len(different)} names differ, such as"
            f" {different[0]}. Unload or fuse LoRA, and save before `fuse_qkv_projections` and split inference."
        )
    weights = {n: w.full_tensor().cpu() if hasattr(w, "full_tensor") else w for n, w in weights.items()}
    adapter.load_state_dict(weights, assign=True)
    ours = {name: config[name] for name in ("sparse_causal_mode", "removed_attentions") if name in config}
    adapter.register_to_config(**ours)
    return adapter.train(unet.training)


def save_motion_modules(unet: UNetMotionModel, directory: str | Path) -> None:
    """
    Write the motion modules of `unet` as a plain `MotionAdapter` (`config.json` and safetensors) into `directory`.
    Unlike `unet.save_motion_modules` it keeps the mode, the depth of the motion modules and their dtype. The position
    tables (`pos_embed.pe`) are in the file: ComfyUI's loader takes keys of zeros without them.

    Raises:
        ValueError: as `extract_motion_adapter`.
        NotADirectoryError: `directory` is a file.
    """
    if Path(directory).is_file():  # diffusers would log it and write nothing
        raise NotADirectoryError(f"{directory} is a file, cannot save motion modules there.")
    extract_motion_adapter(unet).save_pretrained(directory)


def _motion_modules(model: nn.Module) -> Iterator[AnimateDiffTransformer3D]:
    return (module for module in model.modules() if isinstance(module, AnimateDiffTransformer3D))


def _motion_blocks(model: nn.Module) -> Iterator[nn.Module]:
    return (block for motion_module in _motion_modules(model) for block in motion_module.transformer_blocks)


def _attention(block: nn.Module, attention: str) -> nn.Module:
    return block.attn1 if attention == "versatile" else block.attn2


def _norm_before(block: nn.Module, attention: str) -> nn.Module:
    return block.norm1 if attention == "versatile" else block.norm2


def _set_to_zero(linear: nn.Linear) -> None:
    nn.init.zeros_(linear.weight)
    nn.init.zeros_(linear.bias)


def _draw_linear_layers(model: nn.Module, generator: torch.Generator) -> None:
    """Draw anew, as `nn.Linear` does without a generator: uniform between -1 and 1 over the root of its inputs."""
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            for parameter in layer.parameters():
                nn.init.uniform_(parameter, -bound, bound, generator=generator)
