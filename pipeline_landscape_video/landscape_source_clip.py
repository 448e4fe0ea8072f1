"""Read the clip that an edit begins with: frames, depth and masks, padded to a size that the model takes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image


class SourceClip:
    """
    A clip to edit.

    Args:
        frames: Frames in [0, 1], `(num_frames, 3, height, width)`.
        multiple: Multiple of the sides that the model takes.
        depth: Depth of the frames, `(num_frames, 1, height, width)`.

    Attributes:
        padded: The frames, padded at right and bottom by repeating the last pixel.
        depth: The depth, padded likewise.
    """

    def __init__(self, frames: torch.Tensor, multiple: int, depth: torch.Tensor | None = None) -> None:
        self.frames, self.multiple = frames, multiple
        self.padded = self.pad(frames)
        self.depth = None if depth is None else self.pad(depth)

    def pad(self, values: torch.Tensor) -> torch.Tensor:
        """Pad `(n, channels, height, width)` of the size of the frames."""
        bottom, right = (-side % self.multiple for side in values.shape[-2:])
        return F.pad(values, (0, right, 0, bottom), mode="replicate")


def frames_to_tensor(video: np.ndarray | torch.Tensor | Sequence[Image.Image]) -> torch.Tensor:
    """
    Return the frames of a clip as float32 in [0, 1], `(num_frames, 3, height, width)`.

    Args:
        video: uint8 `(num_frames, height, width, 3)`, a tensor in [0, 1] of the returned shape, or PIL images.

    Raises:
        ValueError: It is something else.
    """
    if isinstance(video, torch.Tensor):
        if video.ndim != 4 or video.shape[1] != 3 or not video.is_floating_point() or len(video) == 0:
            raise ValueError(f"`video` as a tensor must be floats (num_frames, 3, height, width), got {_kind(video)}.")
        if not (video.isfinite().all() and video.min() >= 0 and video.max() <= 1):
            raise ValueError("`video` as a tensor must have values from 0 to 1.")
        return video.float()
    if not isinstance(video, np.ndarray):
        images = list(video) if isinstance(video, Sequence) and not isinstance(video, str) else []
        if not images or not all(isinstance(image, Image.Image) for image in images):
            raise ValueError(f"`video` must be an array, a tensor or PIL images, got {type(video).__name__}.")
        if len({image.size for image in images}) > 1:
            raise ValueError("`video` must have images of one size.")
        video = np.stack([np.asarray(image.convert("RGB")) for image in images])
    if video.ndim != 4 or video.shape[3] != 3 or video.dtype != np.uint8 or len(video) == 0:
        raise ValueError(f"`video` as an array must be uint8 (num_frames, height, width, 3), got {_kind(video)}.")
    return torch.from_numpy(video).movedim(-1, 1).float() / 255


def masks_to_tensors(mask: Any, frames: torch.Tensor) -> list[torch.Tensor]:
    """
    Return masks as float32 `(num_frames or 1, 1, height, width)` in [0, 1]: none, one, or one for each prompt.

    Args:
        mask: `None`, a mask `(num_frames or 1, height, width)`, or a list of masks.
        frames: Frames of the clip, `(num_frames, 3, height, width)`.

    Raises:
        ValueError: A mask has another size or number of frames, other values, or is empty.
    """
    given = [] if mask is None else list(mask) if isinstance(mask, list | tuple) else [mask]
    masks = [torch.as_tensor(each).float() for each in given]
    allowed = [(count, *frames.shape[2:]) for count in (len(frames), 1)]
    for each in masks:
        if tuple(each.shape) not in allowed:
            raise ValueError(f"`mask` must have the shape {allowed[0]}, as the video, got {tuple(each.shape)}.")
        if not (each.min() >= 0 and each.max() <= 1):
            raise ValueError("`mask` must have values from 0 to 1.")
        if not each.any():
            raise ValueError("`mask` must not be empty, got 0 everywhere.")
    return [each[:, None] for each in masks]


def check_depth(depth: Any, frames: torch.Tensor, is_read: bool) -> torch.Tensor | None:
    """
    Return the depth of a clip as float32 `(num_frames, 1, height, width)`.

    Raises:
        ValueError: It has another shape, or the model reads depth and it is missing, or the other way round.
    """
    if is_read != (depth is not None):
        needs = "must be given: this model reads depth" if is_read else "must be None: this model reads no depth"
        raise ValueError(f"`depth` {needs}.")
    if depth is None:
        return None
    depth, shape = torch.as_tensor(depth, dtype=torch.float32), (len(frames), 1, *frames.shape[2:])
    if tuple(depth.shape) != shape:
        raise ValueError(f"`depth` must have the shape {shape}, got {tuple(depth.shape)}.")
    return depth


def list_edits(prompts: list[str], masks: list[torch.Tensor]) -> list[tuple[list[str], list[torch.Tensor]]]:
    """
    Return prompts and masks of each edit: one edit for a mask per prompt, else one for each prompt.

    Raises:
        ValueError: The numbers of prompts and masks do not fit.
    """
    if len(masks) > 1:
        if len(masks) != len(prompts):
            raise ValueError(f"`mask` must be one mask, or one for each of {len(prompts)} prompts, got {len(masks)}.")
        return [(prompts, masks)]
    return [([text], masks) for text in prompts]


def to_latents(values: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
    """Average pixels, `(num_frames or 1, 1, height, width)`, to the size of latents, `(1, 1, frames, ...)`."""
    return F.interpolate(values, latents.shape[-2:], mode="area").transpose(0, 1)[None].to(latents)


def _kind(values: np.ndarray | torch.Tensor) -> str:
    return f"{str(values.dtype).removeprefix('torch.')} {tuple(values.shape)}"
