"""Write .mp4 files frame by frame: H.264 with 8 bits, or HEVC with 10."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange
from PIL import Image

from .atomic_writing import write_file
from .color_volumes import HdrMetadata
from .frame_conversion import SHIFTED_WHITE, YuvConverter, matrix_for


METADATA_KEY = "landscape_video"
METADATA_KEY_BESIDE_COVER = "synopsis"
_FINEST_TIME_BASE = Fraction(1, 2**24)  # 60 ns; an mp4 counts its ticks per second in 32 bits


@contextmanager
def open_mp4(
    path: str | Path,
    width: int,
    height: int,
    fps: float | Fraction,
    time_base: Fraction | None = None,
    metadata: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
    color_primaries: int = 1,
    color_trc: int = 1,
    bit_depth: int = 8,
    hdr: HdrMetadata | None = None,
    crf: int = 16,
    has_cover: bool = False,
    grainy: bool = False,
) -> Iterator["Mp4Writer"]:
    """Write an .mp4 frame by frame: 4:2:0, index at the front. It appears when the block succeeds.

    The encoder is H.264, or HEVC for 10 bits, which hardly any player decodes as H.264. The matrix is that of the
    primaries: BT.2020 or BT.709.

    Args:
        path: Output file.
        width, height: Size of the frames. Odd sizes gain one repeated row or column, because yuv420p needs even sizes.
        fps: Frames per second; their average if `Mp4Writer.write` is given timestamps.
        time_base: Unit of the timestamps in seconds; 1 / fps by default.
        metadata: Anything that JSON can hold, for `read_metadata`.
        tags: Further tags of the file (title, artist, ...).
        color_primaries, color_trc: Codes of ITU-T H.273, to keep those of a source; BT.709 by default.
        bit_depth: 8 or 10 bits.
        hdr: Metadata of high dynamic range, written with 10 bits only.
        crf: Quality of x264, from 0 (lossless) to 51.
        has_cover: Whether a cover image will be added. Beside it, only tags that mp4 has a name for are kept.
        grainy: Encode without B-frames, which lose more of film grain than the frames around them.
    """
    fps = Fraction(fps).limit_denominator(1001)
    # Without use_metadata_tags, FFmpeg drops tags that mp4 has no name for; with it, cover images.
    options = {"movflags": "+faststart" if has_cover else "+faststart+use_metadata_tags"}
    metadata_key = METADATA_KEY_BESIDE_COVER if has_cover else METADATA_KEY
    with write_file(path) as unfinished, av.open(str(unfinished), "w", options=options) as container:
        container.metadata.update(tags or {})
        container.metadata[metadata_key] = json.dumps(dict(metadata or {}), ensure_ascii=False)
        matrix, matrix_name = matrix_for(color_primaries)
        stream = _add_video(container, fps, bit_depth, hdr, crf, grainy)
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p" if bit_depth == 8 else "yuv420p10le"
        context = stream.codec_context
        context.time_base = max(time_base or 1 / fps, _FINEST_TIME_BASE)
        context.colorspace, context.color_range = matrix, int(ColorRange.MPEG)
        context.color_primaries, context.color_trc = color_primaries, color_trc
        writer = Mp4Writer(container, stream, (height, width), fps, YuvConverter(stream.pix_fmt, matrix_name))
        yield writer
        writer.finish()


def _add_video(
    container: av.container.OutputContainer,
    fps: Fraction,
    bit_depth: int,
    hdr: HdrMetadata | None,
    crf: int,
    grainy: bool,
) -> av.VideoStream:
    """Add a stream of H.264, or of HEVC for 10 bits."""
    if bit_depth == 8:
        # With AVX-512, x264's macroblock tree reads uninitialized memory at widths such as 64 or 192: without
        # mbtree=0, the same frames give a different file each time.
        options = {"crf": str(crf), "mbtree": "0", **({"bf": "0"} if grainy else {})}
        return container.add_stream("libx264", rate=fps, options=options)
    # With B-frames, x265 gives clips of one or two frames random decoding times.
    parameters = {"log-level": "error", "bframes": "0", **(hdr.as_x265_options() if hdr is not None else {})}
    joined = ":".join(f"{name}={value}" for name, value in parameters.items())
    stream = container.add_stream("libx265", rate=fps, options={"crf": str(crf), "x265-params": joined})
    stream.codec_context.codec_tag = "hvc1"  # Apple's players do not open FFmpeg's default, hev1
    return stream


class Mp4Writer:
    """Writer of `open_mp4`. Further streams can be added to its `container` until the first frame is written."""

    def __init__(
        self,
        container: av.container.OutputContainer,
        stream: av.VideoStream,
        size: tuple[int, int],
        fps: Fraction,
        converter: YuvConverter,
    ):
        self.container = container
        self.width, self.height = stream.width, stream.height  # as written: even
        self._stream = stream
        self._size = size  # (height, width)
        self._fps = fps
        self._converter = converter
        self._white = 255 if stream.pix_fmt == "yuv420p" else SHIFTED_WHITE
        self._time_base = stream.codec_context.time_base
        self._end = Fraction(0)  # of the frame written last, in seconds
        self._start: tuple[int, int] | None = None  # first pts and dts

    def write(
        self, frame: Any, timestamp: float | Fraction | None = None, duration: float | Fraction | None = None
    ) -> None:
        """Append a frame.

        Args:
            frame: See `as_pixels`; also a uint16 array for 10 bits.
            timestamp: Time at which it is shown, in seconds; by default the end of the previous frame.
            duration: Seconds for which it is shown, by default 1 / fps. Only the last one has an effect: other frames
                end when the next one starts.
        """
        pixels = as_pixels(frame, self._white)
        if pixels.shape[:2] != self._size:
            raise ValueError(f"Frames must have the (height, width) {self._size}, got {pixels.shape[:2]}.")
        timestamp = self._end if timestamp is None else timestamp
        self._end = timestamp + (1 / self._fps if duration is None else duration)
        height, width = self._size
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        image = self._converter.convert(pixels)
        image.time_base = self._time_base
        image.pts = round(timestamp / self._time_base)
        self._mux(self._stream.encode(image))

    def finish(self) -> None:
        """Write the packets that the encoder still holds. The last ones determine the duration of the clip."""
        packets = self._stream.encode()
        if packets:
            first_pts, first_dts = self._start or (packets[0].pts, packets[0].dts)
            end = round(self._end / self._time_base)
            # The edit list ends with the packet that is shown last, the index with the one that is decoded last.
            shown_last = max(packets, key=lambda packet: packet.pts)
            packets[-1].duration = end - first_pts - (packets[-1].dts - first_dts)
            shown_last.duration = end - shown_last.pts
        self._mux(packets)

    def _mux(self, packets: Sequence[av.Packet]) -> None:
        for packet in packets:
            self._start = self._start or (packet.pts, packet.dts)
            self.container.mux(packet)


def as_pixels(frame: Any, white: int = 255) -> np.ndarray:
    """Convert a frame to (height, width, 3) RGB.

    Args:
        frame: A PIL image; an array (height, width, 3) or a tensor (3, height, width), uint8 or floating in [0, 1].
            Values slightly outside are clipped.
        white: Value of white. With 255 the result is uint8, else uint16, and uint16 arrays are accepted, too.

    Raises:
        ValueError: A wrong shape or type, or values that are not finite or above 2, such as floats up to 255.
    """
    if isinstance(frame, Image.Image):
        frame = np.asarray(frame.convert("RGB"))
    if hasattr(frame, "detach"):  # a tensor; torch is not imported for it
        frame = frame.detach().cpu()
        frame = (frame.float() if frame.is_floating_point() else frame).numpy()
        frame = frame.transpose(1, 2, 0) if frame.ndim == 3 else frame
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"A frame must have the shape (height, width, 3), got {frame.shape}.")
    if frame.dtype == np.uint8 and white == 255:
        return frame
    if frame.dtype == np.uint8 or (frame.dtype == np.uint16 and white != 255):
        frame = frame / np.float32(np.iinfo(frame.dtype).max)
    if not np.issubdtype(frame.dtype, np.floating):
        raise ValueError(f"A frame must be uint8 or floating in [0, 1], got {frame.dtype}.")
    if not np.isfinite(frame).all():
        raise ValueError("A frame must have finite values, got NaN or infinity.")
    if frame.max(initial=0) > 2:
        raise ValueError(f"A frame must be in [0, 1] or uint8, got {frame.dtype} with values up to {frame.max():g}.")
    return np.rint(frame.clip(0, 1) * white).astype(np.uint8 if white == 255 else np.uint16)
