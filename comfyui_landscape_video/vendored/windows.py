# Copied from pipeline_landscape_video/landscape_windows.py by vendor.py. Change the source instead.
"""Plan overlapping windows along the frames of a clip (Consistency tuning Eq. 18)."""

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
        weights: Weights of a window's positions in the average over windows: `"pyramid"`, which is 1, 2, ..., 2, 1;
            `"flat"`; a number for each position; or for each pixel of each frame, `(frames, 1, height, width)`.
        closed_loop: Whether the last position is a neighbor of the first one.

    Raises:
        ValueError: An argument is out of its range; the message names the pipeline's argument.
    """

    length: int
    window: int = 16
    overlap: int = 4
    schedule: str = "moved"
    weights: str | Sequence[float] | torch.Tensor = "pyramid"
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
