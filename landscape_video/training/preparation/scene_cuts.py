"""Scenes of a video, and the stretches of them that may become clips."""

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

import cv2
import numpy as np
from scenedetect import AdaptiveDetector, ContentDetector
from scenedetect.common import FrameTimecode

from pipeline_landscape_video.video_io import VideoFrame


SHORT_SIDE = 128  # pixels; small enough that grain and brushwork average out
# Changes of saturation and lightness count. Hue does not: in ink on paper it means nothing, and its noise looks like
# cuts.
WEIGHTS = ContentDetector.Components(delta_hue=0.0, delta_sat=1.0, delta_lum=1.0, delta_edges=0.0)


class Stretch(NamedTuple):
    """Frames `first` to `last` (not included) of a video, in scene number `scene`."""

    scene: int
    first: int
    last: int


def find_scenes(frames: Iterable[VideoFrame], threshold: float = 3.0) -> tuple[list[int], list[Fraction]]:
    """Where scenes begin, by PySceneDetect's adaptive detector, which a fast camera does not mislead.

    Args:
        threshold: how many times the change around it a cut has to change the picture.

    Returns:
        The number of the first frame of each scene, and the time of each frame; then, as one more time, the video's
        end.
    """
    detector = AdaptiveDetector(adaptive_threshold=threshold, min_scene_len=1, weights=WEIGHTS)
    starts, times, end = [0], [], Fraction(0)
    for number, frame in enumerate(frames):
        times.append(frame.timestamp)
        end = frame.timestamp + frame.duration
        timecode = FrameTimecode(number, 25.0)  # counts frames; its rate is not used
        cuts = detector.process_frame(timecode, cv2.cvtColor(shrink(frame.pixels, SHORT_SIDE), cv2.COLOR_RGB2BGR))
        starts += [cut.frame_num for cut in cuts]
    return starts, [*times, end]


def stretches(starts: list[int], times: list[Fraction], trim_frames: int, max_seconds: float) -> list[Stretch]:
    """The scenes without `trim_frames` at either end (fades, and frames that the encoder mixed), in pieces of at most
    `max_seconds`; a scene too short for trimming stays as it is, to be refused by its length."""
    found = []
    for scene, (first, last) in enumerate(zip(starts, [*starts[1:], len(times) - 1], strict=True)):
        if last - first > 2 * trim_frames:
            first, last = first + trim_frames, last - trim_frames
        begin = first
        for number in range(first, last):
            # Half a millisecond: containers round, and no frame should be lost to that.
            if float(times[number + 1] - times[begin]) > max_seconds + 5e-4:
                found.append(Stretch(scene, begin, max(number, begin + 1)))
                begin = found[-1].last
        if begin < last:
            found.append(Stretch(scene, begin, last))
    return found


def shrink(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """The picture with a shorter side of at most `short_side` pixels."""
    height, width = pixels.shape[:2]
    scale = short_side / min(height, width)
    if scale >= 1:
        return pixels
    return cv2.resize(pixels, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
