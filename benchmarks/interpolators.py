"""Interpolation methods that the SOFP benchmark compares: each makes the middle frames of a clip from the others.

Frames are `(num_frames, 3, height, width)` in [0, 1]; N frames give N - 1 middle frames.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from assets import ASSETS
from landscape_video.files import hash_chunks
from pipeline_landscape_video import SOFP_MODES, interpolate_frames
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator, FlowEstimator, load_flow_estimator
from rife import RIFE


Interpolator = Callable[[Tensor], Tensor]
PAIRS = 4  # pairs of frames that RIFE takes at once


def repeat(frames: Tensor) -> Tensor:
    """Repeat the frame before."""
    return frames[:-1]


def average(frames: Tensor) -> Tensor:
    """Average both neighbors."""
    return (frames[:-1] + frames[1:]) / 2


def sofp(flow_estimator: FlowEstimator, sofp_mode: str, **settings: int) -> Interpolator:
    """SOFP with a flow estimator."""
    return lambda frames: interpolate_frames(frames, flow_estimator, sofp_mode, **settings)[1::2]


def farneback_flow(frames_a: Tensor, frames_b: Tensor) -> Tensor:
    """OpenCV's Farneback flow. Window 15 and polynomials over 7 pixels were best on the tuning clips."""
    flows = [
        cv2.calcOpticalFlowFarneback(
            gray_a, gray_b, None, pyr_scale=0.5, levels=5, winsize=15, iterations=3, poly_n=7, poly_sigma=1.5, flags=0
        )
        for gray_a, gray_b in zip(_gray(frames_a), _gray(frames_b), strict=True)
    ]
    return torch.from_numpy(np.stack(flows)).movedim(-1, 1)


class CachedFlow:
    """A flow estimator that remembers flows, because several methods need those of the same pairs of frames."""

    def __init__(self, flow_estimator: FlowEstimator) -> None:
        self.flow_estimator = flow_estimator
        self.flows: dict[tuple[str, str], Tensor] = {}

    def __call__(self, frames_a: Tensor, frames_b: Tensor) -> Tensor:
        keys = list(zip(map(_digest, frames_a), map(_digest, frames_b), strict=True))
        new = [i for i, key in enumerate(keys) if key not in self.flows]
        if new:
            estimated = self.flow_estimator(frames_a[new], frames_b[new])
            self.flows.update(zip([keys[i] for i in new], estimated, strict=True))
        return torch.stack([self.flows[key] for key in keys])

    def forget(self) -> None:
        """Drop all flows."""
        self.flows.clear()


def rife() -> Interpolator:
    """RIFE, on a few pairs at a time."""
    model = RIFE().eval()
    model.load_state_dict(load_file(ASSETS / "rife.safetensors"))

    def interpolate(frames: Tensor) -> Tensor:
        pairs = zip(frames[:-1].split(PAIRS), frames[1:].split(PAIRS), strict=True)
        return torch.cat([model(*pair) for pair in pairs])

    return interpolate


class Comparison:
    """All methods. SOFP with a trained RAFT is slow on a CPU, so it runs on a few clips only.

    Farneback's flow goes through the same warping as ours, at even speed.
    """

    def __init__(self, with_raft: bool) -> None:
        self.dis, self.raft = CachedFlow(DISFlowEstimator()), None
        self.methods: dict[str, Interpolator] = {
            "repeat": repeat,
            "average": average,
            "farneback": sofp(farneback_flow, "linear"),
            "rife": rife(),
            **{f"sofp_{mode}": sofp(self.dis, mode) for mode in SOFP_MODES},
        }
        if with_raft:
            self.raft = CachedFlow(load_flow_estimator("raft", ASSETS / "raft_large_wind.safetensors"))

    def __call__(self, frames: Tensor, with_raft: bool) -> dict[str, Tensor]:
        """Compute the middle frames of each method."""
        middles = {name: method(frames) for name, method in self.methods.items()}
        self.dis.forget()
        if with_raft:
            middles |= {f"raft_{mode}": sofp(self.raft, mode)(frames) for mode in ("linear", "quadratic")}
            self.raft.forget()
        return middles


def _digest(frame: Tensor) -> str:
    return hash_chunks([frame.numpy().tobytes()])


def _gray(frames: Tensor) -> list[np.ndarray]:
    pixels = (frames.movedim(1, -1) * 255).round().to(torch.uint8).numpy()
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pixels]
