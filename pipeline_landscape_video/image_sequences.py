"""Read clips that Pillow opens: animated WebP, which FFmpeg does not read, and folders of PNG files."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, UnidentifiedImageError

from .video_decoding import MAX_PIXELS, VideoError, VideoFrame, VideoInfo
from .video_writing import SAMPLED_FPS, is_png_folder, png_files, read_metadata


MILLISECOND = Fraction(1, 1000)


def is_image_sequence(path: str | Path, file: BinaryIO | None = None) -> bool:
    """Whether a path, or a file that is open for reading, is a folder of PNG files or a WebP."""
    if file is None and not Path(path).is_file():
        return is_png_folder(path)
    if file is None:
        with open(path, "rb") as stream:
            header = stream.read(12)
    else:
        header = file.read(12)
        file.seek(0)
    return header[:4] == b"RIFF" and header[8:] == b"WEBP"


def iterate_images(path: str | Path, file: BinaryIO | None = None) -> Iterator[VideoFrame]:
    """Frames of a folder of PNG files or a WebP; see `iterate_video`."""
    if file is None and Path(path).is_dir():
        interval = 1 / _frame_rate(path)
        for number, png in enumerate(png_files(path)):
            with _opened(png) as image:
                yield VideoFrame(_to_pixels(image), number * interval, interval)
        return
    timestamp = Fraction(0)
    with _opened(path, file) as image:
        for number in range(image.n_frames):
            image.seek(number)
            pixels = _to_pixels(image)
            duration = (image.info.get("duration") or 100) * MILLISECOND  # 100 ms, as browsers show a duration of 0
            yield VideoFrame(pixels, timestamp, duration)
            timestamp += duration


def probe_images(path: str | Path) -> VideoInfo:
    """Return what `probe_video` returns for other files. All frames are decoded: only they determine a WebP's rate."""
    count, seconds = 0, Fraction(0)
    for frame in iterate_images(path):
        count, seconds = count + 1, frame.timestamp + frame.duration
    height, width, _ = frame.pixels.shape
    return VideoInfo(
        width=width,
        height=height,
        fps=count / seconds,
        time_base=1 / _frame_rate(path) if Path(path).is_dir() else MILLISECOND,
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
        image = Image.open(path if file is None else file)
    except (UnidentifiedImageError, OSError) as error:
        raise VideoError(f"{path}: not an image that can be read ({error}).") from error
    if image.width * image.height > MAX_PIXELS:
        raise VideoError(f"{path}: frames must have at most {MAX_PIXELS} pixels, got {image.width} x {image.height}.")
    return image


def _to_pixels(image: Image.Image) -> np.ndarray:
    from .landscape_pictures import upright_rgb  # loads torch, which other files do not need

    return np.array(upright_rgb(image))
