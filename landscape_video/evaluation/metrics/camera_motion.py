"""Estimate the camera movement of a clip from dense optical flow."""

from typing import NamedTuple

import numpy as np

from landscape_video.evaluation.metrics.motion_metrics import flow_between, to_gray


CAMERA_DIRECTIONS = ("still", "left", "right", "closer", "away")
# Image widths a frame. Tuned on 168 rendered clips at 4 frames a second: the fit finds 0.0044 to 0.024 where the
# camera moves, and up to 0.0024 (0.0035 in one clip), from mist, boats and ripples, where it does not.
STILL_BELOW = 0.003
FRAME_GAP = 3  # between the two frames of a flow: a zoom moves content by less than a pixel from frame to frame
ROBUST_SCALE = 0.004  # image widths a frame; motion further than this from the fit counts less and less
ITERATIONS = 8  # of reweighting; the weights settle within five


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
