"""Make the images that ControlNet and T2I-Adapter see: from files, or from the clip itself."""

from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import torch

from landscape_video.generation.depth import load_depth
from pipeline_landscape_video.video_io import read_video


Detector = Literal["canny", "soft_edges", "depth"]

CANNY = (100, 200)  # thresholds of ControlNet's training images
SOFT_EDGES_SIGMA = 1.5  # pixels that soft edges are blurred by
BRIGHT = 0.995  # quantile of the edges of a clip that becomes white


def read_condition(path: str | Path, num_frames: int) -> np.ndarray:
    """Read the images of a condition, such as poses, from a video or a folder of frame_0000.png, ...

    Args:
        path: File or folder.
        num_frames: Number of frames needed; further ones are left out.

    Returns:
        uint8 (num_frames, height, width, 3).

    Raises:
        ValueError: The file is not a video, or too short.
    """
    try:
        frames = read_video(path).frames
    except (ValueError, OSError) as error:
        raise ValueError(f"`condition_video` must be a video or a folder of frame_0000.png, ...: {error}") from error
    if len(frames) < num_frames:
        raise ValueError(f"`condition_video` must have at least {num_frames} frames, as the clip, got {len(frames)}.")
    return frames[:num_frames]


def detect(
    detector: Detector,
    frames: np.ndarray,
    video: str | Path | None = None,
    depth: str | None = None,
    device: torch.device | str = "cpu",
) -> np.ndarray:
    """Make the images of a condition from a clip.

    Args:
        detector: "canny" for thin edges, "soft_edges" for the strength of gradients, "depth" for a depth map.
        frames: uint8 (num_frames, height, width, 3).
        video: File of the clip, beside which `render.py --depth` may have written the exact depth.
        depth: Source of depth, see `load_depth`.
        device: Device of a depth model.

    Returns:
        uint8 (num_frames, height, width, 3).
    """
    if detector == "depth":
        maps = (load_depth(depth, frames, video, device)[:, 0].numpy() + 1) * 127.5
    else:
        gray = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in frames]
        if detector == "canny":
            maps = np.stack([cv2.Canny(frame, *CANNY) for frame in gray])
        else:
            smooth = [cv2.GaussianBlur(frame.astype(np.float32), (0, 0), SOFT_EDGES_SIGMA) for frame in gray]
            maps = np.stack([np.hypot(cv2.Sobel(one, -1, 1, 0), cv2.Sobel(one, -1, 0, 1)) for one in smooth])
            # One scale for the clip: scaling each frame by itself flickers.
            maps = maps * (255 / max(float(np.quantile(maps, BRIGHT)), 1.0))
    images = np.clip(maps, 0, 255).round().astype(np.uint8)
    return np.repeat(images[..., None], 3, axis=-1)
