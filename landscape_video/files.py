"""Write files and folders so that readers, and a crash, meet either the old content or the new one."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_directory(path: str | Path) -> Iterator[Path]:
    """Give an empty directory to write into; when the block ends, it takes the place of `path`, synced to disk.

    When the block or anything after it raises, what was written is removed and what was at `path` stays.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.incomplete")
    replaced = path.with_name(f".{path.name}.replaced")
    # Leftovers of a process that was killed while it wrote; between the two renames, what was at `path` lies aside.
    shutil.rmtree(aside, ignore_errors=True)
    if replaced.exists() and not path.exists():
        replaced.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        for file in [*sorted(aside.rglob("*")), aside]:
            sync_to_disk(file)
        if path.exists():  # a directory cannot be renamed onto a full one
            path.rename(replaced)
        aside.rename(path)
        sync_to_disk(path.parent)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        if replaced.exists() and not path.exists():
            replaced.rename(path)
        raise
    shutil.rmtree(replaced, ignore_errors=True)


def write_json_atomically(path: str | Path, value: object) -> None:
    """Write `value` as JSON so that readers, and a crash, meet either the old file or the new one."""
    write_text_atomically(path, json.dumps(value, indent=2) + "\n")


def write_text_atomically(path: str | Path, text: str) -> None:
    """Write UTF-8 `text` so that readers, and a crash, meet either the old file or the new one."""
    path = Path(path)
    aside = path.with_name(f".{path.name}.incomplete")
    try:
        aside.write_text(text, encoding="utf-8")
        sync_to_disk(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def sync_to_disk(path: Path) -> None:
    """Let a file or a folder's entries survive a power cut."""
    posix = hasattr(os, "O_DIRECTORY")  # Windows opens no folder, and syncs only files that it may write
    if path.is_dir() and not posix:
        return
    descriptor = os.open(path, os.O_RDONLY if posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
