"""Find folders of numbered images, which are clips."""

import re
from itertools import pairwise
from pathlib import Path


# Suffixes of still images. Folders are searched for them; any other image that Pillow reads can be named by itself.
IMAGE_SUFFIXES = frozenset(
    ".avif .bmp .gif .j2k .jfif .jp2 .jpe .jpeg .jpg .pgm .png .ppm .tga .tif .tiff .webp".split()
)
COMPANIONS = frozenset(".csv .db .html .ini .json .jsonl .md .srt .txt .vtt".split())  # files beside images and videos
# Images of folders that are clips; a numbered file of another kind may be an animation.
FRAME_SUFFIXES = IMAGE_SUFFIXES - {".avif", ".gif", ".webp"}
_NUMBERED = re.compile(r"(.*?)(\d+)")


def is_image_folder(path: str | Path) -> bool:
    """Whether a path is a folder of images of one kind whose names differ in a number; see `image_files`."""
    return Path(path).is_dir() and bool(image_files(path))


def image_files(folder: str | Path) -> list[Path]:
    """List the frames of a folder of images in the order of their numbers; empty if it is another kind of folder.

    There must be at least two, or one named as `write_video` names it. Hidden files, texts, and what file managers
    leave beside them do not count.
    """
    numbered, kinds = [], set()
    for entry in Path(folder).iterdir():
        if entry.name.startswith(".") or entry.suffix.lower() in COMPANIONS:
            continue
        name = _NUMBERED.fullmatch(entry.stem)
        if name is None or entry.suffix.lower() not in FRAME_SUFFIXES or not entry.is_file():
            return []
        kinds.add((name[1], entry.suffix.lower()))
        numbered.append((int(name[2]), entry))
    is_ours = kinds == {("frame_", ".png")}
    return [entry for _, entry in sorted(numbered)] if len(kinds) == 1 and (is_ours or len(numbered) > 1) else []


def count_missing(files: list[Path]) -> int:
    """Count the numbers that are missing between those of `image_files`, if most of them are evenly spaced."""
    numbers = [int(_NUMBERED.fullmatch(file.stem)[2]) for file in files]
    steps = [following - number for number, following in pairwise(numbers)]
    return sum(step // min(steps) - 1 for step in steps) if steps and min(steps) else 0
