# Copied from pipeline_landscape_video/landscape_windows.py by vendor.py. Change the source instead.
"""
Plan overlapping windows along one axis of the latents, and average the predictions of all windows.

A model that was trained on 16 frames samples a clip of any length in windows of 16 (the inter-frame consistency module
of Consistency tuning, which is Gen-L-Video's temporal co-denoising). The axis may also be a side of a large image.

Where two windows meet, a seam appears. If the windows move in every step, no place is at the border of a window twice
in a row, which removes seams better than a longer overlap or other weights (`docs/long_video.md`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral

import torch


CONTEXT_SCHEDULES = ("moved", "static")
CONTEXT_WEIGHTS = ("pyramid", "flat")


@dataclass(frozen=True)
class WindowPlan:
    """
    The windows of every step along an axis. They depend on the step alone, so inversion and sampling can share them.

    Args:
        length: Positions along the axis, such as frames.
        window: Positions per window.
        overlap: Positions that two neighboring windows share at least.
        schedule: `"moved"` moves the starts in every step, `"static"` keeps them.
        closed_loop: Whether the last position is a neighbor of the first one.

    Raises:
        ValueError: An argument is out of its range; the message names the pipeline's argument.
    """

    length: int
    window: int = 16
    overlap: int = 4
    schedule: str = "moved"
    closed_loop: bool = False

    def __post_init__(self) -> None:
        for name, number, least in (("context_length", self.window, 1), ("context_overlap", self.overlap, 0)):
            if not isinstance(number, Integral) or number < least:
                raise ValueError(f"`{name}` must be a whole number of at least {least}, got {number}.")
        if self.overlap >= self.window:
            raise ValueError(
                f"`context_overlap` must be smaller than `context_length`, {self.window}, got {self.overlap}."
            )
        if self.schedule not in CONTEXT_SCHEDULES:
            allowed = ", ".join(CONTEXT_SCHEDULES)
            raise ValueError(f"`context_schedule` must be one of {allowed}, got {self.schedule!r}.")

    @property
    def size(self) -> int:
        """Positions in each window: `window`, or all of a shorter axis."""
        return min(self.length, self.window)

    @property
    def stride(self) -> int:
        """Distance between the starts of neighboring windows away from the ends."""
        return max(1, self.size - self.overlap)

    @property
    def is_plain(self) -> bool:
        """Whether there is one window, the whole axis: sampling without windows."""
        return self.length <= self.window and not self.closed_loop

    def offset(self, step: int) -> int:
        """Return how far the starts have moved at a step, from 0 to `stride - 1`."""
        if self.schedule == "static":
            return 0
        # A leap near the golden section of the stride spreads the offsets of few steps evenly. A leap prime to the
        # stride visits every offset.
        leaps = [leap for leap in range(1, self.stride + 1) if math.gcd(leap, self.stride) == 1]
        return step * min(leaps, key=lambda leap: abs(leap - 0.618 * self.stride)) % self.stride

    def windows(self, step: int) -> list[list[int]]:
        """
        Consistency tuning Eq. 18: return the positions of each window at a step.

        The first and the last window end at the ends of the axis, so no position is dropped. In a closed loop, windows
        continue from the last position to the first one.
        """
        if self.closed_loop:
            count = -(-self.length // self.stride)  # rounded up
            starts = [self.offset(step) + index * self.length // count for index in range(count)]
        else:
            last = self.length - self.size
            starts = sorted({0, *range(self.offset(step), last, self.stride), last})
        return [[(start + index) % self.length for index in range(self.size)] for start in starts]


def window_weights(
    weights: str | Sequence[float] | torch.Tensor, plan: WindowPlan, latents: torch.Tensor, dim: int = 2
) -> torch.Tensor:
    """
    Consistency tuning Eq. 19: return the weights W of a window in float32, with as many axes as `latents`.

    Args:
        weights: `"pyramid"`, which is 1, 2, ..., 2, 1; `"flat"`; a number for each position of a window; or for each
            pixel of each frame, `(frames, 1, height, width)`.
        plan: Plan of the windows.
        latents: Latents, `(batch, channels, num_frames, height, width)`.
        dim: Axis of the windows.

    Raises:
        ValueError: `weights` have another shape or are not all above 0.
    """
    check_weights(weights, plan, latents.shape, dim)
    if isinstance(weights, str):
        rising = range(1, plan.size + 1)
        weights = [min(pair) for pair in zip(rising, reversed(rising), strict=True)] if weights == "pyramid" else 1.0
    weights = torch.as_tensor(weights, dtype=torch.float32, device=latents.device)
    if weights.ndim == 4:
        return weights.transpose(0, 1)[None]
    shape = [1] * latents.ndim
    shape[dim] = plan.size
    return weights.expand(plan.size).reshape(shape)


def check_weights(
    weights: str | Sequence[float] | torch.Tensor, plan: WindowPlan, shape: Sequence[int], dim: int = 2
) -> None:
    """
    Check weights of windows, see `window_weights`, for latents of a shape.

    Raises:
        ValueError: `weights` have another shape or are not all above 0.
    """
    if isinstance(weights, str):
        if weights not in CONTEXT_WEIGHTS:
            raise ValueError(f"`context_weights` must be one of {', '.join(CONTEXT_WEIGHTS)}, got {weights!r}.")
        return
    weights = torch.as_tensor(weights, dtype=torch.float32)
    allowed = {(plan.size,), (plan.size, 1, *shape[3:])} if dim == 2 else {(plan.size,)}
    if tuple(weights.shape) not in allowed:
        words = " or ".join(map(str, sorted(allowed)))
        raise ValueError(f"`context_weights` must have the shape {words}, got {tuple(weights.shape)}.")
    if not (weights.isfinite() & (weights > 0)).all():
        raise ValueError("`context_weights` must be finite and above 0, or a frame could have no prediction.")
