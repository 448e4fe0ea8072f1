"""How a clip moves, from dense optical flow: where the camera goes, how much moves, how much flickers.

Flow is OpenCV's DIS (Kroeger et al., "Fast Optical Flow using Dense Inverse Search", 2016). Clips are uint8 RGB,
(num_frames, height, width, 3).
"""

from dataclasses import dataclass

import numpy as np

from landscape_video.evaluation.metrics.motion_metrics import flow_between, measure_flow, to_grey


# Tuned on 168 rendered clips at 4 frames a second: the fit finds 0.0044 to 0.024 picture widths a frame where the
# camera moves and, for mist, boats and ripples, up to 0.0024 (0.0035 in one clip) where it stands still.
STILL_BELOW = 0.003
_GAP = 3  # frames between the two of a pair: a zoom moves a pixel less than that from frame to frame
_ROBUST_SCALE = 0.004  # picture widths a frame; motion that is further from the fit counts less and less


@dataclass(frozen=True)
class ClipMotion:
    """What `measure_motion` finds.

    `pan` is how far the content moves to the right and `zoom` by how much it grows, both in picture widths a frame (a
    zoom counted over the whole width). `magnitude` is the mean length of the flow between consecutive frames in
    pixels, `flicker` the mean absolute difference, in grey levels out of 255, that this flow does not explain.
    """

    camera: str
    pan: float
    zoom: float
    magnitude: float
    flicker: float


def measure_motion(clip: np.ndarray) -> ClipMotion:
    """Measure a clip of at least two frames."""
    pan, zoom = fit_camera(to_grey(clip))
    figures = measure_flow(clip)
    return ClipMotion(name_camera(pan, zoom), pan, zoom, figures.magnitude, figures.unexplained_flicker)


def camera_direction(clip: np.ndarray) -> str:
    """One of `scene.CAMERAS`: which way the camera travels."""
    return name_camera(*fit_camera(to_grey(clip)))


def name_camera(pan: float, zoom: float) -> str:
    """The camera for `pan` and `zoom` as in `ClipMotion`."""
    if max(abs(pan), abs(zoom)) < STILL_BELOW:
        return "still"
    if abs(pan) > abs(zoom):
        return "left" if pan > 0 else "right"
    return "closer" if zoom > 0 else "away"


def fit_camera(grey: np.ndarray) -> tuple[float, float]:
    """Pan and zoom (see `ClipMotion`) of a grey clip.

    A camera goes on evenly and things come and go, so the flow is first averaged over time with a median at every
    pixel. Then translation and zoom are fitted to it by iteratively reweighted least squares: near layers move more
    than far ones, and mist and boats by themselves; the Cauchy weights follow what most of the textured picture does.
    """
    gap = min(_GAP, len(grey) - 1)
    flows = [flow_between(grey[i], grey[i + gap]) for i in range(0, len(grey) - gap, 2)]
    height, width = grey.shape[1:]
    flow = np.median(flows, axis=0)[::2, ::2] / (gap * width)
    gradient = np.hypot(*np.gradient(grey[len(grey) // 2].astype(np.float32)))[::2, ::2]
    texture = gradient / (gradient + 4) + 1e-3  # grey levels; washes without strokes have no flow of their own
    y, x = np.mgrid[: flow.shape[0], : flow.shape[1]] + 0.5
    x, y = x * 2 / width - 0.5, (y * 2 - 0.5 * height) / width
    one, nil = np.ones_like(x), np.zeros_like(x)
    # Rows are (pan, tilt, zoom); the free tilt also takes in a horizon that the zoom heads for.
    design = np.concatenate([np.stack([one, nil, x], -1).reshape(-1, 3), np.stack([nil, one, y], -1).reshape(-1, 3)])
    target = np.concatenate([flow[..., 0].ravel(), flow[..., 1].ravel()])
    texture = np.tile(texture.ravel(), 2)
    robust = np.ones_like(target)
    for _ in range(8):
        weighted = design * (texture * robust)[:, None]
        pan, tilt, zoom = np.linalg.solve(weighted.T @ design, weighted.T @ target)
        robust = 1 / (1 + ((target - design @ (pan, tilt, zoom)) / _ROBUST_SCALE) ** 2)
    return float(pan), float(zoom)
