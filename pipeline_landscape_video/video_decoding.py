"""Decode videos with FFmpeg into complete, progressive, upright frames with square pixels and increasing times.

The properties that a decoded frame carries (size, fields, alpha, matrix, pixel aspect, rotation) are handled here, so
that callers never see them.
"""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain, pairwise
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import av.logging
import numpy as np
from av.format import Flags as FormatFlags
from av.stream import Disposition

from .color_volumes import TRANSFER_NAMES, HdrMetadata
from .frame_conversion import (
    UNSPECIFIED,
    FrameConverter,
    UnsupportedFrame,
    bit_depth,
    filter_graph,
    has_wide_colors,
    lost_side_data,
    pulled,
)


# 8192 x 8192. A file of a few kilobytes can declare frames that fill the memory.
MAX_PIXELS = 2**26
# Formats in which FFmpeg's duration is the time at which the file ends; in others it is the time that it lasts.
DURATION_IS_END = ("matroska,webm", "nut", "asf")
MAX_RATE = 10_000  # frames per second
ALPHA_DECODERS = {"vp8": "libvpx", "vp9": "libvpx-vp9"}
# Decoders that mark interlaced frames. Others leave that to the container.
MARKING_DECODERS = frozenset("dnxhd dvvideo ffv1 h264 hevc mpeg2video mpeg4 prores vc1 wmv3".split())
# AVFieldOrder: which field is shown first.
FIELD_ORDERS = {2: "tff", 3: "bff", 4: "bff", 5: "tff"}

logger = logging.getLogger(__name__)


class VideoError(ValueError):
    """Raised for a file that is not a video, is cut short or is damaged; the message begins with its path."""


class VideoFrame(NamedTuple):
    """One decoded frame: `pixels` (height, width, 3) uint8 RGB, `timestamp` and `duration` in seconds.

    `deep` is the same as uint16, for files with more than 8 bits.
    """

    pixels: np.ndarray
    timestamp: Fraction
    duration: Fraction
    deep: np.ndarray | None = None


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
        bit_depth: Bits of each color component.
        hdr: Static metadata of high dynamic range.
        lost: Names of what the first frame carries that is not written.
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
    bit_depth: int = 8
    hdr: HdrMetadata = HdrMetadata(None, None)
    lost: tuple[str, ...] = ()


def probe_container(path: str | Path) -> VideoInfo:
    """Read what a file declares; see `probe_video`."""
    with open_container(path) as container, naming(path):
        stream = video_stream(container, path)
        decoder = decoder_of(stream)
        images = (image for packet in container.demux(stream) for image in decoder.decode(packet))
        image = next(images, None)
        if image is None:
            raise VideoError(f"{path}: no frame could be decoded.")
        height, width, _ = FrameConverter(stream, as_stored=True).convert(image).shape
        end = declared_end(container, stream)
        primaries, transfer = (
            1 if number == UNSPECIFIED else int(number) for number in (image.color_primaries, image.color_trc)
        )
        return VideoInfo(
            width=width,
            height=height,
            fps=frame_rate(stream),
            time_base=stream.time_base,
            num_frames=stream.frames or None,
            duration=None if end is None else end - stream_start(container, stream),
            color_primaries=primaries,
            color_trc=transfer,
            tags=dict(container.metadata),
            bit_depth=bit_depth(image),
            hdr=HdrMetadata.of(image),
            lost=lost_side_data(image),
        )


def decode_video(path: str | Path, file: BinaryIO | None = None, as_stored: bool = False) -> Iterator[VideoFrame]:
    """Decode a video frame by frame, in constant memory; see `iterate_video`."""
    with open_container(path, file) as container, naming(path):
        decoder = _Decoder(container, path)
        converter = FrameConverter(decoder.stream, as_stored)
        pending = None  # held back by one, because a frame lasts until the next one starts
        for image, timestamp in decoder.deinterlaced():
            if pending is not None:
                yield pending._replace(duration=timestamp - pending.timestamp)
            elif not as_stored and has_wide_colors(image):
                volume = TRANSFER_NAMES.get(image.color_trc, "a wide gamut")
                logger.warning("%s: its colors (%s) are mapped to BT.709.", path, volume)
            pixels = converter.convert(image)
            deep = pixels if pixels.dtype == np.uint16 else None
            if deep is not None:
                pixels = np.rint(deep * np.float32(1 / 257)).astype(np.uint8)
            pending = VideoFrame(pixels, timestamp, decoder.interval, deep)
        if pending is None:
            raise VideoError(f"{path}: no frame could be decoded.")
        decoder.check_complete()
        yield pending._replace(duration=decoder.last_duration(pending.timestamp))


class _Decoder:
    """Decodes the video stream of a container from its start, once."""

    def __init__(self, container: av.container.InputContainer, path: str | Path) -> None:
        self.container, self.path = container, path
        self.stream = video_stream(container, path)
        self.codec = decoder_of(self.stream)
        self.codec.thread_type = "AUTO"
        self.interval = 1 / frame_rate(self.stream)
        self.num_frames = 0
        self.num_repaired = 0
        self.video_end = Fraction(0)  # end of the frame decoded last, on the file's own clock
        self.reached: dict[int, Fraction] = {}  # end of each stream so far, on the file's own clock

    def deinterlaced(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yield frames and their times; the fields of interlaced frames are merged (FFmpeg's bwdif)."""
        graph, times = None, deque()
        options = self.declared_fields()
        for number, (image, timestamp) in enumerate(self.timed()):
            if graph is None and (options or image.interlaced_frame):
                logger.warning("%s: is interlaced from frame %d; it is deinterlaced.", self.path, number)
                graph = filter_graph(image, [("bwdif", f"mode=send_frame:{options or 'deint=interlaced'}")])
            if graph is None:
                yield image, timestamp
                continue
            # The filter returns one frame for each it gets, in order and one late. It needs rising times of any kind.
            image.pts, image.time_base = number, self.interval
            times.append(timestamp)
            graph.push(image)
            yield from ((filtered, times.popleft()) for filtered in pulled(graph))
        if graph is not None:
            graph.push(None)
            yield from ((filtered, times.popleft()) for filtered in pulled(graph))

    def declared_fields(self) -> str | None:
        """Options of bwdif for a stream whose container alone declares fields, else None."""
        codec = self.stream.codec_context
        if codec.name in MARKING_DECODERS or codec.field_order not in FIELD_ORDERS:
            return None
        return f"deint=all:parity={FIELD_ORDERS[codec.field_order]}"

    def timed(self) -> Iterator[tuple[av.VideoFrame, Fraction]]:
        """Yield decoded frames with increasing times, even if those of the file do not increase."""
        previous, shift = None, Fraction(0)
        for (image, raw), (_, following) in pairwise(chain(self.decoded(), [(None, None)])):
            if previous is None:
                timestamp = raw if raw is not None else Fraction(0)
            elif raw is not None and raw + shift > previous:
                timestamp = raw + shift
            else:
                self.num_repaired += 1
                if raw is not None and following is not None and following + shift > previous:
                    timestamp = (previous + following + shift) / 2  # one wrong time among right ones
                else:
                    timestamp = previous + self.interval
                    # The clock has jumped back, as where files were joined: continue it.
                    shift = shift if raw is None else timestamp - raw
            yield image, timestamp
            previous = timestamp
        if self.num_repaired and not self.container.format.flags & FormatFlags.no_timestamps.value:
            logger.warning(
                "%s: timestamps of %d of %d frames were missing or did not rise; they are repaired.",
                self.path, self.num_repaired, self.num_frames,
            )  # fmt: skip

    def decoded(self) -> Iterator[tuple[av.VideoFrame, Fraction | None]]:
        """Yield frames as stored, in the order they are shown, with their times in the file, None where missing."""
        offset, first = start_offset(self.container), None
        for packet in self.container.demux():
            if packet.pts is not None:
                end = (packet.pts + (packet.duration or 0)) * packet.time_base
                self.reached[packet.stream.index] = max(end, self.reached.get(packet.stream.index, end))
            if packet.stream.index != self.stream.index:
                continue
            for image in self.codec.decode(packet):
                if image.is_corrupt:
                    raise VideoError(f"{self.path}: frame {self.num_frames} is damaged.")
                first = first or image
                if (image.width, image.height) != (first.width, first.height):
                    raise VideoError(
                        f"{self.path}: frames change from {first.width} x {first.height} to "
                        f"{image.width} x {image.height} pixels at frame {self.num_frames}; split the file there."
                    )
                self.num_frames += 1
                raw = _time_of(image, first, self.container, self.stream)
                # Where files were joined, the clock may have jumped back.
                self.video_end = max(self.video_end, (self.video_end if raw is None else raw) + self.interval)
                yield image, None if raw is None else raw - offset

    def check_complete(self) -> None:
        """Raise a `VideoError` if less was decoded than the file declares.

        The declared number of frames decides if it is met. Otherwise the declared end does, because an edit list may
        cut frames that are still counted. A container's duration is that of its longest stream, so the last packet of
        any stream counts.
        """
        stream, end = self.stream, declared_end(self.container, self.stream)
        if self.num_frames == stream.frames or end is None:
            return
        reached = self.video_end if stream.duration else max(self.video_end, *self.reached.values())
        if reached < end - 2 * self.interval:
            of_declared = f" of {stream.frames}" if stream.frames else ""
            raise VideoError(
                f"{self.path}: is cut short: {self.num_frames}{of_declared} frames decoded, up to "
                f"{float(reached):.2f} s of {float(end):.2f} s."
            )

    def last_duration(self, timestamp: Fraction) -> Fraction:
        """Duration of the last frame, which starts at `timestamp`: up to the declared end of the stream, if any."""
        end = declared_end(self.container, self.stream) if self.stream.duration else None
        last = self.interval if end is None else end - start_offset(self.container) - timestamp
        return last if last > 0 else self.interval


def start_offset(container: av.container.InputContainer) -> Fraction:
    """Seconds to subtract from timestamps: the file's start in formats whose clock can start anywhere, else 0."""
    if container.format.flags & FormatFlags.ts_discont.value and container.start_time is not None:
        return Fraction(container.start_time, av.time_base)
    return Fraction(0)


@contextmanager
def naming(path: str | Path) -> Iterator[None]:
    """Make errors of FFmpeg `VideoError`s that name the file."""
    try:
        yield
    except UnsupportedFrame as error:
        raise VideoError(f"{path}: {error}") from error
    except av.FFmpegError as error:
        raise VideoError(f"{path}: cannot be decoded to its end ({error.strerror}).") from error


def open_container(path: str | Path, file: BinaryIO | None = None) -> av.container.InputContainer:
    """Open a file of any format that FFmpeg reads."""
    if file is None and Path(path).is_dir():
        raise VideoError(f"{path}: is a folder, but not one of numbered images of one kind.")
    if file is None and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    # A decoding thread that logs waits for Python's lock, which closing the container may hold: a deadlock.
    # torchvision turns PyAV's logging on when it is imported, up to 0.24 at least.
    av.logging.set_level(None)
    try:
        return av.open(str(path) if file is None else file)
    except av.FFmpegError as error:
        reason = _why_unreadable(path, file) or error.strerror
        raise VideoError(f"{path}: not a video that can be read ({reason}).") from error


def _why_unreadable(path: str | Path, file: BinaryIO | None) -> str | None:
    """What the first bytes of a file that FFmpeg does not open tell; None if they tell nothing."""
    if file is None:
        with open(path, "rb") as stream:
            start = stream.read(4096)
    else:
        file.seek(0)
        start = file.read(4096)
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS; run `git lfs pull`"
    if start[4:8] == b"ftyp":
        return "its index is missing, as after a recording or download that was interrupted"
    return "it is text" if start.isascii() and b"\0" not in start else None


def video_stream(container: av.container.InputContainer, path: str | Path) -> av.VideoStream:
    """The video of a file. Raises a `VideoError` if it has none, or its frames are too large."""
    videos = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not container.streams:
        raise VideoError(f"{path}: has no video; its index is missing, as after a download that was interrupted.")
    if not videos:
        only = "only a cover image" if container.streams.video else "only other streams"
        raise VideoError(f"{path}: has no video, {only}.")
    best = container.streams.best("video")
    stream = best if best in videos else videos[0]
    if stream.codec_context is None:
        raise VideoError(f"{path}: its video uses a codec that FFmpeg cannot decode.")
    if stream.width * stream.height > MAX_PIXELS:
        raise VideoError(
            f"{path}: frames must have at most {MAX_PIXELS} pixels, got {stream.width} x {stream.height}."
        )
    return stream


def decoder_of(stream: av.VideoStream) -> av.VideoCodecContext:
    """The decoder of a stream. FFmpeg's own ones of VP8 and VP9 would drop transparency."""
    codec = stream.codec_context
    if stream.metadata.get("alpha_mode") != "1" or codec.name not in ALPHA_DECODERS:
        return codec
    with_alpha = av.CodecContext.create(ALPHA_DECODERS[codec.name], "r")
    with_alpha.extradata = codec.extradata
    return with_alpha


def frame_rate(stream: av.VideoStream) -> Fraction:
    """Average rate of a stream in frames per second."""
    rate = stream.average_rate
    if rate is None or rate > MAX_RATE:  # in DV, the unit of time
        rate = stream.guessed_rate
    return rate or Fraction(25)  # FFmpeg's default for streams without a rate


def stream_start(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction:
    """Time at which a stream starts, in seconds of the file's own clock."""
    if stream.start_time is not None:
        return stream.start_time * stream.time_base
    return Fraction(container.start_time or 0, av.time_base)


def declared_end(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction | None:
    """End that the stream, or else the whole file, declares, in seconds of the file's own clock."""
    if container.format.flags & FormatFlags.no_timestamps.value:
        return None  # raw streams, whose duration FFmpeg only guesses from the bit rate
    lasts = container.format.name not in DURATION_IS_END
    if stream.duration:
        return stream.duration * stream.time_base + (stream_start(container, stream) if lasts else 0)
    if container.duration:
        return Fraction(container.duration + (container.start_time or 0 if lasts else 0), av.time_base)
    return None


def _time_of(
    image: av.VideoFrame, first: av.VideoFrame, container: av.container.InputContainer, stream: av.VideoStream
) -> Fraction | None:
    """Time of a frame on the file's own clock, None if it has none."""
    ticks = image.pts if image.pts is not None else image.dts
    if container.format.name == "avi" and None not in (first.pts, first.dts, image.dts):
        ticks = first.pts + image.dts - first.dts  # AVI stores the order of decoding, so B-frames have wrong times
    return None if ticks is None else ticks * (image.time_base or stream.time_base)
