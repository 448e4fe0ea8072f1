"""Measure how much a clip moves, how much it flickers, and where its camera goes.

Optical flow is OpenCV's DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016), which needs no
weights. Clips are uint8 RGB, (num_frames, height, width, 3), of at least two frames. Lengths are in pixels, so compare
clips of the same size only.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np


FASTEST_SHARE = 0.05  # of the pixels: the dynamic degree sees a small boat on a still lake

CAMERA_DIRECTIONS = ("still", "left", "right", "closer", "away")
# Image widths a frame. Tuned on 168 rendered clips at 4 frames a second: the fit finds 0.0044 to 0.024 where the
# camera moves, and up to 0.0024 (0.0035 in one clip), from mist, boats and ripples, where it does not.
STILL_BELOW = 0.003
FRAME_GAP = 3  # between the two frames of a flow: a zoom moves content by less than a pixel from frame to frame
ROBUST_SCALE = 0.004  # image widths a frame; motion further than this from the fit counts less and less
ITERATIONS = 8  # of reweighting; the weights settle within five


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


class CameraMotion(NamedTuple):
    """How a camera moves the content of a clip, both in image widths a frame.

    `pan` is how far the content moves to the right, `zoom` how much it grows over the whole width.
    """

    pan: float
    zoom: float

    @property
    def direction(self) -> str:
        """The way that the camera travels, one of `CAMERA_DIRECTIONS`. It is opposite to that of the content."""
        if max(abs(self.pan), abs(self.zoom)) < STILL_BELOW:
            return "still"
        if abs(self.pan) > abs(self.zoom):
            return "left" if self.pan > 0 else "right"
        return "closer" if self.zoom > 0 else "away"


def fit_camera(clip: np.ndarray) -> CameraMotion:
    """Fit pan and zoom to the optical flow of a clip, uint8 RGB (num_frames, height, width, 3), at least two frames.

    A camera moves evenly while objects come and go, so the flow is first averaged over time with a median at every
    pixel. Translation and zoom are then fitted by iteratively reweighted least squares with Cauchy weights, which
    follow what most of the textured image does: near layers move more than far ones, and mist and boats move by
    themselves.
    """
    gray = to_gray(clip)
    gap = min(FRAME_GAP, len(gray) - 1)
    flows = [flow_between(gray[i], gray[i + gap]) for i in range(0, len(gray) - gap, 2)]
    height, width = gray.shape[1:]
    flow = np.median(flows, axis=0)[::2, ::2] / (gap * width)
    # Washes without strokes have no flow of their own: weigh pixels by their gradient, in gray levels.
    gradient = np.hypot(*np.gradient(gray[len(gray) // 2].astype(np.float32)))[::2, ::2]
    texture = np.tile((gradient / (gradient + 4) + 1e-3).ravel(), 2)
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]] + 0.5
    x, y = x * 2 / width - 0.5, (y * 2 - 0.5 * height) / width
    one, nil = np.ones_like(x), np.zeros_like(x)
    # Columns are (pan, tilt, zoom); the free tilt also absorbs a zoom towards a horizon beside the center.
    design = np.concatenate([np.stack([one, nil, x], -1).reshape(-1, 3), np.stack([nil, one, y], -1).reshape(-1, 3)])
    target = np.concatenate([flow[..., 0].ravel(), flow[..., 1].ravel()])
    robust = np.ones_like(target)
    for _ in range(ITERATIONS):
        weighted = design * (texture * robust)[:, None]
        pan, tilt, zoom = np.linalg.solve(weighted.T @ design, weighted.T @ target)
        robust = 1 / (1 + ((target - design @ (pan, tilt, zoom)) / ROBUST_SCALE) ** 2)
    return CameraMotion(float(pan), float(zoom))
