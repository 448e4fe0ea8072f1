"""Read clips that Pillow opens: animated WebP, AVIF with transparency, and folders of numbered images."""

import logging
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image

from .image_files import count_missing, image_files, is_image_folder
from .video_decoding import MAX_PIXELS, VideoError, VideoFrame, VideoInfo
from .video_writing import SAMPLED_FPS, read_metadata


MILLISECOND = Fraction(1, 1000)
# What Pillow raises for files that it cannot read.
PILLOW_ERRORS = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)

logger = logging.getLogger(__name__)


def is_image_sequence(path: str | Path, file: BinaryIO | None = None) -> bool:
    """Whether a path, or a file that is open for reading, is a folder of images or a file that only Pillow reads."""
    if file is None and not Path(path).is_file():
        return is_image_folder(path)
    header = _header(path, file)
    if header[4:12] in (b"ftypavif", b"ftypavis"):  # FFmpeg decodes the transparency of AVIF as another video
        image = _opened(path, file)
        if file is not None:
            file.seek(0)
        return image.mode == "RGBA"
    return header[:4] == b"RIFF" and header[8:12] == b"WEBP"


def _header(path: str | Path, file: BinaryIO | None) -> bytes:
    if file is None:
        with open(path, "rb") as stream:
            return stream.read(16)
    header = file.read(16)
    file.seek(0)
    return header


def iterate_images(path: str | Path, file: BinaryIO | None = None) -> Iterator[VideoFrame]:
    """Frames of a folder of images, a WebP or an AVIF; see `iterate_video`."""
    if file is None and Path(path).is_dir():
        return _iterate_folder(Path(path))
    return _iterate_animation(path, file)


def _iterate_folder(folder: Path) -> Iterator[VideoFrame]:
    files, interval, size = image_files(folder), 1 / _frame_rate(folder), None
    if "fps" not in read_metadata(folder):
        logger.warning("%s: declares no frame rate; it is taken for %g frames per second.", folder, 1 / interval)
    if missing := count_missing(files):
        logger.warning("%s: %d images between the first and the last are missing.", folder, missing)
    for number, file in enumerate(files):
        with _opened(file) as image:
            pixels = _to_pixels(image, file)
        size = size or pixels.shape
        if pixels.shape != size:
            raise VideoError(
                f"{folder}: frames change from {size[1]} x {size[0]} to {pixels.shape[1]} x {pixels.shape[0]} pixels "
                f"at {file.name}; scale them to one size."
            )
        yield VideoFrame(pixels, number * interval, interval)


def _iterate_animation(path: str | Path, file: BinaryIO | None) -> Iterator[VideoFrame]:
    timestamp = Fraction(0)
    with _opened(path, file) as image:
        for number in range(image.n_frames):
            pixels = _to_pixels(image, path, number)
            duration = (image.info.get("duration") or 100) * MILLISECOND  # 100 ms, as browsers show a duration of 0
            yield VideoFrame(pixels, timestamp, duration)
            timestamp += duration


def probe_images(path: str | Path) -> VideoInfo:
    """Return what `probe_video` returns for other files. All frames of an animation determine its rate."""
    if Path(path).is_dir():
        files, time_base = image_files(path), 1 / _frame_rate(path)
        with _opened(files[0]) as image:
            height, width, _ = _to_pixels(image, files[0]).shape
        count, seconds = len(files), len(files) * time_base
    else:
        count, seconds, time_base = 0, Fraction(0), MILLISECOND
        for frame in iterate_images(path):
            count, seconds = count + 1, frame.timestamp + frame.duration
        height, width, _ = frame.pixels.shape
    return VideoInfo(
        width=width,
        height=height,
        fps=count / seconds,
        time_base=time_base,
        num_frames=count,
        duration=seconds,
        color_primaries=1,
        color_trc=1,
        tags={},
    )


def _frame_rate(folder: str | Path) -> Fraction:
    fps = read_metadata(folder).get("fps", SAMPLED_FPS)
    return Fraction(fps).limit_denominator(1001)


def _opened(path: str | Path, file: BinaryIO | None = None) -> Image.Image:
    try:
        if _header(path, file)[8:] == b"WEBPVP8X":
            # The canvas around partial frames is transparent, but libwebp leaves it black unless the header says that
            # the file has transparency, which encoders forget where every frame is opaque.
            data = bytearray(Path(path).read_bytes() if file is None else file.read())
            data[20] |= 0x10
            image = Image.open(BytesIO(data))
        else:
            image = Image.open(path if file is None else file)
    except PILLOW_ERRORS as error:
        raise VideoError(f"{path}: not an image that can be read ({error}).") from error
    if image.width * image.height > MAX_PIXELS:
        raise VideoError(f"{path}: frames must have at most {MAX_PIXELS} pixels, got {image.width} x {image.height}.")
    return image


def _to_pixels(image: Image.Image, path: str | Path, frame: int = 0) -> np.ndarray:
    from .landscape_pictures import upright_rgb  # loads torch, which other files do not need

    try:
        if frame:
            image.seek(frame)
        return np.array(upright_rgb(image))
    except PILLOW_ERRORS as error:
        raise VideoError(f"{path}: frame {frame} cannot be decoded ({error}).") from error
