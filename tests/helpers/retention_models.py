"""Build image retention branches with effect, pipelines and images, for the tests of image to video."""

from typing import Any

import numpy as np
import torch
from diffusers.models.attention_processor import Attention, FusedAttnProcessor2_0
from PIL import Image

from pipeline_landscape_video import ImageRetention, LandscapeImageToVideoPipeline
from pipeline_landscape_video.landscape_motion_attention import build_motion_unet
from tiny_models import build_components


def branch_for(unet, **arguments: Any) -> ImageRetention:
    """Return a new branch, equal in every call."""
    return ImageRetention.from_unet(unet, generator=torch.Generator().manual_seed(0), **arguments)


def randomize_branch(branch: ImageRetention) -> ImageRetention:
    """Return the branch with random weights in every layer that starts at zero."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for layer in (branch.image_embedding.conv_out, *branch.zero_convs, branch.zero_conv_mid):
            layer.weight.copy_(0.1 * torch.randn(layer.weight.shape, generator=generator))
        branch.image_embedding.conv_out.weight.mul_(20)  # image and noise have about equal weight
    return branch


def fuse_projections(branch: ImageRetention) -> None:
    """Fuse as `UNetMotionModel.fuse_qkv_projections` does; other diffusers models skip these attention layers."""
    for module in branch.modules():
        if isinstance(module, Attention):
            module.fuse_projections(fuse=True)
    branch.set_attn_processor(FusedAttnProcessor2_0())


def build_image_to_video(fresh: bool = False, **components: Any) -> LandscapeImageToVideoPipeline:
    """Return the pipeline of `build_components` with a branch, which has no effect if `fresh`. No progress bars."""
    components = build_components(**components)
    unet = build_motion_unet(components["unet"], components["motion_adapter"])
    if "image_retention" not in components:
        branch = branch_for(unet)
        components["image_retention"] = branch if fresh else randomize_branch(branch)
    pipe = LandscapeImageToVideoPipeline(**components | {"unet": unet})
    pipe.set_progress_bar_config(disable=True)
    return pipe


def painting(seed: int = 0, size: tuple[int, int] = (64, 64)) -> Image.Image:
    """Return an image of large soft blots of color, `(width, height)`, another one for each seed."""
    small = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
