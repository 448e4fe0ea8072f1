"""Compute what the renderer knows of its frames: exact optical flow, masks of the elements, and depth.

Everything follows from the elements of a scene: which of them a pixel shows, and how each one moves. Frames are the
same as those of `render_clip`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from shanshui.renderer.rendering import Element, SceneRenderer, resting
from shanshui.renderer.scene import SIZE, Scene


SHOWN = 0.9  # share of a pixel that one element must make up for its flow to be exact


class GroundTruth(NamedTuple):
    """Frames of a clip with what is known of them; n frames of height h and width w.

    Attributes:
        frames: (n, h, w, 3) uint8 RGB.
        forward_flow: (n - 1, 2, h, w) float32, displacement (x, y) in pixels from frame k to frame k + 1.
        forward_valid: (n - 1, h, w) bool, where that flow is exact: the pixel shows one rigidly moving element, which
            is visible in the other frame as well. Water, waterfall, birds and weather are never valid; their flow is
            that of the ground, the cliff, the skein and 0.
        backward_flow: (n - 1, 2, h, w) float32, displacement from frame k + 1 to frame k.
        backward_valid: (n - 1, h, w) bool, where that flow is exact.
        masks: For each name of `Element`, and "sky", the share (n, h, w) of each pixel that shows it, uint8 from 0 to
            255. The shares of a pixel sum to 255, up to rounding.
        depth: (n, h, w) float32 from 0 (infinitely far, as the sky) to 1 (nearest), of the nearest element that is at
            least half opaque. A camera that pans moves a pixel in proportion to it, so it is an inverse depth.
    """

    frames: np.ndarray
    forward_flow: np.ndarray
    forward_valid: np.ndarray
    backward_flow: np.ndarray
    backward_valid: np.ndarray
    masks: dict[str, np.ndarray]
    depth: np.ndarray


def render_ground_truth(
    scene: Scene,
    times: Sequence[float],
    height: int = SIZE,
    width: int = SIZE,
    begins_like: Scene | None = None,
    consistent: bool = False,
) -> GroundTruth:
    """Render a scene with exact flow, masks and depth. Arguments and errors as in `render_clip`."""
    renderer = SceneRenderer(scene, height, width, begins_like, consistent)
    sky = Element("sky", lambda image, time: None, resting, 0.0)
    elements = [sky, *renderer.elements, renderer.seal]
    opacities = [np.stack([opacity(element, time, height, width) for element in elements]) for time in times]
    shares = [visible_shares(alphas) for alphas in opacities]
    steps = [(k, k + 1) for k in range(len(times) - 1)]
    forward = [flow_between(elements, times[a], times[b], shares[a], shares[b]) for a, b in steps]
    backward = [flow_between(elements, times[b], times[a], shares[b], shares[a]) for a, b in steps]
    masks = {
        name: np.stack(
            [sum(share[k] for k, element in enumerate(elements) if element.name == name) for share in shares]
        )
        for name in dict.fromkeys(element.name for element in elements)
    }
    return GroundTruth(
        np.stack([renderer.frame(time) for time in times]),
        np.stack([flow for flow, _ in forward]),
        np.stack([valid for _, valid in forward]),
        np.stack([flow for flow, _ in backward]),
        np.stack([valid for _, valid in backward]),
        {name: np.round(255 * mask).astype(np.uint8) for name, mask in masks.items()},
        np.stack([depth_of(elements, alphas, time) for alphas, time in zip(opacities, times, strict=True)]),
    )


def opacity(element: Element, time: float, height: int, width: int) -> np.ndarray:
    """Return the opacity of an element, (height, width) from 0 to 1."""
    if element.opacity is not None:
        return np.broadcast_to(element.opacity(), (height, width))
    black, white = np.zeros((height, width, 3), np.float32), np.ones((height, width, 3), np.float32)
    if element.name == "sky":
        return white[..., 0]
    element.draw(black, time)
    element.draw(white, time)
    return np.clip(1 - (white - black)[..., 0], 0, 1)  # what still shows of the difference is not covered


def visible_shares(opacities: np.ndarray) -> np.ndarray:
    """Return the share of each pixel that shows each element, (elements, h, w), from opacities from back to front."""
    through = np.cumprod(1 - opacities[::-1], axis=0)[::-1]  # what an element and all in front of it let through
    return opacities * np.concatenate([through[1:], np.ones_like(through[:1])])


def flow_between(
    elements: Sequence[Element], time: float, other: float, shares: np.ndarray, other_shares: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the flow from `time` to `other`, (2, h, w), and where it is exact, (h, w).

    A pixel moves like the element that makes up most of it.
    """
    height, width = shares.shape[1:]
    start = np.stack(np.meshgrid(np.arange(width), np.arange(height)), dtype=np.float32, casting="unsafe") + 0.5
    owner = shares.argmax(0)
    flow, valid = np.zeros((2, height, width), np.float32), np.zeros((height, width), bool)
    for k in np.unique(owner):
        # From the image at `time` into the element, and back into the image at `other`.
        into, back = elements[k].inverse(time), cv2.invertAffineTransform(elements[k].inverse(other))
        end = cv2.transform(cv2.transform(start.transpose(1, 2, 0).astype(np.float64), into), back).transpose(2, 0, 1)
        flow[:, owner == k] = (end - start)[:, owner == k]
        if elements[k].rigid:
            x, y = (end - 0.5).astype(np.float32)
            shown = cv2.remap(other_shares[k].astype(np.float32), x, y, cv2.INTER_LINEAR)  # 0 outside the image
            valid |= (owner == k) & (shares[k] >= SHOWN) & (shown >= SHOWN)
    return flow, valid


def depth_of(elements: Sequence[Element], opacities: np.ndarray, time: float) -> np.ndarray:
    """Return the depth of the nearest element that is at least half opaque, (h, w)."""
    depth = np.zeros(opacities.shape[1:], np.float32)
    for element, alpha in zip(elements, opacities, strict=True):
        if element.depth is not None:
            own = element.depth(time) if callable(element.depth) else element.depth
            depth = np.where(alpha >= 0.5, own, depth).astype(np.float32)
    return depth
