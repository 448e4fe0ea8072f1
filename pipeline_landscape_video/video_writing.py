"""Write clips as .mp4, .gif, .webp or a folder of PNG files, chosen by the name of the output.

A file or folder appears under its name only when it is complete. Every format carries metadata (prompt,
seed, settings, versions), which `read_metadata` returns.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import ColorRange, Colorspace
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .atomic_writing import write_directory, write_file


VIDEO_SUFFIXES = (".mp4", ".gif", ".webp")
METADATA_KEY = "landscape_video"
SAMPLED_FPS = 8.0  # frame rate of sampled clips; interpolation doubles it
MAX_GIF_FPS = 50  # browsers slow faster GIFs down to 10 frames per second
# swscale's flags for bicubic, exact rounding and full chroma. Its faster default darkens by 1 of 255 levels or more.
EXACT_CONVERSION = 0x4 | 0x40000 | 0x2000
_PNG_NAME = re.compile(r"frame_\d+\.png")
_EXIF_IMAGE_DESCRIPTION = 0x010E
_FINEST_TIME_BASE = Fraction(1, 2**24)  # 60 ns; an mp4 counts its ticks per second in 32 bits


def write_video(
    path: str | Path,
    frames: Iterable[Any],
    fps: float | Fraction,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write a clip.

    Args:
        path: Output. Its suffix is the format: .mp4 (H.264 that plays everywhere), .gif, .webp, or none for a folder
            of `frame_0000.png`, ...
        frames: Frames of one size, each in a form that `as_pixels` accepts. An .mp4 or a folder is written frame by
            frame; other formats hold all frames in memory.
        fps: Frames per second.
        metadata: Anything that JSON can hold; "fps" is added.

    Raises:
        ValueError: `path` cannot be written to (see `check_output`), no frames, or frames that differ in size.
        OSError: The disk is full or not writable; nothing is left behind.
    """
    check_output(path, fps)
    path = Path(path)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        raise ValueError(f"{path}: no frames to write.")
    pixels = _of_one_size(chain([first], frames))
    metadata = {**(metadata or {}), "fps": float(fps)}
    if path.suffix.lower() == ".mp4":
        height, width, _ = as_pixels(first).shape
        with open_mp4(path, width, height, fps, metadata=metadata) as writer:
            for frame in pixels:
                writer.write(frame)
        return
    if not path.suffix:
        with write_directory(path) as folder:
            _write_pngs(folder, pixels, metadata)
        return
    write_frames = _write_gif if path.suffix.lower() == ".gif" else _write_webp
    with write_file(path) as unfinished:
        write_frames(unfinished, list(pixels), fps, metadata)


def check_output(path: str | Path, fps: float | Fraction | None = None) -> None:
    """Raise a `ValueError` if `write_video` could not write `path` (at `fps`); nothing is touched."""
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix and suffix not in VIDEO_SUFFIXES:
        raise ValueError(
            f"{path}: the suffix must be {', '.join(VIDEO_SUFFIXES)}, or none for a folder of PNG files, got "
            f"{suffix!r}."
        )
    if not path.parent.is_dir():
        raise ValueError(f"{path}: the folder {path.parent} does not exist.")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ValueError(f"{path}: the folder {path.parent} is not writable.")
    if suffix and path.is_dir():
        raise ValueError(f"{path}: is a folder; choose another name.")
    if not suffix and path.exists() and not is_png_folder(path):
        raise ValueError(f"{path}: exists and is not a folder of frame_*.png files; choose another name.")
    if fps is not None and fps <= 0:
        raise ValueError(f"`fps` must be above 0, got {fps}.")
    if suffix == ".gif" and fps is not None and fps > MAX_GIF_FPS:
        raise ValueError(f"{path}: `fps` of a GIF must be at most {MAX_GIF_FPS}, got {float(fps):g}.")


def as_pixels(frame: Any) -> np.ndarray:
    """Convert a frame to (height, width, 3) uint8 RGB.

    Args:
        frame: A PIL image; an array (height, width, 3) or a tensor (3, height, width), uint8 or floating in [0, 1].
            Values slightly outside are clipped.

    Raises:
        ValueError: A wrong shape or type, or values that are not finite or above 2, such as floats up to 255.
    """
    if isinstance(frame, Image.Image):
        return np.asarray(frame.convert("RGB"))
    if hasattr(frame, "detach"):  # a tensor; torch is not imported for it
        frame = frame.detach().cpu()
        frame = (frame.float() if frame.is_floating_point() else frame).numpy()
        frame = frame.transpose(1, 2, 0) if frame.ndim == 3 else frame
    frame = np.asarray(frame)
    if frame.ndim != 3 or frame.shape[2] != 3:
        raise ValueError(f"A frame must have the shape (height, width, 3), got {frame.shape}.")
    if frame.dtype == np.uint8:
        return frame
    if not np.issubdtype(frame.dtype, np.floating):
        raise ValueError(f"A frame must be uint8 or floating in [0, 1], got {frame.dtype}.")
    if not np.isfinite(frame).all():
        raise ValueError("A frame must have finite values, got NaN or infinity.")
    if frame.max(initial=0) > 2:
        raise ValueError(f"A frame must be in [0, 1] or uint8, got {frame.dtype} with values up to {frame.max():g}.")
    return np.rint(frame.clip(0, 1) * 255).astype(np.uint8)


def is_png_folder(path: str | Path) -> bool:
    """Return whether a path is a folder that contains nothing but `frame_0000.png`, ..."""
    return Path(path).is_dir() and all(_PNG_NAME.fullmatch(entry.name) for entry in Path(path).iterdir())


def png_files(folder: str | Path) -> list[Path]:
    """List the frames of a folder of PNG files, in order."""
    return sorted(entry for entry in Path(folder).iterdir() if _PNG_NAME.fullmatch(entry.name))


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata that `write_video` stored in a file or folder; an empty dictionary if it has none."""
    path = Path(path)
    if path.is_dir():
        path = next(iter(png_files(path)), path / "frame_0000.png")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file.")
    suffix = path.suffix.lower()
    if suffix in (".gif", ".webp", ".png"):
        with Image.open(path) as image:
            text = {
                ".gif": image.info.get("comment", b"").decode("utf-8", "replace"),
                ".webp": image.getexif().get(_EXIF_IMAGE_DESCRIPTION, ""),
                ".png": image.info.get(METADATA_KEY, ""),
            }[suffix]
    else:
        with av.open(str(path)) as container:
            text = container.metadata.get(METADATA_KEY, "")
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError:  # the comment of another program
        return {}
    return metadata if isinstance(metadata, dict) else {}


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
    crf: int = 16,
) -> Iterator["Mp4Writer"]:
    """Write an .mp4 frame by frame: H.264, yuv420p, BT.709, index at the front. It appears when the block succeeds.

    Args:
        path: Output file.
        width, height: Size of the frames. Odd sizes gain one repeated row or column, because yuv420p needs even sizes.
        fps: Frames per second; their average if `Mp4Writer.write` is given timestamps.
        time_base: Unit of the timestamps in seconds; 1 / fps by default.
        metadata: Anything that JSON can hold, for `read_metadata`.
        tags: Further tags of the file (title, artist, ...).
        color_primaries, color_trc: Codes of ITU-T H.273, to keep those of a source; BT.709 by default.
        crf: Quality of x264, from 0 (lossless) to 51.
    """
    fps = Fraction(fps).limit_denominator(1001)
    # Without use_metadata_tags, tags that mp4 has no name for are dropped.
    options = {"movflags": "+faststart+use_metadata_tags"}
    with write_file(path) as unfinished, av.open(str(unfinished), "w", options=options) as container:
        container.metadata.update(tags or {})
        container.metadata[METADATA_KEY] = json.dumps(dict(metadata or {}), ensure_ascii=False)
        # With AVX-512, x264's macroblock tree reads uninitialized memory at widths such as 64 or 192: without
        # mbtree=0, the same frames give a different file each time.
        stream = container.add_stream("libx264", rate=fps, options={"crf": str(crf), "mbtree": "0"})
        stream.width, stream.height = width + width % 2, height + height % 2
        stream.pix_fmt = "yuv420p"
        context = stream.codec_context
        context.time_base = max(time_base or 1 / fps, _FINEST_TIME_BASE)
        context.colorspace, context.color_range = int(Colorspace.ITU709), int(ColorRange.MPEG)
        context.color_primaries, context.color_trc = color_primaries, color_trc
        writer = Mp4Writer(container, stream, (height, width), fps)
        yield writer
        writer.finish()


class Mp4Writer:
    """Writer of `open_mp4`. Further streams can be added to its `container` until the first frame is written."""

    def __init__(
        self, container: av.container.OutputContainer, stream: av.VideoStream, size: tuple[int, int], fps: Fraction
    ):
        self.container = container
        self.width, self.height = stream.width, stream.height  # as written: even
        self._stream = stream
        self._size = size  # (height, width)
        self._fps = fps
        self._time_base = stream.codec_context.time_base
        self._end = Fraction(0)  # of the frame written last, in seconds
        self._start: tuple[int, int] | None = None  # first pts and dts

    def write(
        self, frame: Any, timestamp: float | Fraction | None = None, duration: float | Fraction | None = None
    ) -> None:
        """Append a frame.

        Args:
            frame: See `as_pixels`.
            timestamp: Time at which it is shown, in seconds; by default the end of the previous frame.
            duration: Seconds for which it is shown, by default 1 / fps. Only the last one has an effect: other frames
                end when the next one starts.
        """
        pixels = as_pixels(frame)
        if pixels.shape[:2] != self._size:
            raise ValueError(f"Frames must have the (height, width) {self._size}, got {pixels.shape[:2]}.")
        timestamp = self._end if timestamp is None else timestamp
        self._end = timestamp + (1 / self._fps if duration is None else duration)
        height, width = self._size
        pixels = np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        image = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
            format="yuv420p",
            dst_colorspace=Colorspace.ITU709,
            dst_color_range=ColorRange.MPEG,
            interpolation=EXACT_CONVERSION,
        )
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


def _of_one_size(frames: Iterable[Any]) -> Iterator[np.ndarray]:
    size = None
    for index, frame in enumerate(frames):
        pixels = as_pixels(frame)
        size = size or pixels.shape
        if pixels.shape != size:
            raise ValueError(f"Frame {index} must have the shape of the frames before, {size}, got {pixels.shape}.")
        yield pixels


def _durations(num_frames: int, fps: float | Fraction, units_per_second: int) -> list[int]:
    """Duration of each frame in whole units; their sum never drifts from num_frames / fps."""
    ends = [round(index * units_per_second / fps) for index in range(num_frames + 1)]
    return [end - start for start, end in zip(ends, ends[1:], strict=False)]


def _write_gif(path: Path, frames: list[np.ndarray], fps: float | Fraction, metadata: Mapping[str, Any]) -> None:
    # One palette for all frames: with a palette per frame, still parts of the image shimmer.
    sample = np.concatenate(frames[:: max(1, len(frames) // 8)])
    palette = Image.fromarray(sample).quantize(256, method=Image.Quantize.MEDIANCUT)
    images = [Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=[10 * duration for duration in _durations(len(frames), fps, 100)],  # Pillow takes ms, GIF has 10 ms
        loop=0,
        comment=json.dumps(metadata).encode("ascii"),  # the format allows no other characters
    )


def _write_webp(path: Path, frames: list[np.ndarray], fps: float | Fraction, metadata: Mapping[str, Any]) -> None:
    exif = Image.Exif()
    exif[_EXIF_IMAGE_DESCRIPTION] = json.dumps(metadata)
    images = [Image.fromarray(frame) for frame in frames]
    images[0].save(
        path,
        save_all=True,
        append_images=images[1:],
        duration=_durations(len(frames), fps, 1000),
        loop=0,
        quality=90,
        exif=exif,
    )


def _write_pngs(path: Path, frames: Iterable[np.ndarray], metadata: Mapping[str, Any]) -> None:
    text = PngInfo()
    text.add_itxt(METADATA_KEY, json.dumps(metadata, ensure_ascii=False))
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"frame_{index:04d}.png", pnginfo=text)
