"""Checkpoints that a crash cannot damage: write, verify, find, resume.

The state of a run (weights, moments, moving average, loss scaler) is saved and restored bit for bit.

A checkpoint is a directory `checkpoint-STEP` whose `manifest.json` holds the SHA-256 of each of its files. It is
written aside, synced and renamed, and only then are older ones deleted. At every moment of a save, whatever kills the
process, the newest checkpoint that verifies is either the one before or the new one, whole.
"""

import json
import logging
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from landscape_video.files import hash_file, write_directory, write_json
from landscape_video.training.objectives.sharded_weights import split_like, whole
from landscape_video.training.run.optimization import WeightAverage
from landscape_video.training.run.sharding import are_moments_split, split_moments, whole_moments


TENSORS = "training_state.safetensors"
VALUES = "training_state.json"

MANIFEST = "manifest.json"

logger = logging.getLogger("training")


class TrainingState:
    """Everything that training changes, by name. What FSDP or DeepSpeed splits is gathered.

    Args:
        parameters: Trainable parameters by name, in the order of the optimizer's one parameter group.
        optimizer: Any torch optimizer whose state consists of tensors, also as accelerate wraps it.
        average: Moving average of some of `parameters`.
        scaler: Loss scaler of float16 training.
    """

    def __init__(
        self,
        parameters: dict[str, nn.Parameter],
        optimizer: torch.optim.Optimizer,
        average: WeightAverage | None = None,
        scaler: torch.amp.GradScaler | None = None,
    ) -> None:
        self.parameters = parameters
        self.optimizer = optimizer
        self.average = average
        self.scaler = scaler

    @torch.no_grad()
    def save(self, directory: Path | None, **values: Any) -> None:
        """Write the state, and JSON `values` with it, into an existing directory.

        Where weights or moments are split, all processes must call this, those that do not write with None.

        Raises:
            ValueError: A weight is not finite, which would spoil every run that resumes from here.
        """
        tensors = {}
        for name, tensor in self._tensors():
            tensor = whole(tensor)
            if name.startswith("weights/") and not torch.isfinite(tensor).all():
                name = name.removeprefix("weights/")
                raise ValueError(
                    f"{name} has values that are not finite, so this state was not saved: lower --learning_rate."
                )
            if directory is not None:
                tensors[name] = tensor.contiguous().cpu()
        if directory is None:
            return
        for name, parameter in self.parameters.items():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                if not isinstance(value, torch.Tensor):  # bitsandbytes counts its steps in plain numbers
                    values.setdefault("optimizer", {})[f"{key}/{name}"] = value
        if self.average is not None:
            values["ema_steps"] = self.average.ema.optimization_step
        if self.scaler is not None:
            values["scaler"] = self.scaler.state_dict()
        save_file(tensors, directory / TENSORS)
        (directory / VALUES).write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")

    def _tensors(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, parameter in self.parameters.items():
            yield f"weights/{name}", parameter.detach()
        for name, parameter in self.parameters.items():
            for key, value in whole_moments(self.optimizer, parameter).items():
                if isinstance(value, torch.Tensor):
                    yield f"optimizer/{key}/{name}", value.clone() if key.startswith("qmap") else value  # shared
        if self.average is not None:
            yield from ((f"ema/{name}", average) for name, average in self.average.averages().items())

    @torch.no_grad()
    def load(self, directory: Path) -> dict[str, Any]:
        """Restore the state that `save` wrote and return its `values`.

        Raises:
            ValueError: The trainable parameters differ from those of the checkpoint, or only one run has an EMA.
        """
        values = json.loads((directory / VALUES).read_text(encoding="utf-8"))
        tensors = load_file(directory / TENSORS)
        averages = {} if self.average is None else self.average.averages()
        self._check({*tensors}, averages, directory)
        moments: dict[str, dict[str, Any]] = {name: {} for name in self.parameters}
        plain = {f"optimizer/{key}": value for key, value in values.get("optimizer", {}).items()}
        for key, value in (tensors | plain).items():
            kind, _, rest = key.partition("/")
            if kind == "weights":
                self.parameters[rest].copy_(split_like(value, self.parameters[rest]))
            elif kind == "ema":
                averages[rest].copy_(split_like(value, averages[rest]))
            else:
                moment, _, name = rest.partition("/")
                moments[name][moment] = split_like(value, self.parameters[name])
        first = next(iter(self.parameters.values()))
        if are_moments_split(first):
            for name, parameter in self.parameters.items():
                split_moments(self.optimizer, parameter, moments[name])
        else:
            groups = self.optimizer.state_dict()["param_groups"]
            self.optimizer.load_state_dict({"state": dict(enumerate(moments.values())), "param_groups": groups})
        if self.average is not None:
            self.average.ema.optimization_step = values["ema_steps"]
        if self.scaler is not None and "scaler" in values:
            self.scaler.load_state_dict(values["scaler"])
        return values

    def _check(self, found: set[str], averages: dict[str, torch.Tensor], directory: Path) -> None:
        expected = {f"weights/{name}" for name in self.parameters} | {f"ema/{name}" for name in averages}
        found = {name for name in found if not name.startswith("optimizer/")}
        if different := sorted(expected ^ found):
            state = "now, but not then" if different[0] in expected else "then, but not now"
            raise ValueError(
                f"{directory} was written with other flags: {len(different)} tensors differ, the first is "
                f"{different[0]}, which trains {state}."
            )


class CheckpointError(RuntimeError):
    """A checkpoint is missing, incomplete or damaged."""


class OutputDirInUse(ValueError):
    """The folder holds another run, which a new run must not touch."""


@contextmanager
def write_checkpoint(output_dir: str | Path, step: int, total_limit: int | None = None) -> Iterator[Path]:
    """Open an empty directory that becomes `output_dir/checkpoint-STEP` when the block ends; then delete older ones.

    Args:
        output_dir: Folder of all checkpoints of a run.
        step: Number of finished optimizer steps.
        total_limit: Number of checkpoints up to this step to keep, the new one included; None keeps all.

    Raises:
        ValueError: `total_limit` is below 1.
    """
    if total_limit is not None and total_limit < 1:
        raise ValueError(f"`total_limit` must be at least 1, got {total_limit}.")
    output_dir = Path(output_dir)
    with write_directory(output_dir / f"checkpoint-{step}") as directory:
        yield directory
        _write_manifest(directory)
    for leftover in output_dir.glob(".checkpoint-*"):  # of saves that were killed
        shutil.rmtree(leftover, ignore_errors=True)
    if total_limit is not None:
        # Later steps than this one belong to another run and do not count.
        for path in [path for path in list_checkpoints(output_dir) if checkpoint_step(path) <= step][:-total_limit]:
            shutil.rmtree(path)


def verify_checkpoint(path: str | Path) -> None:
    """Compare each file of a checkpoint with its manifest.

    Raises:
        CheckpointError: A file is missing, additional or different, or the manifest is; the message names the first.
    """
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a directory.")
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
        expected = {str(name): str(digest) for name, digest in manifest["sha256"].items()}
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} has no {MANIFEST}: it is not a checkpoint, or its save did not finish."
        ) from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / MANIFEST} is damaged: {error}.") from None
    found = {file.relative_to(path).as_posix() for file in _files(path)}
    for name in sorted(expected.keys() ^ found):
        raise CheckpointError(f"{path / name} is {'missing' if name in expected else 'not in the manifest'}.")
    for name, digest in expected.items():
        if hash_file(path / name) != digest:
            raise CheckpointError(f"{path / name} differs from its hash in the manifest.")


def newest_valid_checkpoint(output_dir: str | Path) -> Path | None:
    """The checkpoint of the highest step that verifies, None without one; the log says which were skipped and why."""
    for path in reversed(list_checkpoints(output_dir)):
        try:
            verify_checkpoint(path)
        except CheckpointError as error:
            logger.warning("Skipped %s: %s", path.name, error)
        else:
            return path
    return None


def list_checkpoints(output_dir: str | Path) -> list[Path]:
    """All directories named `checkpoint-STEP`, valid or not, sorted by step."""
    paths = [path for path in Path(output_dir).glob("checkpoint-*") if re.fullmatch(r"checkpoint-\d+", path.name)]
    return sorted(paths, key=checkpoint_step)


def set_aside_checkpoints(output_dir: str | Path, resumed: Path, step: int) -> None:
    """Rename the checkpoints that do not belong to a run which resumes from `resumed`, whose step is `step`.

    Those of later steps, or all of them if `resumed` is in another folder, become `abandoned-checkpoint-STEP`, because
    "latest" would take them for this run's. Nothing is deleted, and each of them can still be resumed by its path.
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
        logger.warning("Resuming from %s, so %s is now called %s.", resumed, path, target.name)


def checkpoint_step(path: Path) -> int:
    """Number of finished steps, from a checkpoint's name."""
    return int(path.name.removeprefix("checkpoint-"))


def find_checkpoint(output_dir: Path, resume_from_checkpoint: str | None) -> Path | None:
    """The checkpoint that a run resumes from, None for a new run.

    Raises:
        CheckpointError: The given checkpoint, or every one that could be "latest", is damaged.
        OutputDirInUse: A new run would mix its checkpoints with those of an earlier one.
    """
    present = list_checkpoints(output_dir)
    if resume_from_checkpoint is None:
        if present:
            raise OutputDirInUse(
                f"{output_dir} holds checkpoints of an earlier run: resume it with --resume_from_checkpoint latest or "
                "choose another --output_dir."
            )
        return None
    if resume_from_checkpoint != "latest":
        verify_checkpoint(resume_from_checkpoint)
        return Path(resume_from_checkpoint)
    newest = newest_valid_checkpoint(output_dir)
    if newest is None and present:
        raise CheckpointError(f"None of the {len(present)} checkpoints in {output_dir} can be used.")
    if newest is None:
        logger.info("No checkpoint in %s: starting from the beginning.", output_dir)
    return newest


def resume(state: TrainingState, checkpoint: Path, settings: dict[str, str]) -> int:
    """Restore the state of a checkpoint, warn about settings that have changed since, and return its step."""
    values = state.load(checkpoint)
    for key in sorted(settings.keys() | values["settings"].keys()):
        before, now = values["settings"].get(key), settings.get(key)
        if before != now:
            logger.warning("%s was %s when %s was saved, and is %s now.", key, before, checkpoint.name, now)
    logger.info("Resumed from %s.", checkpoint)
    return values["step"]


def _write_manifest(directory: Path) -> None:
    digests = {file.relative_to(directory).as_posix(): hash_file(file) for file in _files(directory)}
    write_json(directory / MANIFEST, {"sha256": digests})


def _files(directory: Path) -> list[Path]:
    return sorted(file for file in directory.rglob("*") if file.is_file() and file != directory / MANIFEST)
