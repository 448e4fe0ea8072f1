"""
Check that an image UNet and a motion adapter fit each other before they become one motion UNet.

`UNetMotionModel.from_unet2d` ignores what a motion UNet does not support, and accepts weights trained with another
number of norm groups. It reports neither.
"""

import inspect
import logging
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel


logger = logging.getLogger(__name__)

# Config entries of an image UNet that `from_unet2d` translates, or that change no output.
IMAGE_ONLY_CONFIG = ("attention_head_dim", "dropout", "upcast_attention", "addition_embed_type_num_heads")
# Config entries that a motion UNet accepts but implements in part, with the values that work.
PARTIALLY_SUPPORTED_CONFIG = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None, "text_time"),
    "encoder_hid_dim_type": (None, "ip_image_proj"),
}
IMAGE_BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")


def check_unet_and_adapter(
    unet: UNet2DConditionModel | UNetMotionModel | None, adapter: MotionAdapter | None, may_read_depth: bool = False
) -> None:
    """
    Check the components of a pipeline.

    An image UNet needs an adapter that fits it. A motion UNet has motion modules of its own, so an adapter with other
    weights is unused, which is logged as a warning.

    Args:
        unet: UNet of the pipeline.
        adapter: Motion adapter of the pipeline.
        may_read_depth: Whether the pipeline gives depth to UNets that read it.

    Raises:
        ValueError: An image UNet comes without an adapter, or with one that does not fit it; or the UNet reads depth
            and the pipeline gives none.
    """
    if not may_read_depth and unet is not None and unet.config.in_channels == unet.config.out_channels + 1:
        raise ValueError(
            f"`unet` must predict as many channels as it takes, got {unet.config.out_channels} for"
            f" {unet.config.in_channels}; edit videos with UNets that read depth."
        )
    if isinstance(unet, UNet2DConditionModel):
        if adapter is None:
            raise ValueError("`motion_adapter` must be given with an image UNet, got None: no frame would move.")
        check_adapter_fits(unet, adapter)
    elif isinstance(unet, UNetMotionModel) and adapter is not None:
        _warn_about_unused_weights(unet, adapter)


def check_adapter_fits(unet: UNet2DConditionModel, adapter: MotionAdapter) -> None:
    """
    Check that `UNetMotionModel.from_unet2d(unet, adapter)` computes what both were trained for.

    Raises:
        ValueError: The config of the UNet has an entry that motion UNets do not support, or the adapter does not fit
            one of its blocks; the message names it, with both sizes.
    """
    supported = inspect.signature(UNetMotionModel.__init__).parameters
    for name, parameter in inspect.signature(UNet2DConditionModel.__init__).parameters.items():
        value = unet.config.get(name)
        if name in PARTIALLY_SUPPORTED_CONFIG:
            fits = value in PARTIALLY_SUPPORTED_CONFIG[name]
        else:
            # `None`, `False` and lists of `False` all turn off what is off by default.
            is_default = value == parameter.default or (not parameter.default and not _is_on(value))
            fits = name in supported or name in IMAGE_ONLY_CONFIG or is_default
        if not fits:
            raise ValueError(f"`unet` must not have {name}={value!r}: motion UNets do not support it.")
    if unet.config.in_channels not in (unet.config.out_channels, unet.config.out_channels + 1):  # 1 for depth
        raise ValueError(
            f"`unet` must predict as many channels as it takes, got {unet.config.out_channels} for"
            f" {unet.config.in_channels}; inpainting UNets are not supported."
        )
    if adapter.config.get("conv_in_channels"):
        raise ValueError(
            "`motion_adapter` must not have an image input (`conv_in_channels`, as in PIA): it is not supported."
        )
    for block_type in (*unet.config.down_block_types, *unet.config.up_block_types):
        if block_type not in IMAGE_BLOCKS:
            raise ValueError(f"`unet` must consist of {', '.join(IMAGE_BLOCKS)}, got {block_type}.")
    image_layers, motion_layers = _image_layers(unet, adapter), _motion_layers(adapter)
    for name in image_layers | motion_layers:
        image_sizes, motion_sizes = image_layers.get(name, []), motion_layers.get(name, [])
        if image_sizes != motion_sizes:
            raise ValueError(
                f"`motion_adapter` must fit `unet`: {name} must have layers of (channels, norm groups) {image_sizes},"
                f" got {motion_sizes}."
            )


def _warn_about_unused_weights(unet: UNetMotionModel, adapter: MotionAdapter) -> None:
    in_unet = dict(unet.named_parameters())
    for name, weight in adapter.named_parameters():
        # A motion module acts through `proj_out`. One that is untrained, and thus zero, is not used in either place.
        if name.endswith("proj_out.weight") and name in in_unet and not (weight.is_meta or in_unet[name].is_meta):
            if not torch.equal(weight.to(in_unet[name]), in_unet[name]):
                logger.warning(
                    "`motion_adapter` is not used: `unet` has motion modules with different weights. Call"
                    " `pipe.unet.load_motion_modules(motion_adapter)` to use those of the adapter."
                )
                return


def _is_on(value: Any) -> bool:
    return any(value) if isinstance(value, (list, tuple)) else bool(value)


def _image_layers(unet: UNet2DConditionModel, adapter: MotionAdapter) -> dict[str, list[tuple[int, int]]]:
    """Return (channels, norm groups) of the layers in each block of an image UNet that get a motion module."""
    blocks = {f"down_blocks.{index}": block for index, block in enumerate(unet.down_blocks)}
    blocks |= {f"up_blocks.{index}": block for index, block in enumerate(unet.up_blocks)}
    layers = {
        name: [(layer.out_channels, layer.norm1.num_groups) for layer in block.resnets]
        for name, block in blocks.items()
    }
    if adapter.mid_block is not None:  # `from_unet2d` gives the mid block one motion module
        layers["mid_block"] = layers[f"down_blocks.{len(unet.down_blocks) - 1}"][-1:]
    return layers


def _motion_layers(adapter: MotionAdapter) -> dict[str, list[tuple[int, int]]]:
    """Return (channels, norm groups) of the motion modules in each block of an adapter."""
    blocks = {f"down_blocks.{index}": block for index, block in enumerate(adapter.down_blocks)}
    blocks |= {f"up_blocks.{index}": block for index, block in enumerate(adapter.up_blocks)}
    if adapter.mid_block is not None:
        blocks["mid_block"] = adapter.mid_block
    return {
        name: [(layer.norm.num_channels, layer.norm.num_groups) for layer in block.motion_modules]
        for name, block in blocks.items()
    }
