"""Write clips as .mp4, .gif, .webp or a folder of PNG files, chosen by the name of the output.

A file or folder appears under its name only when it is complete. Every format carries metadata (prompt,
seed, settings, versions), which `read_metadata` returns.
"""

import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .atomic_writing import write_directory, write_file
from .image_files import image_files
from .mp4_writing import METADATA_KEY, METADATA_KEY_BESIDE_COVER, as_pixels, open_mp4


VIDEO_SUFFIXES = (".mp4", ".gif", ".webp")
SAMPLED_FPS = 8.0  # frame rate of sampled clips; interpolation doubles it
MAX_GIF_FPS = 50  # browsers slow faster GIFs down to 10 frames per second
_PNG_NAME = re.compile(r"frame_\d+\.png")
_EXIF_IMAGE_DESCRIPTION = 0x010E
# Flags of WebP's container
_WEBP_EXIF, _WEBP_ANIMATION, _WEBP_NO_BLENDING = 0x08, 0x02, 0x02


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


def is_png_folder(path: str | Path) -> bool:
    """Return whether a path is a folder that contains nothing but `frame_0000.png`, ..."""
    return Path(path).is_dir() and all(_PNG_NAME.fullmatch(entry.name) for entry in Path(path).iterdir())


def read_metadata(path: str | Path) -> dict[str, Any]:
    """Read the metadata that `write_video` stored in a file or folder; an empty dictionary if it has none."""
    path = Path(path)
    if path.is_dir():
        path = next(iter(image_files(path)), path / "frame_0000.png")
        if path.suffix.lower() != ".png":
            return {}
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
            text = container.metadata.get(METADATA_KEY) or container.metadata.get(METADATA_KEY_BESIDE_COVER, "")
    try:
        metadata = json.loads(text)
    except json.JSONDecodeError:  # the comment of another program
        return {}
    return metadata if isinstance(metadata, dict) else {}


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
    # libwebp's encoder of animations merges frames that differ by up to 3 levels, such as those of a slow fade. So
    # each frame is encoded by itself, and the container is written here.
    height, width, _ = frames[0].shape
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    chunks = [_chunk(b"VP8X", bytes([_WEBP_EXIF | _WEBP_ANIMATION, 0, 0, 0]) + size), _chunk(b"ANIM", bytes(6))]
    for frame, duration in zip(frames, _durations(len(frames), fps, 1000), strict=True):
        still = BytesIO()
        Image.fromarray(frame).save(still, "WEBP", quality=90)
        place = bytes(6) + size + duration.to_bytes(3, "little") + bytes([_WEBP_NO_BLENDING])
        chunks.append(_chunk(b"ANMF", place + still.getvalue()[12:]))
    chunks.append(_chunk(b"EXIF", exif.tobytes()))
    path.write_bytes(_chunk(b"RIFF", b"WEBP" + b"".join(chunks)))


def _chunk(name: bytes, content: bytes) -> bytes:
    """A chunk of a RIFF file, padded to an even length."""
    return name + len(content).to_bytes(4, "little") + content + bytes(len(content) % 2)


def _write_pngs(path: Path, frames: Iterable[np.ndarray], metadata: Mapping[str, Any]) -> None:
    text = PngInfo()
    text.add_itxt(METADATA_KEY, json.dumps(metadata, ensure_ascii=False))
    for index, frame in enumerate(frames):
        Image.fromarray(frame).save(path / f"frame_{index:04d}.png", pnginfo=text)
