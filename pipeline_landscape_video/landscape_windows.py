"""
Plan overlapping windows along one axis of the latents, and average the predictions of all windows.

A model that was trained on 16 frames samples a clip of any length in windows of 16 (the inter-frame consistency module
of Consistency tuning, which is Gen-L-Video's temporal co-denoising). The axis may also be a side of a large image.

Where two windows meet, a seam appears. If the windows move in every step, no place is at the border of a window twice
in a row, which removes seams better than a longer overlap or other weights (`docs/long_video.md`).
"""

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral

import torch
from diffusers import AnimateDiffPipeline


logger = logging.getLogger(__name__)

CONTEXT_SCHEDULES = ("moved", "static")
CONTEXT_WEIGHTS = ("pyramid", "flat")

NoisePredictor = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]  # as in landscape_denoising.py


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


def window_weights(plan: WindowPlan, shape: Sequence[int], dim: int = 2) -> torch.Tensor:
    """
    Consistency tuning Eq. 19: return the weights W of a window in float32, with as many axes as the latents.

    Args:
        plan: Plan of the windows.
        shape: Shape of the latents, such as `(batch, channels, num_frames, height, width)`.
        dim: Axis of the windows.

    Raises:
        ValueError: `plan.weights` is not one of `CONTEXT_WEIGHTS`, has another shape, or is not above 0 everywhere.
    """
    weights, rising = plan.weights, range(1, plan.size + 1)
    if isinstance(weights, str):
        if weights not in CONTEXT_WEIGHTS:
            raise ValueError(f"`context_weights` must be one of {', '.join(CONTEXT_WEIGHTS)}, got {weights!r}.")
        weights = [min(pair) if weights == "pyramid" else 1 for pair in zip(rising, reversed(rising), strict=True)]
    weights = torch.as_tensor(weights, dtype=torch.float32)
    allowed = [(plan.size,), (plan.size, 1, *shape[3:])][: 2 if dim == 2 else 1]
    if tuple(weights.shape) not in allowed:
        words = " or ".join(map(str, allowed))
        raise ValueError(f"`context_weights` must have the shape {words}, got {tuple(weights.shape)}.")
    if not (weights.isfinite() & (weights > 0)).all():
        raise ValueError("`context_weights` must be finite and above 0, so that each frame has a prediction.")
    if weights.ndim > 1:
        return weights.transpose(0, 1)[None]
    return weights.reshape([plan.size if axis == dim else 1 for axis in range(len(shape))])


def average_windows(
    plan: WindowPlan, predictor_for: Callable[[list[int]], NoisePredictor], dim: int = 2
) -> NoisePredictor:
    """
    Consistency tuning Eqs. 17-19: return a predictor that averages the predictions of all windows.

    The scheduler takes one step with the average, and its noise is that of the whole clip. For DDIM without noise and
    with flat weights, this equals the average of a step per window, as in Gen-L-Video.

    Args:
        plan: Plan of the windows.
        predictor_for: Function from the positions of a window to the predictor of (guided) noise for these positions.
        dim: Axis of the windows: 2 for frames.

    Returns:
        Predictor for latents whose axis `dim` is `plan.length` long; memory does not grow with it.
    """
    if plan.is_plain:
        return predictor_for(list(range(plan.length)))

    def predict_noise(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        weight = window_weights(plan, latents.shape, dim).to(latents.device)
        total = torch.zeros_like(latents, dtype=torch.float32)
        norm = torch.zeros_like(total[:1, :1])
        for positions in plan.windows(step):
            index = torch.tensor(positions, device=latents.device)
            noise_pred = predictor_for(positions)(latents.index_select(dim, index), timestep, step)
            total.index_add_(dim, index, noise_pred.float() * weight)
            norm.index_add_(dim, index, weight.expand(*norm.shape[:dim], plan.size, *norm.shape[dim + 1 :]))
        return (total / norm).to(latents.dtype)

    return predict_noise


def plan_windows(
    pipe: AnimateDiffPipeline,
    shape: Sequence[int],
    context_length: int | None = None,
    context_overlap: int | None = None,
    context_schedule: str = "moved",
    context_weights: str | Sequence[float] | torch.Tensor = "pyramid",
    closed_loop: bool = False,
) -> WindowPlan:
    """
    Return the plan of a pipeline's call, and log it if there are several windows.

    Args:
        pipe: Pipeline with `max_num_frames`. With FreeNoise, attention has windows of its own, and the plan has one.
        shape: Shape of the latents, `(batch, channels, num_frames, height, width)`.
        context_length: Frames per window; `None`: 16, or `max_num_frames` if it is less.
        context_overlap: Frames that neighboring windows share; `None`: a quarter of `context_length`.
        context_schedule: One of `CONTEXT_SCHEDULES`.
        context_weights: Weights of a window's frames, see `WindowPlan`.
        closed_loop: Whether the first frame follows the last one.

    Raises:
        ValueError: An argument is out of its range, the motion modules have fewer positions than a window has frames,
            or FreeNoise does not allow it.
    """
    limit, num_frames = pipe.max_num_frames, shape[2]
    if pipe.free_noise_enabled:
        if closed_loop:
            raise ValueError("`closed_loop` must be False with FreeNoise; call `pipe.disable_free_noise()`.")
        length = pipe._free_noise_context_length
        if num_frames < length:
            raise ValueError(
                f"`num_frames` must be at least {length}, FreeNoise's `context_length`, got {num_frames}; call"
                " `pipe.disable_free_noise()`."
            )
        plan = WindowPlan(num_frames, num_frames, overlap=0)
    else:
        length = min(16, limit) if context_length is None else context_length
        overlap = length // 4 if context_overlap is None else context_overlap
        plan = WindowPlan(num_frames, length, overlap, context_schedule, context_weights, closed_loop)
        length = plan.size
    if length > limit:
        raise ValueError(
            f"`context_length` must be at most {limit}, the positions of this motion adapter, got {length}."
        )
    if not plan.is_plain:
        window_weights(plan, shape)  # check them before the first step
        logger.info("%d frames are sampled in windows of %d frames, %s.", num_frames, plan.size, context_schedule)
    return plan
