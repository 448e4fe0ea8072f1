"""Parts that several nodes share: the menu, the recipe of a clip, pixels, progress and messages."""

from typing import Any

import nodes
from comfy.model_management import throw_exception_if_processing_interrupted
from comfy_api.latest import ComfyAPI, io
from torch import Tensor

from ..animatediff_evolved import KNOWN_VERSION


CATEGORY = "landscape video"
PREFIX = "LandscapeVideo"  # of node ids, which all packs share

# What made a clip: prompt, seed, settings and versions, as JSON-compatible values
Recipe = io.Custom("LANDSCAPE_VIDEO_RECIPE")
RECIPE_TAG = "landscape_video"  # the tag of a video file that `landscape-video` reads and writes


def check_clip(images: Tensor, least: int = 2) -> Tensor:
    """
    Return the RGB channels of a clip, `(num_frames, height, width, 3)` in [0, 1].

    Raises:
        ValueError: It has fewer than `least` frames; the node shows the message.
    """
    if len(images) < least:
        raise ValueError(
            f"`images` must be a clip of at least {least} frames, got {len(images)}. Connect the frames of a video,"
            " for example from Get Video Components."
        )
    if images.shape[-1] < 3:
        raise ValueError(f"`images` must have 3 color channels, got {images.shape[-1]}.")
    return images[..., :3]


def to_bytes(images: Tensor) -> Tensor:
    """Round images in [0, 1] to 8 bits."""
    return (images.float().clamp(0, 1) * 255).round().byte()


def evolved_node(name: str) -> type[Any]:
    """
    Return a node class of AnimateDiff-Evolved.

    Raises:
        RuntimeError: That node pack is not installed; the node shows the message.
    """
    if name not in nodes.NODE_CLASS_MAPPINGS:
        raise RuntimeError(
            f"This node needs the node pack ComfyUI-AnimateDiff-Evolved, {KNOWN_VERSION} or newer; install it and"
            " restart ComfyUI."
        )
    return nodes.NODE_CLASS_MAPPINGS[name]


async def report_progress(done: int, total: int) -> None:
    """
    Show how much of a node is done, and stop the node if the user has asked for it.

    Raises:
        InterruptProcessingException: The user pressed Cancel.
    """
    throw_exception_if_processing_interrupted()
    await ComfyAPI().execution.set_progress(done, total)
