"""Branches that have something in every layer, and pipelines and pictures for the tests of image to video."""

from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0
from PIL import Image

from pipeline_landscape_video import ImageRetention, LandscapeImageToVideoPipeline
from pipeline_landscape_video.landscape_motion_attention import build_motion_unet
from tiny_models import build_components


def branch_for(unet, **arguments: Any) -> ImageRetention:
    """A new branch, the same each time."""
    return ImageRetention.from_unet(unet, generator=torch.Generator().manual_seed(0), **arguments)


def learnt(branch: ImageRetention) -> ImageRetention:
    """The branch with something in every layer that begins at zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in (branch.image_embedding.conv_out, *branch.zero_convs, branch.zero_conv_mid):
            layer.weight.copy_(0.1 * torch.randn(layer.weight.shape, generator=generator))
        branch.image_embedding.conv_out.weight.mul_(20)  # the picture counts about as much as the noise
    return branch


def fuse_projections(branch: ImageRetention) -> None:
    """As `UNetMotionModel.fuse_qkv_projections`; that of other diffusers models passes over these attentions."""
    for module in branch.modules():
        if isinstance(module, Attention):
            module.fuse_projections(fuse=True)
    branch.set_attn_processor(FusedAttnProcessor2_0())


def build_image_to_video(fresh: bool = False, **components: Any) -> LandscapeImageToVideoPipeline:
    """The pipeline of `build_components` with a branch, one that acts unless `fresh`; without progress bars."""
    components = build_components(**components)
    unet = build_motion_unet(components["unet"], components["motion_adapter"])
    if "image_retention" not in components:
        branch = branch_for(unet)
        components["image_retention"] = branch if fresh else learnt(branch)
    pipe = LandscapeImageToVideoPipeline(**components | {"unet": unet})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def painting(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Large soft blots of colour, `(width, height)`, different for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
