"""List the clips of a folder with their prompts, and read the frames that are measured."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from landscape_video.files import hash_file, hash_json
from landscape_video.generation.images import read_image
from pipeline_landscape_video.video_io import VIDEO_EXTENSIONS, is_clip, iterate_video, probe_video, read_metadata
from pipeline_landscape_video.video_writing import png_files


IMAGES = (".png", ".jpg", ".jpeg", ".webp")
TABLE = "metadata.jsonl"


@dataclass(frozen=True)
class ClipFile:
    """A clip to measure.

    Args:
        path: The video.
        prompt: What it shows, `None` if unknown.
        seed: Seed of its noise, `None` if unknown.
        image: Image that it begins with, if it was made from one.
        still: Whether to measure its first frame, repeated, instead.
        group: Number of its prompt: the same for clips of one prompt.
        labels: What it should show, by attribute: camera, palette, ...
    """

    path: Path
    prompt: str | None = None
    seed: int | None = None
    image: Path | None = None
    still: bool = False
    group: int = 0
    labels: Mapping[str, Any] = field(default_factory=dict)

    def key(self, num_frames: int, stride: int, models: str) -> str:
        """Hash everything that determines the measurements; `models` identifies the models that metrics use."""
        files = [hash_clip(self.path), *([hash_file(self.image)] if self.image is not None else [])]
        return hash_json([files, num_frames, stride, self.prompt, self.still, dict(self.labels), models])[:32]

    def frames(self, num_frames: int, stride: int) -> np.ndarray:
        """Every `stride`-th frame from the first on, uint8 RGB `(num_frames, height, width, 3)`.

        Raises:
            ValueError: The file has fewer frames, or is damaged.
        """
        needed, step = (1, 1) if self.still else (num_frames, stride)
        last = (needed - 1) * step + 1
        frames = [frame.pixels for frame in islice(iterate_video(self.path), 0, last, step)]
        if len(frames) < needed:
            raise ValueError(f"{self.path}: must have {needed} frames at stride {step}, got {len(frames)}.")
        return np.repeat(frames, num_frames, axis=0) if self.still else np.stack(frames)

    def read_image(self) -> np.ndarray | None:
        """`image` as uint8 RGB `(height, width, 3)`. Raises `ValueError` if it is not readable."""
        return None if self.image is None else np.asarray(read_image(self.image))


def hash_clip(path: Path) -> str:
    """Hash of a video, or of a folder of PNG files."""
    return hash_json([hash_file(file) for file in png_files(path)]) if path.is_dir() else hash_file(path)


def list_clips(folder: str | Path, num_frames: int, stride: int, images: str | Path | None = None) -> list[ClipFile]:
    """All videos of a folder, without its subfolders, sorted by name. Each is opened.

    The prompt of a clip is found in its metadata (clips of ours), in NAME.txt beside it, or in the folder's
    `metadata.jsonl` (`file_name`, `text`), whichever comes first. Other columns of that file are labels.

    Args:
        folder: Folder of videos.
        num_frames: Frames that will be measured.
        stride: Frame stride at which they will be read.
        images: Folder of images that the clips begin with, by the names of the clips.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: No videos, one that is not readable or too short, or a clip without its image.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    paths = sorted(path for path in folder.iterdir() if is_clip(path) and not path.name.startswith("."))
    if not paths:
        raise ValueError(f"{folder}: contains no videos ({', '.join(sorted(VIDEO_EXTENSIONS))}).")
    rows = _read_table(folder / TABLE)
    image_of = {} if images is None else {path.stem: path for path in _files_in(Path(images), IMAGES)}
    clips = []
    for group, path in enumerate(paths):
        declared, needed = probe_video(path).num_frames, (num_frames - 1) * stride + 1
        if declared is not None and declared < needed:
            raise ValueError(f"{path}: has {declared} frames, but {num_frames} at stride {stride} need {needed}.")
        if images is not None and path.stem not in image_of:
            raise ValueError(f"{images}: contains no image {path.stem}.png for {path.name}.")
        metadata = read_metadata(path)
        prompt, seed, row = metadata.get("prompt"), metadata.get("seed"), rows.get(path.name, {})
        if not isinstance(prompt, str):
            beside = path.with_suffix(".txt")
            prompt = (_read_text(beside).strip() if beside.is_file() else "") or row.get("text")
        seed = seed if isinstance(seed, int) else None
        clips.append(ClipFile(path, prompt, seed, image_of.get(path.stem), group=group, labels=row))
    return clips


def _files_in(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())


def _read_table(table: Path) -> dict[str, dict[str, Any]]:
    """The rows of a `metadata.jsonl` by file name, none if there is no such file."""
    rows = {}
    lines = _read_text(table).splitlines() if table.is_file() else []
    for number, line in ((number, line) for number, line in enumerate(lines, start=1) if line.strip()):
        try:
            row = json.loads(line)
            rows[row["file_name"]] = row | {"text": str(row["text"])}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{table}, line {number}: must be {{"file_name": ..., "text": ...}}.') from error
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 text.") from error
