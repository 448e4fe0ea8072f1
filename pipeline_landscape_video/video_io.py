"""Read and write clips, for every package of the project.

Reading goes through PyAV and is strict: a file with fewer frames than it declares, or that cannot be decoded to its
end, raises a `VideoError` that names it. Frames are upright, with square pixels, each with its own timestamp. Writing
is in `video_writing.py` and can be imported from here as well.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import numpy as np
from av.format import Flags as FormatFlags
from av.sidedata.sidedata import Type as SideDataType
from av.video.reformatter import Colorspace

from .video_writing import EXACT_CONVERSION, Mp4Writer, as_pixels, check_output, open_mp4, read_metadata, write_video


__all__ = [
    "Clip",
    "Mp4Writer",
    "VideoError",
    "VideoFrame",
    "VideoInfo",
    "as_pixels",
    "check_output",
    "iterate_video",
    "open_mp4",
    "probe_video",
    "read_metadata",
    "read_video",
    "start_offset",
    "write_video",
]

# 8192 x 8192. A file of a few kilobytes can declare frames that fill the memory.
MAX_PIXELS = 2**26


class VideoError(ValueError):
    """Raised for a file that is not a video, is cut short or is damaged; the message begins with its path."""


class VideoFrame(NamedTuple):
    """One decoded frame: `pixels` (height, width, 3) uint8 RGB, `timestamp` and `duration` in seconds."""

    pixels: np.ndarray
    timestamp: Fraction
    duration: Fraction


@dataclass(frozen=True)
class VideoInfo:
    """What a file declares.

    Attributes:
        width, height: Size of the frames as they are read: upright, with square pixels.
        fps: Average frame rate.
        time_base: Unit of the timestamps in seconds.
        num_frames: Number of frames, None if the container does not declare it.
        duration: Seconds, None if the container does not declare them.
        color_primaries, color_trc: Numbers of ITU-T H.273; those of BT.709 if none are declared.
        tags: Tags of the container (title, artist, ...).
    """

    width: int
    height: int
    fps: Fraction
    time_base: Fraction
    num_frames: int | None
    duration: Fraction | None
    color_primaries: int
    color_trc: int
    tags: Mapping[str, str]


class Clip(NamedTuple):
    """A clip: `frames` (num_frames, height, width, 3) uint8 RGB, `timestamps` (num_frames,) in seconds, mean `fps`."""

    frames: np.ndarray
    timestamps: np.ndarray
    fps: float


def read_video(path: str | Path) -> Clip:
    """Read a whole clip into memory. Raises `VideoError` as `iterate_video` does."""
    frames, timestamps, durations = zip(*iterate_video(path), strict=True)
    seconds = timestamps[-1] + durations[-1] - timestamps[0]
    return Clip(np.stack(frames), np.array(timestamps, dtype=np.float64), float(len(frames) / seconds))


def probe_video(path: str | Path) -> VideoInfo:
    """Read what a file declares. Its first frame is decoded too, because only that has the rotation."""
    with _open(path) as container, _naming(path):
        stream = _video_stream(container, path)
        frame = next(container.decode(stream), None)
        if frame is None:
            raise VideoError(f"{path}: no frame could be decoded.")
        height, width, _ = _pixels(frame, stream, path).shape
        declared_end = _declared_end(container, stream)
        return VideoInfo(
            width=width,
            height=height,
            fps=_rate(stream),
            time_base=stream.time_base,
            num_frames=stream.frames or None,
            duration=None if declared_end is None else declared_end - _start(container, stream),
            color_primaries=_declared_color(frame.color_primaries),
            color_trc=_declared_color(frame.color_trc),
            tags=dict(container.metadata),
        )


def iterate_video(path: str | Path, file: BinaryIO | None = None) -> Iterator[VideoFrame]:
    """Decode a video frame by frame, in constant memory.

    Args:
        path: Any file that FFmpeg reads. Rotation and pixel aspect are applied: frames are upright, with square
            pixels, and are stretched rather than shrunk for that.
        file: Seekable file to read from instead; `path` is then only its name, for messages.

    Yields:
        `VideoFrame`s in the order they are shown. Timestamps are those of the file; in formats whose clock can start
        anywhere (MPEG-TS, MPEG-PS) they count from the start of the file.

    Raises:
        FileNotFoundError: The file does not exist.
        VideoError: Not a video, damaged data, timestamps that do not rise, or an end before the declared number of
            frames or duration; possibly after some frames were yielded.
    """
    with _open(path, file) as container, _naming(path):
        stream = _video_stream(container, path)
        stream.thread_type = "AUTO"
        offset = start_offset(container)
        interval = 1 / _rate(stream)
        pending = None  # held back by one, because a frame lasts until the next one starts
        num_frames = 0
        reached: dict[int, Fraction] = {}
        for packet in container.demux():
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                reached[packet.stream.index] = max(end, reached.get(packet.stream.index, end))
            if packet.stream.index != stream.index:
                continue
            for frame in packet.decode():
                if frame.is_corrupt:
                    raise VideoError(f"{path}: frame {num_frames} is damaged.")
                timestamp = _timestamp(frame, stream, pending, interval) - (0 if frame.pts is None else offset)
                if pending is not None:
                    if timestamp <= pending.timestamp:
                        raise VideoError(f"{path}: timestamps do not rise at frame {num_frames}.")
                    yield pending._replace(duration=timestamp - pending.timestamp)
                pending = VideoFrame(_pixels(frame, stream, path), timestamp, interval)
                num_frames += 1
        if pending is None:
            raise VideoError(f"{path}: no frame could be decoded.")
        _check_complete(path, container, stream, num_frames, pending.timestamp + offset + interval, reached)
        declared_end = _declared_end(container, stream) if stream.duration else None
        last = declared_end - offset - pending.timestamp if declared_end is not None else interval
        yield pending._replace(duration=last if last > 0 else interval)


def start_offset(container: av.container.InputContainer) -> Fraction:
    """Seconds to subtract from timestamps: the file's start in formats whose clock can start anywhere, else 0."""
    if container.format.flags & FormatFlags.ts_discont.value and container.start_time is not None:
        return Fraction(container.start_time, av.time_base)
    return Fraction(0)


def _open(path: str | Path, file: BinaryIO | None = None) -> av.container.InputContainer:
    if file is None and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    try:
        return av.open(str(path) if file is None else file)
    except av.FFmpegError as error:
        raise VideoError(f"{path}: not a video that can be read ({error.strerror}).") from error


@contextmanager
def _naming(path: str | Path) -> Iterator[None]:
    """Add the name of the file to FFmpeg's decoding errors."""
    try:
        yield
    except av.FFmpegError as error:
        raise VideoError(f"{path}: cannot be decoded to its end ({error.strerror}).") from error


def _video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    stream = container.streams.best("video")
    if stream is None:
        raise VideoError(f"{path}: has no video.")
    if stream.width * stream.height > MAX_PIXELS:
        raise VideoError(
            f"{path}: frames must have at most {MAX_PIXELS} pixels, got {stream.width} x {stream.height}."
        )
    return stream


def _rate(stream: av.VideoStream) -> Fraction:
    return stream.average_rate or stream.guessed_rate or Fraction(25)  # FFmpeg's default for streams without a rate


def _start(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction:
    if stream.start_time is not None:
        return stream.start_time * stream.time_base
    return Fraction(container.start_time or 0, av.time_base)


def _declared_end(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    """End that the stream, or else the whole file, declares, in seconds of the file's own clock."""
    if container.format.flags & FormatFlags.no_timestamps.value:
        return None  # raw streams, whose duration FFmpeg only guesses from the bit rate
    if stream.duration:
        return _start(container, stream) + stream.duration * stream.time_base
    if container.duration:
        return Fraction((container.start_time or 0) + container.duration, av.time_base)
    return None


def _declared_color(number: int) -> int:
    return 1 if number == 2 else int(number)  # ITU-T H.273: 2 is "unspecified", 1 is BT.709


def _timestamp(
    frame: av.VideoFrame, stream: av.VideoStream, previous: VideoFrame | None, interval: Fraction
) -> Fraction:
    if frame.pts is not None:
        return frame.pts * (frame.time_base or stream.time_base)
    return previous.timestamp + interval if previous is not None else Fraction(0)


def _check_complete(
    path: str | Path,
    container: av.container.InputContainer,
    stream: av.VideoStream,
    num_frames: int,
    video_end: Fraction,
    reached: Mapping[int, Fraction],
) -> None:
    """Raise a `VideoError` if less was decoded than the file declares.

    The declared number of frames decides if it is met. Otherwise the declared end does, because an edit list may cut
    frames that are still counted. A container's duration is that of its longest stream, so the last packet of any
    stream counts.
    """
    declared_end = _declared_end(container, stream)
    if num_frames == stream.frames or declared_end is None:
        return
    end = video_end if stream.duration else max(video_end, *reached.values())
    if end < declared_end - 2 / _rate(stream):
        frames = f"{num_frames} of {stream.frames} frames" if stream.frames else f"{num_frames} frames"
        raise VideoError(
            f"{path}: is cut short: {frames} decoded, up to {float(end):.2f} s of {float(declared_end):.2f} s."
        )


def _pixels(frame: av.VideoFrame, stream: av.VideoStream, path: str | Path) -> np.ndarray:
    """(height, width, 3) uint8 RGB, square pixels, upright."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    width = round(frame.width * aspect) if aspect > 1 else frame.width
    height = round(frame.height / aspect) if aspect < 1 else frame.height
    # What players do if no matrix is declared: BT.709 for high definition, BT.601 (FFmpeg's default) below.
    unspecified = frame.colorspace == 2
    pixels = frame.to_ndarray(
        format="rgb24",
        width=width,
        height=height,
        interpolation=EXACT_CONVERSION,
        src_colorspace=Colorspace.ITU709 if unspecified and frame.height >= 720 else None,
    )
    matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return pixels
    a, b, _, c, d = np.sign(np.frombuffer(matrix, dtype=np.int32)[:5])
    if (a and b) or (c and d):
        raise VideoError(f"{path}: rotation must be a multiple of 90 degrees, got {frame.rotation}.")
    if b:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: d or 1, :: a or 1])
