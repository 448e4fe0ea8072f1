"""Read and write clips, for every package of the project.

Reading is strict: a file with fewer frames than it declares, or that cannot be decoded to its end, raises a
`VideoError` that names it. Frames are upright, with square pixels, each with its own timestamp. Videos are decoded in
`video_decoding.py`, clips are written in `video_writing.py`; what others need of both can be imported from here.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from .image_files import COMPANIONS, is_image_folder
from .image_sequences import is_image_sequence, iterate_images, probe_images
from .mp4_writing import Mp4Writer, as_pixels, open_mp4
from .video_decoding import VideoError, VideoFrame, VideoInfo, decode_video, probe_container, start_offset
from .video_writing import (
    check_output,
    is_png_folder,
    read_metadata,
    write_video,
)


__all__ = [
    "Clip",
    "Mp4Writer",
    "VIDEO_EXTENSIONS",
    "VideoError",
    "VideoFrame",
    "VideoInfo",
    "as_pixels",
    "check_output",
    "describe_others",
    "is_clip",
    "is_png_folder",
    "iterate_video",
    "open_mp4",
    "probe_video",
    "read_metadata",
    "read_video",
    "start_offset",
    "write_video",
]

# Names that a folder is searched for; any other file that FFmpeg reads can be named by itself.
VIDEO_EXTENSIONS = frozenset(
    "3g2 3gp apng asf avi avif divx dv f4v flv gif m2t m2ts m2v m4v mjpeg mjpg mkv mov mp4 mpe mpeg mpg mpv mts mxf"
    " nut ogm ogv qt rm rmvb ts vob webm webp wmv y4m".split()
)


class Clip(NamedTuple):
    """A clip: `frames` (num_frames, height, width, 3) uint8 RGB, `timestamps` (num_frames,) in seconds, mean `fps`."""

    frames: np.ndarray
    timestamps: np.ndarray
    fps: float


def is_clip(path: str | Path) -> bool:
    """Whether a path in a folder is taken for a clip: a file by its extension, or a folder of numbered images."""
    path, extension = Path(path), Path(path).suffix.lower().removeprefix(".")
    if not path.is_file():
        return is_image_folder(path)
    return extension in VIDEO_EXTENSIONS or (extension == "png" and _is_animated_png(path))


def _is_animated_png(path: Path) -> bool:
    with path.open("rb") as file:
        return b"acTL" in file.read(4096).partition(b"IDAT")[0]


def describe_others(paths: Iterable[Path]) -> str | None:
    """Count by suffix the files that are left out, since they are not clips; None if all are texts or hidden."""
    others = Counter(
        path.suffix.lower() or "no suffix"
        for path in paths
        if not path.name.startswith(".") and path.suffix.lower() not in COMPANIONS and not path.is_dir()
    )
    if not others:
        return None
    found = ", ".join(f"{count} of {suffix}" for suffix, count in sorted(others.items()))
    return f"{others.total()} files have no name of a video and are left out: {found}."


def read_video(path: str | Path) -> Clip:
    """Read a whole clip into memory. Raises `VideoError` as `iterate_video` does."""
    frames = list(iterate_video(path))
    seconds = frames[-1].timestamp + frames[-1].duration - frames[0].timestamp
    timestamps = np.array([frame.timestamp for frame in frames], dtype=np.float64)
    return Clip(np.stack([frame.pixels for frame in frames]), timestamps, float(len(frames) / seconds))


def probe_video(path: str | Path) -> VideoInfo:
    """Read what a file declares. Its first frame is decoded too, because only that has the rotation."""
    return probe_images(path) if is_image_sequence(path) else probe_container(path)


def iterate_video(path: str | Path, file: BinaryIO | None = None, as_stored: bool = False) -> Iterator[VideoFrame]:
    """Decode a video frame by frame, in constant memory.

    Args:
        path: Any file that FFmpeg reads, an animated WebP, or a folder of numbered images, as `write_video` writes it.
            Rotation and pixel aspect are applied: frames are upright, with square pixels, and are stretched rather
            than shrunk for that. Interlaced frames are deinterlaced; what is transparent is on white.
        file: Seekable file to read from instead; `path` is then only its name, for messages.
        as_stored: Keep the color volume of the file. By default, high dynamic range (PQ, HLG) and wide gamuts are
            mapped to BT.709, with a warning.

    Yields:
        `VideoFrame`s in the order they are shown. Timestamps are those of the file; in formats whose clock can start
        anywhere (MPEG-TS, MPEG-PS) they count from the start of the file. Missing ones, and those that do not rise,
        are repaired, with a warning.

    Raises:
        FileNotFoundError: The file does not exist.
        VideoError: Not a video, damaged data, frames that change their size, or an end before the declared number of
            frames or duration; possibly after some frames were yielded.
    """
    return iterate_images(path, file) if is_image_sequence(path, file) else decode_video(path, file, as_stored)
