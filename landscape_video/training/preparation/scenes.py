"""Split a video into scenes, and scenes into the stretches that may become clips."""

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

from landscape_video.scene_cuts import SceneDetector
from pipeline_landscape_video.video_io import VideoFrame


class Stretch(NamedTuple):
    """Frames `first` to `last` (exclusive) of a video, within scene number `scene`."""

    scene: int
    first: int
    last: int


class Scenes(NamedTuple):
    """Scenes of a video in which frames that repeat a picture do not count.

    Attributes:
        starts: Number of the first picture of each scene.
        times: Time of each picture in seconds, followed by the time at which the video ends.
        repeats: For each frame of the video, whether it repeats the picture before; see `find_repeats`.
    """

    starts: list[int]
    times: list[Fraction]
    repeats: list[bool]


def find_scenes(frames: Iterable[VideoFrame], threshold: float) -> Scenes:
    """Read a video to its end and find its pictures and scenes.

    Args:
        frames: Frames of one video, in order.
        threshold: How many times the usual change a cut changes the image, see `SceneDetector`.
    """
    detector, times, end = SceneDetector(), [], Fraction(0)
    for frame in frames:
        detector.add(frame.pixels)
        times.append(frame.timestamp)
        end = frame.timestamp + frame.duration
    fps = len(times) / float(end - times[0])
    repeats = detector.find_repeats(fps).tolist()
    # Scenes never begin with a repeat, so each start has as many pictures before it as frames that are none.
    starts = [start - sum(repeats[:start]) for start in detector.find_scenes(fps, threshold)]
    return Scenes(
        starts, [*(time for time, is_repeat in zip(times, repeats, strict=True) if not is_repeat), end], repeats
    )


def without_repeats(frames: Iterable[VideoFrame], repeats: list[bool]) -> Iterator[VideoFrame]:
    """Leave out the frames that repeat a picture, which lasts longer instead."""
    held = None
    for frame, is_repeat in zip(frames, repeats, strict=True):
        if is_repeat:
            held = held._replace(duration=frame.timestamp + frame.duration - held.timestamp)
            continue
        if held is not None:
            yield held
        held = frame
    yield held


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
