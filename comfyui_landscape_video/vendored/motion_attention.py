# Copied from pipeline_landscape_video/landscape_motion_attention.py by vendor.py. Change the source instead.
"""Masks that define the modes of sparse-causal temporal attention (NADM Eqs. 6-8)."""

import torch


SPARSE_CAUSAL_MODES = ("previous", "current_previous", "first_previous", "full")


def sparse_causal_mask(mode: str, num_frames: int, device: torch.device | str | None = None) -> torch.Tensor:
    """
    Return the mask that defines a mode.

    Returns:
        Bool tensor, `(num_frames, num_frames)`, True where the frame of the row (query) sees the frame of the column
        (key). Every row has at least one True, so its softmax is finite.

    Raises:
        ValueError: `mode` is not one of `SPARSE_CAUSAL_MODES`.
    """
    check_sparse_causal_mode(mode)
    frames = torch.arange(num_frames, device=device)
    query, key = frames[:, None], frames[None, :]
    previous = key == (query - 1).clamp(min=0)
    if mode == "previous":
        return previous
    if mode == "current_previous":
        return previous | (key == query)
    if mode == "first_previous":
        return previous | (key == 0)
    return torch.ones_like(previous)


def check_sparse_causal_mode(mode: str) -> None:
    """
    Check a mode.

    Raises:
        ValueError: `mode` is not one of `SPARSE_CAUSAL_MODES`.
    """
    if mode not in SPARSE_CAUSAL_MODES:
        raise ValueError(f"`sparse_causal_mode` must be one of {', '.join(SPARSE_CAUSAL_MODES)}, got {mode!r}.")
