"""Depth of clips, from files, a transformers model or the bundled depth model, normalized per clip."""

import torch


FLAT = 1e-6  # range below which a depth map contains no depth


def normalize_depth(depth: torch.Tensor) -> torch.Tensor:
    """Scale inverse depth to [-1, 1] over a whole clip: -1 is the farthest, 1 the nearest point in it.

    Scaling each frame by itself would change the depth of a still background as soon as an object comes near.

    Args:
        depth: (frames, 1, height, width), larger is nearer.

    Returns:
        float32, of the same shape; 0 where the whole clip has the same depth.
    """
    depth = depth.float()
    low, high = depth.min(), depth.max()
    if high - low <= FLAT * max(1.0, float(high.abs())):
        return torch.zeros_like(depth)
    return 2 * (depth - low) / (high - low) - 1
