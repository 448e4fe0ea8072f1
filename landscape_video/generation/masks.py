"""Read the masks of a clip's objects from arrays, folders of images and videos."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F


ARRAYS = (".npy", ".npz")


def read_masks(sources: Sequence[str | Path], objects: Sequence[str] = ()) -> np.ndarray:
    """Read masks, and return the share of each pixel that an object covers, (objects, num_frames, height, width).

    Args:
        sources: One or more sources of objects. A `.npy` or `.npz` file holds arrays (num_frames, height, width), or
            (objects, num_frames, height, width): bool, uint8 from 0 to 255, or float from 0 to 1. A video, or a folder
            of images `frame_0000.png`, ..., holds one object, white on black.
        objects: Names of the arrays of an `.npz` file to use, as those of `render.py --masks`; all if empty.

    Raises:
        ValueError: A source is missing, unreadable, or differs from the others in size or number of frames.
    """
    masks: list[np.ndarray] = []
    for source in map(Path, sources):
        for mask in _read_arrays(source, objects) if source.suffix in ARRAYS else [_read_frames(source)]:
            if masks and mask.shape != masks[0].shape:
                raise ValueError(
                    f"`masks` must agree in frames and size, got {describe(masks[0])}, and {describe(mask)} in"
                    f" {source}; use masks of the same clip."
                )
            masks.append(mask)
    return np.stack(masks)


def describe(mask: np.ndarray) -> str:
    """Return the shape of a mask or clip, (num_frames, height, width, ...), in words."""
    return f"{mask.shape[0]} frames of {mask.shape[2]} x {mask.shape[1]}"


def check_masks(masks: np.ndarray, num_frames: int, height: int, width: int) -> None:
    """Raise a `ValueError` unless masks, (objects, num_frames, height, width), are those of such a clip."""
    if masks.shape[1:] != (num_frames, height, width):
        raise ValueError(
            f"`masks` must have {num_frames} frames of {width} x {height}, as the clip has, got"
            f" {describe(masks[0])}; make them from this clip."
        )


def background_of(masks: torch.Tensor) -> torch.Tensor:
    """Return the complement of all objects, (num_frames, 1, height, width) float32 in [0, 1]."""
    covered = masks.sum(dim=0).clamp(max=1)
    return (1 - covered).float()[:, None]


def shrink_mask(mask: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the shares of the pixels of latents of this size, which are areas of the mask (num_frames, 1, ...)."""
    return F.adaptive_avg_pool2d(mask, (height, width))


def _read_arrays(source: Path, objects: Sequence[str]) -> list[np.ndarray]:
    if not source.is_file():
        raise ValueError(f"`masks` must be existing files or folders, got {source}.")
    try:
        loaded = np.load(source, allow_pickle=False)
        arrays = {"": loaded} if isinstance(loaded, np.ndarray) else {name: loaded[name] for name in loaded.files}
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"`masks` must be NumPy arrays, got {source}: {error}") from error
    if objects and source.suffix == ".npz":
        if missing := [name for name in objects if name not in arrays]:
            raise ValueError(f"`objects` must be among {', '.join(arrays)} in {source}, got {missing[0]}.")
        arrays = {name: arrays[name] for name in objects}
    return [_as_shares(mask, source) for array in arrays.values() for mask in (array if array.ndim == 4 else [array])]


def _as_shares(mask: np.ndarray, source: Path) -> np.ndarray:
    """Return float32 shares in [0, 1] of a bool, uint8 or float array (num_frames, height, width)."""
    if mask.ndim != 3 or mask.dtype.kind not in "bufi":
        raise ValueError(f"`masks` must be arrays (num_frames, height, width), got {mask.shape} in {source}.")
    shares = mask.astype(np.float32) / (255 if mask.dtype == np.uint8 and mask.max(initial=0) > 1 else 1)
    if not (np.isfinite(shares).all() and shares.min() >= 0 and shares.max() <= 1):
        raise ValueError(f"`masks` must be from 0 to 1, or uint8 from 0 to 255, got other values in {source}.")
    return shares


def _read_frames(source: Path) -> np.ndarray:
    from pipeline_landscape_video.video_io import read_video

    try:
        frames = read_video(source).frames
    except (ValueError, OSError) as error:
        raise ValueError(f"`masks` must be a video, a folder of frame_0000.png, ..., or arrays: {error}") from error
    return frames.mean(axis=-1, dtype=np.float32) / 255
