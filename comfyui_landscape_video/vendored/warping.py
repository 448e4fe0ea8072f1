# Copied from pipeline_landscape_video/landscape_warping.py by vendor.py. Change the source instead.
"""
Warp, splat and blend frames along optical flow.

Flow is splatted to the time between two frames, and both frames are sampled backward with it. Splatting the frames
themselves would blur them.

Misplaced pixels look worse than blended ones. So the result approaches the average of the two frames

* where forward and backward flow disagree and the flow explains a frame no better than no motion does;
* where no motion explains a frame better, as at a riverbank onto which the flow of the river is smeared;
* in regions that flow does not explain, as in rain.

"Flow with consistency" is a tensor `(pairs, 3, height, width)`: x and y in pixels, then 1 where the opposite flow
leads back, else 0.
"""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor


_MIN_MOTION = 0.5  # pixels; shorter flow counts as no motion
_ERROR_SIGMA = 2.0  # pixels over which a flow must explain a frame
_STATIC_SIGMA = 1.0  # pixels over which no motion must explain it: the width of a line
# Fractions of the shorter side. Places that moved farther look static by chance, or were uncovered and covered again.
_STATIC_RAMP = (1 / 32, 1 / 64)
_REGION_SIGMA = 32 / 256  # fraction of the shorter side; the size of a region that flow must explain
# A region is unreliable if flow leaves 0.35 to 0.5 of the change unexplained and 0.7 to 0.4 of it is consistent.
_UNEXPLAINED_RAMP, _CONSISTENT_RAMP = (0.35, 0.5), (0.7, 0.4)
_MIN_DIFFERENCE = 1e-5  # squared gray levels; smaller differences carry no information
_EPS = 1e-6
_MAX_FLOW_PIXELS = 2_400_000  # of frames at which flow is estimated at full size: 1080 lines, a little more for others
BAND_ROWS = 128  # rows of larger frames that are blended at once

Blend = Callable[[Tensor, float], Tensor]
"""Frames at time t by `(displacement, t)`, see `FlowWarper.prepare`."""


class FlowWarper:
    """The operations on images and flow that interpolation needs. It has no state."""

    def measure_consistency(self, flow: Tensor, opposite: Tensor) -> Tensor:
        """Return flow with consistency for two flows `(pairs, 2, height, width)` in opposite directions."""
        finite = (flow.isfinite() & opposite.isfinite()).all(1, keepdim=True)
        flow, opposite = torch.where(finite, flow, 0.0), torch.where(finite, opposite, 0.0)
        back = sample_along(opposite, flow, "bilinear")
        missed = (flow + back).square().sum(1, keepdim=True)
        lengths = (flow.square() + back.square()).sum(1, keepdim=True)
        # The criterion of Sundaram et al., "Dense Point Trajectories by GPU-Accelerated Large Displacement Optical
        # Flow", 2010.
        return torch.cat([flow, finite & (missed < 0.01 * lengths + 0.5)], dim=1)

    def chain(self, first: Tensor, second: Tensor) -> Tensor:
        """Return flow with consistency to a third frame: `second` is read where `first` leads."""
        second = sample_along(second, first[:, :2], "bilinear")
        return torch.cat([first[:, :2] + second[:, :2], first[:, 2:] * second[:, 2:]], dim=1)

    def blur(self, field: Tensor, sigma: float) -> Tensor:
        """Blur fields, `(pairs, 1, height, width)`, with a Gaussian of `sigma` pixels."""
        return blur(field, sigma)

    def reduction(self, height: int, width: int) -> int:
        """Return the factor by which frames of this size are reduced for flow, which bounds memory and time."""
        return max(1, math.ceil(math.sqrt(height * width / _MAX_FLOW_PIXELS)))

    def reduce(self, frame: Tensor) -> Tensor:
        """Return a frame, `(3, height, width)`, at the size at which flow is estimated; small ones as they are."""
        factor = self.reduction(*frame.shape[-2:])
        return frame if factor == 1 else F.avg_pool2d(frame.float(), factor, ceil_mode=True)

    def prepare(self, frames_a: Tensor, frames_b: Tensor, forward: Tensor, backward: Tensor) -> Blend:
        """
        Compute what the frames between two frames share.

        Args:
            frames_a: First frames, `(pairs, 3, height, width)` in [0, 1], float32 unless they are reduced for flow.
            frames_b: Second frames, of the same shape.
            forward: Flow with consistency from a to b, of the size that `reduce` returns.
            backward: Flow with consistency from b to a.

        Returns:
            Function from a displacement, `(pairs, 1, height, width)`, and a time t between 0 and 1 to the frames at
            that time. The displacement is the fraction of `forward` that each pixel of a has moved by then.
        """
        small_a, small_b = frames_a, frames_b
        if frames_a.shape[-2:] != forward.shape[-2:]:
            small_a, small_b = (torch.stack([*map(self.reduce, frames)]) for frames in (frames_a, frames_b))
        errors_a = _squared_errors(small_a, small_b, forward)
        errors_b = _squared_errors(small_b, small_a, backward)
        static_a, static_b = _static_weight(errors_a, forward), _static_weight(errors_b, backward)
        static_weight = torch.minimum(static_a, static_b)
        unreliable = torch.maximum(_unreliable(errors_a, forward), _unreliable(errors_b, backward))
        forward = torch.cat([forward, _photometric_error(errors_a, forward, static_a)], dim=1)
        backward = torch.cat([backward, _photometric_error(errors_b, backward, static_b)], dim=1)

        def blend(displacement: Tensor, t: float) -> Tensor:
            fields = _fields_at(forward, backward, static_weight, displacement, t)
            if small_a is frames_a:
                return _blend(frames_a, frames_b, fields, unreliable, t)
            return _blend_in_bands(frames_a, frames_b, torch.cat([*fields, unreliable], dim=1), t)

        return blend


# Warping


def _fields_at(
    forward: Tensor, backward: Tensor, static_weight: Tensor, displacement: Tensor, t: float
) -> tuple[Tensor, ...]:
    """
    Splat both flows to time t.

    Returns:
        Flows from there to both frames, `(pairs, 4, height, width)`; and the weights of the warped first frame, of the
        warped second one and of the unwarped average, `(pairs, 1, height, width)`.
    """
    forward, consistency_a, error_a = forward.split([2, 1, 1], dim=1)
    backward, consistency_b, error_b = backward.split([2, 1, 1], dim=1)
    # A pixel of b takes the displacement of the place it came from; that of its own would tear moving objects.
    displacement_b = sample_along(displacement, backward, "bilinear")
    to_both_a = torch.cat([-displacement * forward, (1 - displacement) * forward, error_a], dim=1)
    to_both_b = torch.cat([displacement_b * backward, (displacement_b - 1) * backward, error_b], dim=1)
    from_a, visible_in_a = splat(to_both_a, displacement * forward, consistency_a)
    from_b, visible_in_b = splat(to_both_b, (1 - displacement_b) * backward, consistency_b)
    flows = fill_holes(from_a + from_b)
    weight_a, weight_b = (1 - t) * visible_in_a, t * visible_in_b
    # The unwarped average takes over where neither frame sees the place, by half where inconsistent flow has a large
    # error, and almost entirely where a place is static.
    error_a, error_b = (sums[:, 4:5] / sums[:, 5:6].clamp_min(_EPS) for sums in (from_a, from_b))
    weight = 2 * (weight_a * error_a + weight_b * error_b) + 10 * static_weight + 1e-3
    return flows[:, :4], weight_a, weight_b, weight


def _blend(
    frames_a: Tensor,
    frames_b: Tensor,
    fields: tuple[Tensor, ...],
    unreliable: Tensor,
    t: float,
    rows: tuple[int, int, int] = (0, 0, 0),
) -> Tensor:
    """
    Sample both frames along their flows and blend them.

    Args:
        frames_a, frames_b: Both frames, or those of their rows that a band of the result needs.
        fields: Flows and weights, see `_fields_at`.
        unreliable: How far the result approaches the average of both frames, `(pairs, 1, height, width)`.
        t: Time between the frames.
        rows: First rows of the result, of `frames_a` and of `frames_b`.
    """
    flows, weight_a, weight_b, weight = fields
    first, first_a, first_b = rows
    warped_a = sample_along(frames_a, flows[:, :2], "bicubic", first - first_a)
    warped_b = sample_along(frames_b, flows[:, 2:], "bicubic", first - first_b)
    height = flows.shape[-2]
    here_a, here_b = frames_a[..., first - first_a :, :], frames_b[..., first - first_b :, :]
    unwarped = (1 - t) * here_a[..., :height, :] + t * here_b[..., :height, :]
    warped = (weight_a * warped_a + weight_b * warped_b + weight * unwarped) / (weight_a + weight_b + weight)
    return torch.lerp(warped, unwarped, 0.5 * unreliable)


def _blend_in_bands(frames_a: Tensor, frames_b: Tensor, fields: Tensor, t: float) -> Tensor:
    """`_blend` of frames that are larger than their fields, `(pairs, 8, ...)`, some rows at a time."""
    blended = torch.empty_like(frames_a)
    height, width = frames_a.shape[-2:]
    for first in range(0, height, BAND_ROWS):
        last = min(first + BAND_ROWS, height)
        flows, *weights, unreliable = enlarge_rows(fields, first, last, width).split([4, 1, 1, 1, 1], dim=1)
        flows = flows * math.ceil(width / fields.shape[-1])
        part_a, first_a = reached_rows(frames_a, flows[:, 1], first)
        part_b, first_b = reached_rows(frames_b, flows[:, 3], first)
        rows = (first, first_a, first_b)
        blended[..., first:last, :] = _blend(part_a, part_b, (flows, *weights), unreliable, t, rows)
    return blended


def enlarge_rows(fields: Tensor, first: int, last: int, width: int) -> Tensor:
    """Enlarge fields of reduced frames to rows `first` to `last` (exclusive) of the frames; values stay."""
    factor = math.ceil(width / fields.shape[-1])
    if factor == 1:
        return fields[..., first:last, :]
    above, below = max(first // factor - 1, 0), -(-last // factor) + 1
    band = F.interpolate(fields[..., above:below, :], scale_factor=factor, mode="bilinear", align_corners=False)
    return band[..., first - above * factor : last - above * factor, :width]


def reached_rows(frames: Tensor, vertical: Tensor, first: int) -> tuple[Tensor, int]:
    """Return the rows of frames that a vertical flow of rows from `first` on reaches, in float32, and their start."""
    height, last = frames.shape[-2], first + vertical.shape[-2]
    start = max(0, first + math.floor(min(0.0, vertical.min().item())) - 2)
    end = min(height, last + math.ceil(max(0.0, vertical.max().item())) + 2)
    return frames[..., start:end, :].float(), start


def splat(values: Tensor, flow: Tensor, consistency: Tensor) -> tuple[Tensor, Tensor]:
    """
    Move values along flow and add up what arrives at each pixel, with bilinear weights.

    A pixel that is about to be covered arrives at the same place as the object that covers it. The flow does not lead
    back to it, so it is inconsistent and gets little weight.

    Args:
        values: Values to move, `(pairs, channels, height, width)`.
        flow: Flow in pixels, `(pairs, 2, height, width)`.
        consistency: Weight of each pixel, `(pairs, 1, height, width)`.

    Returns:
        Weighted sums, `(pairs, channels + 1, height, width)`, with the sum of weights as the last channel; and the
        covered fraction of each pixel, `(pairs, 1, height, width)`, at most 1.
    """
    height, width = values.shape[-2:]
    weight = consistency + 1e-2
    carried = torch.cat([values * weight, weight, torch.ones_like(weight)], dim=1)
    carried = rearrange(carried, "n c h w -> n c (h w)")
    sums = torch.zeros_like(carried)
    target = _pixel_grid(flow) + flow
    corner = target.floor()
    fraction = target - corner
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = corner[:, 0] + dx, corner[:, 1] + dy
            inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
            weight = (1 - dx - fraction[:, 0]).abs() * (1 - dy - fraction[:, 1]).abs() * inside
            x, y = (
                x.clamp(0, width - 1).long(),
                y.clamp(0, height - 1).long(),
            )  # float32 cannot hold indices above 2**24
            pixel = y * width + x
            pixel = rearrange(pixel, "n h w -> n 1 (h w)").expand_as(carried)
            sums.scatter_add_(2, pixel, carried * rearrange(weight, "n h w -> n 1 (h w)"))
    sums = rearrange(sums, "n c (h w) -> n c h w", h=height)
    return sums[:, :-1], sums[:, -1:].clamp_max(1)


def fill_holes(sums: Tensor) -> Tensor:
    """Divide sums by their weights, the last channel. Pixels without weight take the mean of their surroundings."""
    if min(sums.shape[-2:]) > 1:
        coarse = fill_holes(F.avg_pool2d(sums, 2, ceil_mode=True))
        sums = sums + 1e-3 * F.interpolate(coarse, sums.shape[-2:], mode="bilinear", align_corners=False)
    return sums / sums[:, -1:].clamp_min(_EPS)


def sample_along(image: Tensor, flow: Tensor, mode: str, first_row: int = 0) -> Tensor:
    """
    Sample images at `p + flow(p)` for each pixel p, and at the border for positions outside.

    `flow` may have fewer rows than the images; its first row then belongs to their row `first_row`.
    """
    height, width = image.shape[-2:]
    last = torch.tensor([max(width - 1, 1), max(height - 1, 1)], device=flow.device).view(1, 2, 1, 1)
    grid = _pixel_grid(flow)
    if first_row:
        grid = grid + torch.tensor([0, first_row], device=flow.device).view(2, 1, 1)
    grid = rearrange(2 * (grid + flow) / last - 1, "n xy h w -> n h w xy")
    return F.grid_sample(image, grid, mode=mode, padding_mode="border", align_corners=True)


def _pixel_grid(flow: Tensor) -> Tensor:
    y, x = torch.meshgrid(*(torch.arange(size, device=flow.device) for size in flow.shape[-2:]), indexing="ij")
    return torch.stack([x, y]).to(flow.dtype)


# Reliability


def _squared_errors(frames: Tensor, others: Tensor, flow: Tensor) -> tuple[Tensor, Tensor]:
    """Return squared differences of `frames` from the other frames, warped and unwarped, `(pairs, 1, ...)` each."""
    warped = sample_along(others, flow[:, :2], "bilinear")
    return tuple((frames - other).square().mean(1, keepdim=True) for other in (warped, others))


def _photometric_error(errors: tuple[Tensor, Tensor], flow: Tensor, static_weight: Tensor) -> Tensor:
    """
    Return how badly inconsistent flow explains each pixel, from 0 to 1, and at least twice `static_weight`.

    0.5 means that flow explains the pixel no better than no motion does.
    """
    warped, unwarped = (blur(error, _ERROR_SIGMA) for error in errors)
    error = (1 - flow[:, 2:]) * _is_moving(flow) * warped / (warped + unwarped + _MIN_DIFFERENCE)
    return torch.maximum(error, 2 * static_weight)


def _static_weight(errors: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
    """Return how much better no motion explains a pixel than a small motion does, from 0 to 1."""
    warped, unwarped = (blur(error, _STATIC_SIGMA) for error in errors)
    length = flow[:, :2].square().sum(1, keepdim=True).sqrt() / min(flow.shape[-2:])
    better = (warped - unwarped).clamp_min(0) / (warped + unwarped + _MIN_DIFFERENCE)
    return better * _stays_inside(flow) * _ramp(length, *_STATIC_RAMP)


def _unreliable(errors: tuple[Tensor, Tensor], flow: Tensor) -> Tensor:
    """Return how far flow fails to explain the moving part of the region around each pixel, from 0 to 1."""
    sigma = _REGION_SIGMA * min(flow.shape[-2:])
    moves = _is_moving(flow) * _stays_inside(flow)
    fields = (*errors, flow[:, 2:], moves)
    warped, unwarped, consistent, moving = (blur(field * moves, sigma) for field in fields)
    unexplained = _ramp(warped / (unwarped + _MIN_DIFFERENCE), *_UNEXPLAINED_RAMP)
    return unexplained * _ramp(consistent / (moving + _EPS), *_CONSISTENT_RAMP)


def _is_moving(flow: Tensor) -> Tensor:
    return (flow[:, :2].square().sum(1, keepdim=True) > _MIN_MOTION**2).to(flow)


def _stays_inside(flow: Tensor) -> Tensor:
    height, width = flow.shape[-2:]
    x, y = (_pixel_grid(flow[:, :2]) + flow[:, :2]).split(1, dim=1)
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def _ramp(x: Tensor, start: float, end: float) -> Tensor:
    """Return 0 at `start` and before, 1 at `end` and beyond, linear between; `end` may be the smaller one."""
    return ((x - start) / (end - start)).clamp(0, 1)


def blur(field: Tensor, sigma: float) -> Tensor:
    """
    Blur fields, `(pairs, 1, height, width)`, with a Gaussian of `sigma` pixels.

    Wide Gaussians are computed on a coarser grid.
    """
    size = field.shape[-2:]
    coarser = max(1, int(sigma / 4))
    if coarser > 1:
        field = F.interpolate(field, [-(-length // coarser) for length in size], mode="area")
        sigma = sigma / coarser
    radius = max(1, round(3 * sigma))
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=field.device) / sigma) ** 2).to(field)
    kernel = kernel / kernel.sum()
    field = F.conv2d(field, kernel.view(1, 1, 1, -1), padding=(0, radius))
    field = F.conv2d(field, kernel.view(1, 1, -1, 1), padding=(radius, 0))
    return F.interpolate(field, size, mode="bilinear", align_corners=False) if coarser > 1 else field
