"""Split a video into scenes, and scenes into the stretches that may become clips."""

from collections.abc import Iterable
from fractions import Fraction
from typing import NamedTuple

from landscape_video.scene_cuts import mark_cuts
from pipeline_landscape_video.video_io import VideoFrame


class Stretch(NamedTuple):
    """Frames `first` to `last` (exclusive) of a video, within scene number `scene`."""

    scene: int
    first: int
    last: int


def find_scenes(frames: Iterable[VideoFrame], threshold: float) -> tuple[list[int], list[Fraction]]:
    """Read a video to its end and note its scenes and times.

    Args:
        frames: Frames of one video, in order.
        threshold: How many times the usual change a cut changes the image, see `mark_cuts`.

    Returns:
        The number of the first frame of each scene, and the time of each frame in seconds, followed by the time at
        which the video ends.
    """
    starts, times, end = [0], [], Fraction(0)
    for number, (frame, is_cut) in enumerate(mark_cuts(frames, threshold)):
        times.append(frame.timestamp)
        end = frame.timestamp + frame.duration
        if is_cut:
            starts.append(number)
    return starts, [*times, end]


def stretches(starts: list[int], times: list[Fraction], trim_frames: int, max_seconds: float) -> list[Stretch]:
    """Trim and split scenes into stretches.

    Args:
        starts, times: Scenes and frame times, as `find_scenes` returns them.
        trim_frames: Frames dropped at both ends of a scene: fades, and frames that the encoder blended. A scene too
            short for trimming is kept whole, to be rejected for its length later.
        max_seconds: Longest stretch; longer scenes are split.
    """
    found = []
    for scene, (first, last) in enumerate(zip(starts, [*starts[1:], len(times) - 1], strict=True)):
        if last - first > 2 * trim_frames:
            first, last = first + trim_frames, last - trim_frames
        begin = first
        for number in range(first, last):
            # Half a millisecond of tolerance: containers round timestamps, and that should not cost a frame.
            if float(times[number + 1] - times[begin]) > max_seconds + 5e-4:
                found.append(Stretch(scene, begin, max(number, begin + 1)))
                begin = found[-1].last
        if begin < last:
            found.append(Stretch(scene, begin, last))
    return found
