"""Write files and folders whole or not at all: readers, and a crash, find either the old content or the new one."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def write_file(path: str | Path) -> Iterator[Path]:
    """
    Yield a path beside `path` to write a file to. When the block ends, that file is synced to disk and takes the name
    `path`; if the block raises, it is removed and `path` stays as it was. Several processes may write the same `path`.
    """
    path = Path(path)
    # The suffix is kept because many writers choose the format by it.
    unfinished = path.with_name(f".{path.stem}.{secrets.token_hex(4)}{path.suffix}")
    try:
        yield unfinished
        _sync_to_disk(unfinished)
        unfinished.replace(path)
        _sync_to_disk(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


@contextmanager
def write_directory(path: str | Path, overwrite: bool = True) -> Iterator[Path]:
    """
    Yield an empty folder to write into. When the block ends, that folder is synced to disk and takes the place of
    `path`; if the block raises, it is removed and `path` stays as it was. Missing parents of `path` are created.

    One process at a time may write the same `path`: the next call removes what a killed process left behind.

    Raises:
        FileExistsError: `path` is a file, or (unless `overwrite`) a folder that is not empty.
    """
    path = Path(path).absolute()
    unfinished = path.with_name(f".{path.name}.incomplete")
    replaced = path.with_name(f".{path.name}.replaced")
    _remove_leftovers(path, unfinished, replaced)
    check_replaceable(path, overwrite)
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for entry in [*sorted(unfinished.rglob("*")), unfinished]:
            _sync_to_disk(entry)
        if path.exists():  # a folder cannot be renamed onto a non-empty one
            path.rename(replaced)
        unfinished.rename(path)
        _sync_to_disk(path.parent)
    finally:
        _remove_leftovers(path, unfinished, replaced)


def check_replaceable(directory: str | Path, overwrite: bool = False) -> None:
    """Raise a `FileExistsError` if `directory` is a file, or a folder that is not empty (unless `overwrite`)."""
    directory = Path(directory).absolute()
    if directory.is_file() or (directory.is_dir() and any(directory.iterdir()) and not overwrite):
        raise FileExistsError(f"{directory} exists already; remove it, or choose another folder.")


def _remove_leftovers(path: Path, unfinished: Path, replaced: Path) -> None:
    """Clean up after a save of `path`, whether it succeeded, failed, or its process was killed."""
    shutil.rmtree(unfinished, ignore_errors=True)
    if replaced.exists() and not path.exists():  # stopped between the two renames: the old folder comes back
        replaced.rename(path)
    shutil.rmtree(replaced, ignore_errors=True)


def _sync_to_disk(path: Path) -> None:
    """Make the content of a file, or the list of a folder's entries, survive a power cut."""
    posix = hasattr(os, "O_DIRECTORY")  # Windows cannot open folders, and syncs only files opened for writing
    if path.is_dir() and not posix:
        return
    descriptor = os.open(path, os.O_RDONLY if posix else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
