"""Measure how much a clip moves and how much it flickers.

Optical flow is OpenCV's DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016), which needs no
weights. Clips are uint8 RGB, (num_frames, height, width, 3), of at least two frames. Lengths are in pixels, so compare
clips of the same size only.
"""

from dataclasses import dataclass

import cv2
import numpy as np


FASTEST_SHARE = 0.05  # of the pixels: the dynamic degree sees a small boat on a still lake


@dataclass(frozen=True)
class MotionMeasurements:
    """How much a clip moves and flickers.

    Args:
        dynamic_degree: Mean length of the fastest 5 % of the flow between consecutive frames, in pixels.
        magnitude: Mean length of the whole flow, in pixels.
        flicker: Mean absolute difference of consecutive frames, in gray levels out of 255.
        unexplained_flicker: The same after each frame was warped along the flow.
    """

    dynamic_degree: float
    magnitude: float
    flicker: float
    unexplained_flicker: float


def measure_flow(clip: np.ndarray) -> MotionMeasurements:
    """Measure motion and flicker of a clip."""
    flows = flows_back(clip)
    pairs = list(zip(clip, clip[1:], flows, strict=False))
    unexplained = [np.abs(warp(before, flow) - after.astype(np.float32)).mean() for before, after, flow in pairs]
    return MotionMeasurements(
        dynamic_degree=float(np.mean([_fastest(flow) for flow in flows])),
        magnitude=float(np.mean([np.hypot(flow[..., 0], flow[..., 1]).mean() for flow in flows])),
        flicker=float(np.mean([cv2.absdiff(before, after).mean() for before, after, _ in pairs])),
        unexplained_flicker=float(np.mean(unexplained)),
    )


def dynamic_degree(clip: np.ndarray) -> float:
    """Measure `MotionMeasurements.dynamic_degree` alone."""
    return float(np.mean([_fastest(flow) for flow in flows_back(clip)]))


def flows_back(clip: np.ndarray) -> list[np.ndarray]:
    """Flow from each frame back to the one before: warping needs to know where every pixel came from."""
    gray = to_gray(clip)
    return [flow_between(after, before) for before, after in zip(gray, gray[1:], strict=False)]


def to_gray(clip: np.ndarray) -> np.ndarray:
    """Convert a clip to gray levels, (num_frames, height, width) uint8."""
    return np.stack([cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in clip])


def flow_between(start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Flow (height, width, 2) float32, x then y, in pixels: what gray `start` shows at p, `end` shows at p + flow."""
    return cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(start, end, None)


def warp(frame: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """Sample `frame` at p + flow(p), (height, width, channels) float32; beyond the edge, its last pixels repeat."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    maps = x + flow[..., 0], y + flow[..., 1]
    return cv2.remap(frame.astype(np.float32), *maps, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def _fastest(flow: np.ndarray) -> float:
    lengths = np.sort(np.hypot(flow[..., 0], flow[..., 1]), axis=None)
    return float(lengths[-max(1, round(FASTEST_SHARE * lengths.size)) :].mean(dtype=np.float64))
