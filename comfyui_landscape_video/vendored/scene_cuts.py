# Copied from landscape_video/scene_cuts.py by vendor.py. Change the source instead.
"""Find the frames of a video at which a new scene begins."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, repeat

import cv2
import numpy as np

from .video_frame import VideoFrame


LOOK_AROUND = 2  # frames before and after
SHORT_SIDE = 32  # pixels; small enough that grain and brushwork average out
SMALLEST_CHANGE = 8.0  # of 255 levels, mean over pixels and colors
CUT_THRESHOLD = 3.0  # times the usual change


def mark_cuts(frames: Iterable[VideoFrame], threshold: float = CUT_THRESHOLD) -> Iterator[tuple[VideoFrame, bool]]:
    """Pass frames on, two frames late, and say of each whether a cut separates it from the frame before.

    A frame follows a cut if it differs from the frame before it by at least `SMALLEST_CHANGE`, and by at least
    `threshold` times the usual change around it (the median of the two changes before and the two after). So fast
    camera motion is not a cut, and scenes of a single frame are found.

    Args:
        frames: Frames of one video, in order.
        threshold: How many times the usual change a cut changes the image.

    Yields:
        Each frame with True if a new scene begins with it; False for the first frame of the video.
    """
    size = 2 * LOOK_AROUND + 1
    changes = deque([0.0] * size, maxlen=size)  # the one in the middle belongs to the next frame to pass on
    pending: deque[VideoFrame] = deque()
    previous = None
    for index, frame in enumerate(chain(frames, repeat(None, LOOK_AROUND))):
        # RGB, not hue: in ink on paper, hue is noise, and a detector that compares it finds cuts in the grain.
        small = None if frame is None else shrink(frame.pixels, SHORT_SIDE).astype(np.float32)
        comparable = previous is not None and small is not None
        changes.append(float(np.abs(small - previous).mean()) if comparable else 0.0)
        previous = small
        if frame is not None:
            pending.append(frame)
        if index >= LOOK_AROUND:
            around = list(changes)
            change = around.pop(LOOK_AROUND)
            is_cut = change >= SMALLEST_CHANGE and change >= threshold * float(np.median(around))
            yield pending.popleft(), is_cut


def shrink(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """Scale an image down until its shorter side has at most `short_side` pixels; never enlarge it."""
    scale = min(1.0, short_side / min(pixels.shape[:2]))
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
