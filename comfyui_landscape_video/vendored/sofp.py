# Copied from pipeline_landscape_video/landscape_sofp.py by vendor.py. Change the source instead.
"""
Place pixels in time between two frames: sparse optical flow projection (SOFP).

Liu et al., "NADM: Noise-Aware Diffusion Model for Landscape Painting Video Generation" (Eq. 14), and ConCLVD.

Let V1 be the flow of a pair, from its first frame to its second, and VT the flow from the first frame to another
frame T of the scene. The projection `D = <VT, V1> / |V1|^2` is the motion until T in units of V1. With n the time of
T in units of the pair's, motion along V1 with constant acceleration is at `x(0) = 0`, `x(1) = 1` and `x(n) = D`. At
time t between 0 and 1 the pixel has moved by the displacement

    x(t) = t + t (t - 1) c        with the curvature c = (D - n) / (n (n - 1)).

Two points differ from the papers, in which T is the last frame and VT the flow to it:

* Every frame in a window around the pair is a T, also those before it (n < 0), and c is their least-squares fit. With
  a single T, the last pair of a clip would have none (n = 1 determines nothing), and an error in VT would pass
  into c at full size.
* VT is chained from flows between neighbors. Estimators are reliable there, but often fail over a whole clip. Flows
  between neighbors are needed anyway: 2 (N - 1) for N frames. Estimating one VT per pair directly would take 3 N - 4.

For the first pair of three frames, both give the same c.

"Sparse" means that a pixel counts where forward and backward flow agree. Elsewhere c is 0.
"""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor


SOFP_MODES = ("quadratic", "projection", "linear")

# Fraction of the shorter side: 8 pixels of 256. Single pixels are too noisy to measure an acceleration.
_SMOOTHING_SIGMA = 8 / 256
_MIN_MOTION = 0.5  # pixels; the direction of shorter flow is noise
_EPS = 1e-6

Displacement = Callable[[float], Tensor]
"""Displacement of each pixel along V1, `(pairs, 1, height, width)`, by the time t between the frames of a pair."""


class SparseFlowProjection:
    """
    Compute displacements from flow, with an acceleration fitted to other frames of the scene.

    Args:
        sofp_mode: `"quadratic"` for the parabola `x(t)` above; `"projection"` for `t D / n` with T the last frame of
            the window, which is the paper taken literally; `"linear"` for t.

    Raises:
        ValueError: `sofp_mode` is not one of `SOFP_MODES`.
    """

    def __init__(self, sofp_mode: str = "quadratic") -> None:
        if sofp_mode not in SOFP_MODES:
            raise ValueError(f"`sofp_mode` must be one of {', '.join(SOFP_MODES)}, got {sofp_mode!r}.")
        self.sofp_mode = sofp_mode

    @property
    def uses_other_frames(self) -> bool:
        """Whether `fit` looks at frames outside the pair."""
        return self.sofp_mode != "linear"

    def fit(
        self,
        forward: Tensor,
        others: Iterable[tuple[Tensor, Tensor, Tensor]],
        smooth: Callable[[Tensor, float], Tensor],
    ) -> Displacement:
        """
        Fit the displacement of each pixel of the first frames of pairs.

        Args:
            forward: V1 and its consistency, `(pairs, 3, height, width)`: x and y in pixels, then 1 where it is valid.
            others: For each other frame T: n, `(pairs, 1, 1, 1)`; 1 where T is the last frame of the window, of the
                same shape; VT and its consistency, of the shape of `forward`.
            smooth: Function from a field, `(pairs, 1, height, width)`, and a sigma in pixels to the blurred field.
        """
        V1, consistency = forward[:, :2], forward[:, 2:]
        norm = V1.square().sum(1, keepdim=True)
        if not self.uses_other_frames:
            return lambda t: torch.full_like(norm, t)
        consistency = consistency * (norm > _MIN_MOTION**2)
        numerator, denominator = torch.zeros_like(norm), torch.zeros_like(norm)
        for n, is_last, to_other in others:
            weight = consistency * to_other[:, 2:]
            D_numerator, D_denominator = project_flow(to_other[:, :2], V1)
            # Least squares over all T, each weighted by |V1|^2: sum(g (D - n)) / sum(g^2), with g = n (n - 1).
            g = n * is_last if self.sofp_mode == "projection" else n * (n - 1)
            numerator += weight * g * (D_numerator - n * D_denominator)
            denominator += weight * g**2 * D_denominator
        sigma = _SMOOTHING_SIGMA * min(forward.shape[-2:])
        ratio = smooth(numerator, sigma) / (smooth(denominator, sigma) + _EPS)
        if self.sofp_mode == "projection":
            return lambda t: (t * (1 + ratio)).clamp(0, 1)  # g = n, so the ratio is D / n - 1
        curvature = ratio.clamp(-1, 1)  # beyond, a pixel would move backward at one end
        return lambda t: t + t * (t - 1) * curvature


def project_flow(VT: Tensor, V1: Tensor) -> tuple[Tensor, Tensor]:
    """
    NADM Eq. 14: numerator and denominator of `D = <VT, V1> / |V1|^2`.

    The caller sums both over pixels and frames before it divides: where |V1| is small, D itself is too noisy to be
    averaged.

    Args:
        VT: Flow to the frame T, `(pairs, 2, height, width)`.
        V1: Flow of the pair, of the same shape.

    Returns:
        Two tensors, `(pairs, 1, height, width)`.
    """
    return (VT * V1).sum(1, keepdim=True), V1.square().sum(1, keepdim=True)
