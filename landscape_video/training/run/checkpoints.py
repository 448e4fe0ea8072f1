"""Checkpoints that a crash cannot spoil: written aside, synced, renamed, and only then are older ones deleted.

A checkpoint is a directory `checkpoint-STEP` whose `manifest.json` holds the SHA-256 of each of its files. What it
contains is the caller's affair. At every moment of a save, whatever kills the process, the newest checkpoint that
verifies is either the one before or the new one, whole.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from landscape_video.files import hash_file, write_directory, write_json


MANIFEST = "manifest.json"

logger = logging.getLogger(__name__)


class CheckpointError(RuntimeError):
    """A checkpoint is missing, incomplete or damaged."""


class OutputDirInUse(ValueError):
    """The folder holds another run, which a new one must not touch."""


@contextmanager
def write_checkpoint(output_dir: str | Path, step: int, total_limit: int | None = None) -> Iterator[Path]:
    """As `write_directory`, for `output_dir/checkpoint-STEP`; then older checkpoints are deleted.

    Args:
        output_dir: the folder of all checkpoints of a run.
        step: number of finished optimizer steps.
        total_limit: how many checkpoints up to this step to keep, the new one included, at least 1; None keeps all.
    """
    if total_limit is not None and total_limit < 1:
        raise ValueError(f"`total_limit` is {total_limit}, but has to be at least 1.")
    output_dir = Path(output_dir)
    with write_directory(output_dir / f"checkpoint-{step}") as directory:
        yield directory
        _write_manifest(directory)
    for leftover in output_dir.glob(".checkpoint-*"):  # of other steps, see above
        shutil.rmtree(leftover, ignore_errors=True)
    if total_limit is not None:
        # Later steps than this one are of another run: they are not ours to count.
        for path in [path for path in list_checkpoints(output_dir) if checkpoint_step(path) <= step][:-total_limit]:
            shutil.rmtree(path)


def verify_checkpoint(path: str | Path) -> None:
    """Compare each file of a checkpoint with its manifest.

    Raises:
        CheckpointError: naming the first file that is missing, additional or different, or the missing manifest.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory.")
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        expected = {str(name): str(digest) for name, digest in manifest["sha256"].items()}
    except FileNotFoundError:
        raise CheckpointError(f"{path} has no {MANIFEST}: it is no checkpoint, or its save did not finish.") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / MANIFEST} is damaged: {error}.") from None
    found = {file.relative_to(path).as_posix() for file in _files(path)}
    for name in sorted(expected.keys() ^ found):
        raise CheckpointError(f"{path / name} is {'missing' if name in expected else 'not in the manifest'}.")
    for name, digest in expected.items():
        if hash_file(path / name) != digest:
            raise CheckpointError(f"{path / name} differs from its hash in the manifest.")


def newest_valid_checkpoint(output_dir: str | Path) -> Path | None:
    """The checkpoint of the highest step that verifies, or None; the log says which were skipped and why."""
    for path in reversed(list_checkpoints(output_dir)):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            logger.warning("Skipped %s: %s", path.name, error)
        else:
            return path
    return None


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """All directories named `checkpoint-STEP`, valid or not, in the order of their steps."""
    paths = [path for path in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(paths, key=checkpoint_step)


def set_aside_checkpoints(output_dir: str | Path, resumed: Path, step: int) -> None:
    """Rename the checkpoints that no longer lead anywhere once a run goes on from `resumed`, whose step is `step`.

    Those of later steps, or all of them where `resumed` lies in another folder, become `abandoned-checkpoint-STEP`:
    "latest" would take them for this run's. Nothing is deleted, and any of them can still be resumed by its path.
    """
    output_dir = Path(output_dir)
    same_run = resumed.resolve().parent == output_dir.resolve()
    for path in list_checkpoints(output_dir):
        if same_run and checkpoint_step(path) <= step:
            continue
        target, number = output_dir / f"abandoned-{path.name}", 1
        while target.exists():
            number += 1
            target = output_dir / f"abandoned-{path.name}-{number}"
        path.rename(target)
        logger.warning("Going on from %s, so %s is now called %s.", resumed, path, target.name)


def checkpoint_step(path: Path) -> int:
    """The number of finished steps that a checkpoint's name tells."""
    return int(path.name.removeprefix("checkpoint-"))


def _write_manifest(directory: Path) -> None:
    digests = {file.relative_to(directory).as_posix(): hash_file(file) for file in _files(directory)}
    write_json(directory / MANIFEST, {"sha256": digests})


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file() and file != directory / MANIFEST)
