"""What the SOFP benchmark compares: every method makes the middle frames of a clip from its other frames.

Frames are `(num_frames, 3, height, width)` in [0, 1]; N of them give N - 1 middle frames.
"""

from collections.abc import Callable

import cv2
import numpy as np
import torch
from assets import ASSETS
from rife import RIFE
from safetensors.torch import load_file
from torch import Tensor

from pipeline_landscape_video.landscape_flow_interpolation import SOFP_MODES, interpolate_frames
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator, FlowEstimator, load_flow_estimator


Interpolator = Callable[[Tensor], Tensor]


def repeat(frames: Tensor) -> Tensor:
    return frames[:-1]


def average(frames: Tensor) -> Tensor:
    return (frames[:-1] + frames[1:]) / 2


def sofp(flow_estimator: FlowEstimator, sofp_mode: str) -> Interpolator:
    return lambda frames: interpolate_frames(frames, flow_estimator, sofp_mode)[1::2]


def farneback_flow(frames_a: Tensor, frames_b: Tensor) -> Tensor:
    """OpenCV's Farneback flow; window 15 and polynomials over 7 pixels did best of those tried on tuning clips."""
    flows = [
        cv2.calcOpticalFlowFarneback(
            grey_a, grey_b, None, pyr_scale=0.5, levels=5, winsize=15, iterations=3, poly_n=7, poly_sigma=1.5, flags=0
        )
        for grey_a, grey_b in zip(_grey(frames_a), _grey(frames_b), strict=True)
    ]
    return torch.from_numpy(np.stack(flows)).movedim(-1, 1)


class Remembered:
    """A flow estimator that the three modes ask the same: it answers a repeated question from memory."""

    def __init__(self, flow_estimator: FlowEstimator) -> None:
        self.flow_estimator = flow_estimator
        self.asked: tuple[Tensor, Tensor] | None = None
        self.flow: Tensor | None = None

    def __call__(self, frames_a: Tensor, frames_b: Tensor) -> Tensor:
        if self.asked is None or not all(map(torch.equal, self.asked, (frames_a, frames_b))):
            self.asked, self.flow = (frames_a, frames_b), self.flow_estimator(frames_a, frames_b)
        return self.flow


class LearnedInterpolator:
    """RIFE on a few pairs at a time."""

    def __init__(self) -> None:
        self.model = RIFE().eval()
        self.model.load_state_dict(load_file(ASSETS / "rife.safetensors"))

    def __call__(self, frames: Tensor) -> Tensor:
        pairs = zip(frames[:-1].split(4), frames[1:].split(4), strict=True)
        return torch.cat([self.model(frames_a, frames_b) for frames_a, frames_b in pairs])


def interpolators() -> dict[str, Interpolator]:
    """The methods that run on every clip. Farneback's flow goes through the same warping as ours, at even speed."""
    dis = Remembered(DISFlowEstimator())
    return {
        "repeat": repeat,
        "average": average,
        "farneback": sofp(farneback_flow, "linear"),
        "rife": LearnedInterpolator(),
        **{f"sofp_{mode}": sofp(dis, mode) for mode in SOFP_MODES},
    }


def raft_interpolators() -> dict[str, Interpolator]:
    """SOFP with a trained RAFT, for a few clips: it takes half a minute a clip on a CPU core."""
    raft = Remembered(load_flow_estimator("raft", ASSETS / "raft_large_wind.safetensors"))
    return {f"raft_{mode}": sofp(raft, mode) for mode in ("quadratic", "linear")}


def _grey(frames: Tensor) -> list[np.ndarray]:
    pixels = (frames.movedim(1, -1) * 255).round().to(torch.uint8).numpy()
    return [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in pixels]
