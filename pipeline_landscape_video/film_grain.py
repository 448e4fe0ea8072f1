"""Keep film grain in interpolated frames. Not part of the Hub's code.

Grain is new in each frame. Where two frames are warped and blended, theirs averages out, so that every second frame
looks softer. The grain that is missing is added here, with the spectrum and the local strength that it has in the two
frames.
"""

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .landscape_warping import Blend, FlowWarper, blur, sample_along


DETAIL_SIGMA = 2.5  # pixels; fine detail is what a Gaussian of this size removes
LOCAL_SIGMA = 12.0  # pixels over which the strength of grain is measured
BLOCK = 16  # pixels; grain is in nearly all blocks, errors of the flow are in some
LEAST_GRAIN = (0.4 / 255, 0.7 / 255)  # standard deviation in gray from which grain is kept partly, and fully
LEAST_DETAIL = 0.7  # levels of 255; standard deviation of fine detail from which an image looks grainy
LARGEST_SHARE = 1.5  # of the strength in most blocks: what exceeds it is an error of the flow
LARGEST_VALUE = 3.0  # standard deviations of grain
SHIFT = 0.382  # fraction of the size; far enough that added grain and grain below it are independent
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

    Frames without grain are as `FlowWarper` makes them.
    """

    def prepare(self, frames_a: Tensor, frames_b: Tensor, forward: Tensor, backward: Tensor) -> Blend:
        """Return frames between two frames, see `FlowWarper.prepare`."""
        blend = super().prepare(frames_a, frames_b, forward, backward)
        gray_a, gray_b = (frames.mean(1, keepdim=True) for frames in (frames_a, frames_b))
        least, _ = _measure_blocks(_unmatched_detail(gray_a, gray_b, forward), forward[:, 2:])
        share = ((least.sqrt() - LEAST_GRAIN[0]) / (LEAST_GRAIN[1] - LEAST_GRAIN[0])).clamp(0, 1)
        if not share.any():
            return blend
        unmatched = _unmatched_detail(frames_a, frames_b, forward)
        energy = local_energy(unmatched)
        _, usual = _measure_blocks(unmatched, forward[:, 2:])
        grain_energy = torch.minimum(energy / 2, LARGEST_SHARE**2 * usual)
        pattern = unmatched / (energy + _EPS).sqrt()
        pattern = pattern.clamp(-LARGEST_VALUE, LARGEST_VALUE)
        energy_a, energy_b = (local_energy(fine_detail(frames)) for frames in (frames_a, frames_b))

        def with_grain(displacement: Tensor, t: float) -> Tensor:
            frames = blend(displacement, t)
            missing = torch.lerp(energy_a, energy_b, t) - local_energy(fine_detail(frames))
            added = torch.minimum(missing.clamp_min(0), grain_energy) * share
            shifts = [round(SHIFT * (1 + t) * size) for size in frames.shape[-2:]]
            return frames + added.sqrt() * pattern.roll(shifts, (-2, -1))

        return with_grain


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


def _unmatched_detail(frames_a: Tensor, frames_b: Tensor, forward: Tensor) -> Tensor:
    """Return the fine detail of the first frames that the second ones do not have."""
    return fine_detail(frames_a - sample_along(frames_b, forward[:, :2], "bicubic"))


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
