"""Where a video cuts from one scene to the next."""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import cv2
import numpy as np
from scenedetect import AdaptiveDetector, FrameTimecode

from pipeline_landscape_video.video_io import VideoFrame


if TYPE_CHECKING:
    from torch import Tensor

LOOK_AROUND = 2  # frames before and after, whose change a cut's change has to exceed three times
SHORT_SIDE = 128  # pixels; the detector looks at means over the whole picture


class CutFinder:
    """Passes frames on, two frames late, and tells which of them begin a scene.

    PySceneDetect's adaptive detector with its own thresholds: a frame begins a scene if it differs from the one
    before, and three times as much as the frames around differ from theirs. So a fast camera is no cut, nor is a
    picture without colours, whose hues are noise. Scenes may be of any length.
    """

    def __init__(self) -> None:
        self._detector = AdaptiveDetector(min_scene_len=0, window_width=LOOK_AROUND)
        self._cuts: set[int] = set()
        self._num_seen = 0
        self._passed_on = 0

    def watch(self, frames: Iterable[VideoFrame]) -> Iterator[VideoFrame]:
        """The same frames."""
        pending: deque[VideoFrame] = deque()
        for frame in frames:
            # The ends are repeated, or the detector would be blind for what happens there.
            repeats = 1 + LOOK_AROUND if self._num_seen == 0 else 1
            for _ in range(repeats):
                self._see(frame.pixels)
            pending.append(frame)
            if len(pending) > LOOK_AROUND:
                yield self._pass_on(pending)
        for _ in range(LOOK_AROUND):
            self._see(frame.pixels)
        while pending:
            yield self._pass_on(pending)

    def is_cut(self, previous: "Tensor", frame: "Tensor") -> bool:
        """Whether the frame passed on last begins a scene: for `interpolate_stream`, which asks about each in turn."""
        return LOOK_AROUND + self._passed_on - 1 in self._cuts

    def _pass_on(self, pending: deque[VideoFrame]) -> VideoFrame:
        self._passed_on += 1
        return pending.popleft()

    def _see(self, pixels: np.ndarray) -> None:
        shrink = min(1.0, SHORT_SIDE / min(pixels.shape[:2]))
        small = cv2.resize(pixels, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
        timecode = FrameTimecode(self._num_seen, fps=25.0)  # only counts frames: no scene is too short
        found = self._detector.process_frame(timecode, cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
        self._cuts.update(cut.frame_num for cut in found)
        self._num_seen += 1
