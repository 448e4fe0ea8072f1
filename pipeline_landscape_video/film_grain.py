"""Keep film grain in interpolated frames. Not part of the Hub's code.

Grain is new in each frame. Where two frames are warped and blended, theirs averages out, so that every second frame
looks softer. The grain that is missing is added here, with the spectrum and the local strength that it has in the two
frames.
"""

import math

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .landscape_warping import BAND_ROWS, Blend, FlowWarper, blur, enlarge_rows, reached_rows, sample_along


DETAIL_SIGMA = 2.5  # pixels; fine detail is what a Gaussian of this size removes
LOCAL_SIGMA = 12.0  # pixels over which the strength of grain is measured
BLOCK = 16  # pixels; grain is in nearly all blocks, errors of the flow are in some
LEAST_GRAIN = (0.4 / 255, 0.7 / 255)  # standard deviation in gray from which grain is kept partly, and fully
LEAST_DETAIL = 0.7  # levels of 255; standard deviation of fine detail from which an image looks grainy
LARGEST_SHARE = 1.5  # of the strength in most blocks: what exceeds it is an error of the flow
LARGEST_VALUE = 3.0  # standard deviations of grain
SHIFT = 0.382  # fraction of the size; far enough that added grain and grain below it are independent
MARGIN = 16  # rows around a band, so that its edges do not show
_EPS = 1e-12


def looks_grainy(pixels: np.ndarray) -> bool:
    """Whether an image, (height, width, 3) uint8, has fine detail nearly everywhere, as grain and noise are.

    Fine texture may look like grain. So this only decides how carefully a video is encoded.
    """
    gray = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32)
    energy = (gray - cv2.GaussianBlur(gray, (0, 0), 1)) ** 2
    height, width = (max(1, side // BLOCK) for side in gray.shape)
    blocks = cv2.resize(energy, (width, height), interpolation=cv2.INTER_AREA)
    return bool(np.quantile(blocks, 0.25) >= LEAST_DETAIL**2)


class GrainKeepingWarper(FlowWarper):
    """`FlowWarper` that gives the frames between two grainy frames the same strength of grain.

    Frames without grain are as `FlowWarper` makes them. Large ones get their grain in bands, which bounds memory.
    """

    def prepare(self, frames_a: Tensor, frames_b: Tensor, forward: Tensor, backward: Tensor) -> Blend:
        """Return frames between two frames, see `FlowWarper.prepare`."""
        blend = super().prepare(frames_a, frames_b, forward, backward)
        height = frames_a.shape[-2]
        step = height if frames_a.shape == forward.shape else BAND_ROWS
        bands = [(first, min(first + step, height)) for first in range(0, height, step)]
        pair = (frames_a, frames_b, forward)
        share = _share_of_grain(*pair, *bands[len(bands) // 2])
        if not share.any():
            return blend
        grain = _Grain(*pair, *bands[0]) if len(bands) == 1 else None

        def with_grain(displacement: Tensor, t: float) -> Tensor:
            frames = blend(displacement, t)
            for first, last in bands:
                above, below = max(0, first - MARGIN), min(height, last + MARGIN)
                of_band = grain or _Grain(*pair, above, below)
                added = share * of_band.missing(frames[..., above:below, :].float(), t)
                frames[..., first:last, :] += added[..., first - above : last - above, :]
            return frames

        return with_grain


class _Grain:
    """Grain of rows `first` to `last` (exclusive) of pairs of frames; see `FlowWarper.prepare` for these."""

    def __init__(self, frames_a: Tensor, frames_b: Tensor, forward: Tensor, first: int, last: int) -> None:
        unmatched, consistency = _unmatched_detail(frames_a, frames_b, forward, first, last)
        energy = local_energy(unmatched)
        _, usual = _measure_blocks(unmatched, consistency)
        self.largest_energy = torch.minimum(energy / 2, LARGEST_SHARE**2 * usual)
        self.pattern = (unmatched / (energy + _EPS).sqrt()).clamp(-LARGEST_VALUE, LARGEST_VALUE)
        self.energies = [
            local_energy(fine_detail(frames[..., first:last, :].float())) for frames in (frames_a, frames_b)
        ]

    def missing(self, frames: Tensor, t: float) -> Tensor:
        """Return the grain that the rows of the frames at time t lack, `(pairs, 3, rows, width)`."""
        energy = torch.lerp(*self.energies, t) - local_energy(fine_detail(frames))
        shifts = [round(SHIFT * (1 + t) * size) for size in frames.shape[-2:]]
        return torch.minimum(energy.clamp_min(0), self.largest_energy).sqrt() * self.pattern.roll(shifts, (-2, -1))


def _share_of_grain(frames_a: Tensor, frames_b: Tensor, forward: Tensor, first: int, last: int) -> Tensor:
    """Return 0 for pairs without grain in some rows to 1 for grainy ones, `(pairs, 1, 1, 1)`."""
    gray = [frames.mean(1, keepdim=True) for frames in (frames_a, frames_b)]
    least, _ = _measure_blocks(*_unmatched_detail(*gray, forward, first, last))
    return ((least.sqrt() - LEAST_GRAIN[0]) / (LEAST_GRAIN[1] - LEAST_GRAIN[0])).clamp(0, 1)


def fine_detail(frames: Tensor) -> Tensor:
    """Return what a Gaussian of `DETAIL_SIGMA` pixels removes from frames, `(pairs, 3, height, width)`."""
    pairs, channels, height, width = frames.shape
    flat = frames.reshape(pairs * channels, 1, height, width)
    padding = min(8, height - 1, width - 1)
    coarse = blur(F.pad(flat, [padding] * 4, mode="replicate"), DETAIL_SIGMA)
    coarse = coarse[..., padding : padding + height, padding : padding + width]
    return frames - coarse.reshape(frames.shape)


def local_energy(detail: Tensor) -> Tensor:
    """Return the mean square of `fine_detail` around each pixel, `(pairs, 1, height, width)`."""
    ones = torch.ones_like(detail[:1, :1])
    return blur(detail.square().mean(1, keepdim=True), LOCAL_SIGMA) / blur(ones, LOCAL_SIGMA)


def _unmatched_detail(
    frames_a: Tensor, frames_b: Tensor, forward: Tensor, first: int, last: int
) -> tuple[Tensor, Tensor]:
    """Return the fine detail of rows of the first frames that the second ones do not have, and its consistency."""
    width = frames_a.shape[-1]
    flow, consistency = enlarge_rows(forward, first, last, width).split([2, 1], dim=1)
    flow = flow * math.ceil(width / forward.shape[-1])
    part_b, first_b = reached_rows(frames_b, flow[:, 1], first)
    warped = sample_along(part_b, flow, "bicubic", first - first_b)
    return fine_detail(frames_a[..., first:last, :].float() - warped), consistency


def _measure_blocks(unmatched: Tensor, consistency: Tensor) -> tuple[Tensor, Tensor]:
    """
    Measure the strength of grain, which is in both frames of a pair, in blocks that flow explains.

    Returns:
        Mean square of the grain that three of four blocks exceed, and that one of four exceeds, `(pairs, 1, 1, 1)`.
    """
    size = [min(BLOCK, length) for length in unmatched.shape[-2:]]
    blocks = F.avg_pool2d(unmatched.square().mean(1, keepdim=True) / 2, size).flatten(1)
    is_known = F.avg_pool2d(consistency, size).flatten(1) > 0.5
    known = [row[mask] if mask.any() else torch.zeros_like(row) for row, mask in zip(blocks, is_known, strict=True)]
    return tuple(torch.stack([row.quantile(q) for row in known]).view(-1, 1, 1, 1) for q in (0.25, 0.75))
