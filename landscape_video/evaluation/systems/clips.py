"""The clips of a folder: which there are, what each shows, and the frames that are measured."""

import json
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from landscape_video.files import hash_chunks
from pipeline_landscape_video.video_io import iterate_video, probe_video, read_metadata


VIDEOS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".gif")
PICTURES = (".png", ".jpg", ".jpeg", ".webp")
TABLE = "metadata.jsonl"


@dataclass(frozen=True)
class ClipFile:
    """A clip to measure.

    `prompt` is None where nobody says what it shows, `image` the picture it was made from, if there is one; `still`
    means its first frame, repeated; `group` is the same for clips of one prompt.
    """

    path: Path
    prompt: str | None = None
    seed: int | None = None
    image: Path | None = None
    still: bool = False
    group: int = 0

    def key(self, num_frames: int, stride: int, measurers: str) -> str:
        """Stands for all that decides what measuring it gives; `measurers` for those who look."""
        files = [self.path] if self.image is None else [self.path, self.image]
        settings = [num_frames, stride, self.prompt, self.still, self.image is not None, measurers]
        return hash_chunks([*(file.read_bytes() for file in files), json.dumps(settings).encode()])[:32]

    def frames(self, num_frames: int, stride: int) -> np.ndarray:
        """uint8 RGB (num_frames, height, width, 3), beginning with the first frame.

        Raises:
            ValueError: fewer frames than that, or a file that is damaged.
        """
        if self.still:
            return np.repeat(read_frames(self.path, 1, 1), num_frames, axis=0)
        return read_frames(self.path, num_frames, stride)

    def picture(self) -> np.ndarray | None:
        """uint8 RGB (height, width, 3) of `image`. Raises `ValueError` if it is none."""
        if self.image is None:
            return None
        try:
            with Image.open(self.image) as image:
                return np.asarray(image.convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise ValueError(f"{self.image}: is no picture that can be read.") from error


def read_frames(path: Path, num_frames: int, stride: int) -> np.ndarray:
    """Every `stride`th frame from the first one on."""
    frames = [frame.pixels for frame in islice(iterate_video(path), 0, (num_frames - 1) * stride + 1, stride)]
    if len(frames) < num_frames:
        raise ValueError(f"{path}: {num_frames} frames at stride {stride} were wanted, but there are {len(frames)}.")
    return np.stack(frames)


def list_clips(folder: str | Path, num_frames: int, stride: int, images: str | Path | None = None) -> list[ClipFile]:
    """All videos of a folder (not of its subfolders), sorted by name, each one looked at.

    What a clip shows stands inside (clips of ours), in NAME.txt beside it, or in the folder's `metadata.jsonl`
    (`file_name`, `text`), whichever comes first.

    Args:
        folder: of videos.
        num_frames, stride: that will be read.
        images: folder of pictures with the names of the clips, which they were made from.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: no videos, one that cannot be read or is too short, no picture for a clip.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: there is no such folder.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in VIDEOS and path.is_file())
    if not paths:
        raise ValueError(f"{folder}: holds no videos ({', '.join(VIDEOS)}).")
    texts, pictures = _texts_of_table(folder / TABLE), _pictures(images)
    clips = []
    for group, path in enumerate(paths):
        declared = probe_video(path).num_frames
        needed = (num_frames - 1) * stride + 1
        if declared is not None and declared < needed:
            raise ValueError(f"{path}: has {declared} frames, but {num_frames} at stride {stride} need {needed}.")
        if images is not None and path.stem not in pictures:
            raise ValueError(f"{images}: holds no picture {path.stem}.png for {path.name}.")
        metadata = read_metadata(path)
        prompt, seed = metadata.get("prompt"), metadata.get("seed")
        clips.append(
            ClipFile(
                path,
                prompt if isinstance(prompt, str) else _text_beside(path) or texts.get(path.name),
                seed if isinstance(seed, int) else None,
                pictures.get(path.stem),
                group=group,
            )
        )
    return clips


def _text_beside(path: Path) -> str | None:
    text = path.with_suffix(".txt")
    return _read_text(text).strip() or None if text.is_file() else None


def _texts_of_table(table: Path) -> dict[str, str]:
    if not table.is_file():
        return {}
    texts = {}
    for number, line in enumerate(_read_text(table).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts[row["file_name"]] = str(row["text"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{table}, line {number}: has to be {{"file_name": ..., "text": ...}}.') from error
    return texts


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 text.") from error


def _pictures(images: str | Path | None) -> dict[str, Path]:
    if images is None:
        return {}
    if not Path(images).is_dir():
        raise FileNotFoundError(f"{images}: there is no such folder.")
    return {path.stem: path for path in sorted(Path(images).iterdir()) if path.suffix.lower() in PICTURES}
