"""Read the clip, masks and condition of a consistent clip from files, and fit them to the size that is sampled."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from landscape_video.generation.condition_networks import conditioned, load_network
from landscape_video.generation.conditions import detect, read_condition
from landscape_video.generation.consistent_clip import ConditionedUNet, SourceClip, fit_frames, scaled_size
from landscape_video.generation.consistent_settings import ConsistentClipSettings
from landscape_video.generation.masks import check_masks, read_masks
from landscape_video.generation.segmentation import ObjectPrompt, parse_prompts, segment
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.video_io import read_video


@dataclass(frozen=True)
class ConsistentInputs:
    """Everything that a consistent clip is made from, at the size of its files.

    Args:
        path: File or folder of the clip.
        frames: uint8 (num_frames, height, width, 3).
        fps: Frames per second of the clip.
        masks: Share of each pixel that an object covers, (objects, num_frames, height, width); `None` without masks.
        images: Images of the condition, uint8 (num_frames, any height, any width, 3); `None` without a file of them.
        prompts: Prompts of a segmenter.
    """

    path: Path
    frames: np.ndarray
    fps: float
    masks: np.ndarray | None
    images: np.ndarray | None
    prompts: list[ObjectPrompt]

    def source(self, size: tuple[int, int]) -> SourceClip:
        """Return the clip with its masks at a size, height and width."""
        if self.masks is None:
            return SourceClip(as_frames(self.frames, size))
        masks = fit_frames(torch.from_numpy(self.masks).transpose(0, 1), *size)
        return SourceClip(as_frames(self.frames, size), masks.transpose(0, 1))

    def condition(
        self, pipe: LandscapeVideoPipeline, settings: ConsistentClipSettings, size: tuple[int, int]
    ) -> Callable[[LandscapeVideoPipeline], ConditionedUNet] | None:
        """Load the condition network of the settings, and make its images; `None` without one.

        Raises:
            ValueError, ConnectionError: The network or a depth model does not load, or the depth does not fit.
        """
        if settings.network is None:
            return None
        network = load_network(*settings.network, pipe)
        images = self.images
        if images is None:
            images = detect(settings.detector, self.frames, self.path, settings.depth, pipe._execution_device)
        return conditioned(network, as_frames(images, size), settings.condition_scale)

    def segmenter(
        self, pipe: LandscapeVideoPipeline, settings: ConsistentClipSettings, size: tuple[int, int]
    ) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """Return the function that makes masks from generated frames; `None` without a segmenter."""
        if settings.segmenter is None:
            return None
        height, width = self.frames.shape[1:3]
        scaled, scale = scaled_size(height, width, *size)
        top, left = ((one - other) // 2 for one, other in zip(scaled, size, strict=True))
        prompts = [prompt.moved(scale, left, top) for prompt in self.prompts]
        return lambda frames: segment(frames, settings.segmenter, prompts, pipe._execution_device)


def as_frames(images: np.ndarray, size: tuple[int, int]) -> torch.Tensor:
    """Return uint8 images (num_frames, height, width, 3) in [0, 1] as (num_frames, 3, *size), scaled and cropped."""
    return fit_frames(torch.from_numpy(images).permute(0, 3, 1, 2) / 255, *size)


def read_inputs(
    path: Path, masks: Sequence[Path], objects: Sequence[str], settings: ConsistentClipSettings
) -> ConsistentInputs:
    """Read a clip with its masks and its condition.

    Args:
        path: File or folder of the clip.
        masks: Sources of masks, see `read_masks`.
        objects: Names of objects, see `read_masks`.
        settings: Settings of the clip.

    Raises:
        ValueError: A file cannot be read, masks or images do not fit the clip, or masks are missing.
        FileNotFoundError: The clip does not exist.
    """
    clip = read_video(path)
    count = settings.num_frames or len(clip.frames)
    if len(clip.frames) < count:
        raise ValueError(f"`num_frames` must be at most {len(clip.frames)}, the frames of {path}, got {count}.")
    if len(clip.frames) < 2:
        raise ValueError(f"{path}: must have at least 2 frames, got 1; use `landscape-video animate` for an image.")
    frames, shares = clip.frames[:count], None
    if masks and settings.segmenter is not None:
        raise ValueError("give either `masks` or `segmenter`, not both.")
    if masks:
        shares = read_masks(masks, objects)
        check_masks(shares, *clip.frames.shape[:3])
        shares = shares[:, :count]
    elif settings.fuse and settings.segmenter is None:
        raise ValueError("`masks` must be given to fuse backgrounds; or switch the fusion off with --no-fuse.")
    images = None if settings.condition_video is None else read_condition(settings.condition_video, count)
    prompts = parse_prompts(settings.points or (), settings.boxes or ())
    for prompt in prompts:
        check_inside(prompt, *frames.shape[1:3])
    return ConsistentInputs(path, frames, clip.fps, shares, images, prompts)


def check_inside(prompt: ObjectPrompt, height: int, width: int) -> None:
    """Raise a `ValueError` unless a prompt of a segmenter is inside of frames of this size."""
    option = "points" if prompt.box is None else "boxes"
    for x, y in prompt.points if prompt.box is None else (prompt.box[:2], prompt.box[2:]):
        if not (0 <= x <= width and 0 <= y <= height):
            raise ValueError(f"`{option}` must be inside of the clip, {width} x {height} pixels, got {x:g},{y:g}.")
