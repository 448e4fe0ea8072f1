"""Folders that appear when they are complete, and not before."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def write_folder(directory: str | Path, overwrite: bool = False) -> Iterator[Path]:
    """
    Give an empty folder beside `directory`, which takes its name when the block ends, and is removed if it raises.

    Raises:
        FileExistsError: as `check_replaceable`.
    """
    check_replaceable(directory, overwrite)
    directory = Path(directory).absolute()
    unfinished = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        _replace(unfinished, directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def check_replaceable(directory: str | Path, overwrite: bool = False) -> None:
    """Raise a `FileExistsError` if `directory` is a file, or (unless `overwrite`) has files in it."""
    directory = Path(directory).absolute()
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir()) and not overwrite):
        raise FileExistsError(f"{directory} exists already; remove it, or choose another folder.")


def write_json(file: Path, entries: dict[str, Any]) -> None:
    """Readable JSON with a line end, as diffusers writes it."""
    file.write_text(json.dumps(entries, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _replace(unfinished: Path, directory: Path) -> None:
    """Move a complete folder to its place; the old one is removed only after that."""
    old = directory.with_name(f".{directory.name}.{uuid.uuid4().hex}")
    if directory.exists():
        directory.rename(old)
    try:
        unfinished.rename(directory)
    except OSError:
        if old.exists():
            old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)
