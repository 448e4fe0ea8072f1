"""Where a video cuts from one scene to the next."""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain, repeat
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pipeline_landscape_video.video_io import VideoFrame


if TYPE_CHECKING:
    from torch import Tensor

LOOK_AROUND = 2  # frames before and after
SHORT_SIDE = 32  # pixels; small enough that grain and brushwork average out
SMALLEST_CHANGE = 8.0  # of 255, mean over the picture and its colours
TIMES_THE_USUAL = 3.0


class CutFinder:
    """Passes frames on, two frames late, and tells which of them begin a scene.

    A frame begins a scene if it differs from the one before it by `SMALLEST_CHANGE`, and by `TIMES_THE_USUAL` as much
    as is usual around it (the median of the two changes before and the two after). So a fast camera is no cut, and
    scenes of one frame are found. Differences are taken in RGB: a detector that compares hues finds cuts in the grain
    of ink on paper, where hue means nothing.
    """

    def __init__(self) -> None:
        self._begins_scene = False

    def watch(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """The same frames."""
        size = 2 * LOOK_AROUND + 1
        changes = deque([0.0] * size, maxlen=size)  # in their middle, that of the frame to pass on next
        pending: deque[VideoFrame] = deque()
        previous = None
        for index, frame in enumerate(chain(frames, repeat(None, LOOK_AROUND))):
            small = None if frame is None else _shrink(frame.pixels)
            comparable = previous is not None and small is not None
            changes.append(float(np.abs(small - previous).mean()) if comparable else 0.0)
            previous = small
            if frame is not None:
                pending.append(frame)
            if index >= LOOK_AROUND:
                self._begins_scene = _stands_out(list(changes))
                yield pending.popleft()

    def is_cut(self, previous: "Tensor", frame: "Tensor") -> bool:
        """Whether the frame passed on last begins a scene: for `interpolate_stream`, which asks about each in turn."""
        return self._begins_scene


def _shrink(pixels: np.ndarray) -> np.ndarray:
    scale = min(1.0, SHORT_SIDE / min(pixels.shape[:2]))
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.float32)


def _stands_out(changes: list[float]) -> bool:
    change = changes.pop(LOOK_AROUND)
    return change >= SMALLEST_CHANGE and change >= TIMES_THE_USUAL * float(np.median(changes))
