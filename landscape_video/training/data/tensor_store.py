"""Read and write tensors in safetensors files: the one place that training's caches of latents and prompts go through.

A `TensorStore` finds tensors by name. Whatever determines a tensor's values goes into its folder's name and its own
name as hashes: a store never holds anything out of date, and several runs can share and extend it at once.
"""

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from landscape_video.files import hash_chunks, hash_json, write_file


SHARDS = "shard-*.safetensors"

logger = logging.getLogger(__name__)


class TensorReader:
    """Reads tensors, or parts of them, and keeps the files open; each worker process opens its own."""

    def __init__(self) -> None:
        self._handles: dict[Path, Any] = {}

    def read(self, file: Path, name: str, *index: int | slice) -> torch.Tensor:
        """Read the tensor `name` of a file, or the part of it that the index selects along its first axes."""
        if file not in self._handles:
            self._handles[file] = safe_open(file, framework="pt")
        return self._handles[file].get_slice(name)[index or slice(None)]

    def __getstate__(self) -> dict[str, Any]:
        return {"_handles": {}}  # open files cannot be sent to worker processes


class TensorStore:
    """Named tensors in the shards of one folder. Shards are never changed; damaged ones count as never written.

    Attributes:
        shards: For each tensor, the file that holds it.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.reader = TensorReader()
        self.shards: dict[str, Path] = {}
        self.refresh()

    def refresh(self) -> None:
        """Find shards that other processes have written."""
        for shard in sorted(set(self.directory.glob(SHARDS)) - set(self.shards.values())):
            try:
                with safe_open(shard, framework="pt") as file:
                    self.shards |= dict.fromkeys(file.keys(), shard)
            except SafetensorError as error:
                logger.warning("Skipped the damaged file %s: %s", shard, error)

    def read(self, name: str) -> torch.Tensor:
        """Read a tensor. Raises a `KeyError` if it is missing."""
        return self.reader.read(self.shards[name], name)

    def write(self, tensors: dict[str, torch.Tensor]) -> None:
        """Add a shard with these tensors; it appears when it is complete."""
        self.directory.mkdir(parents=True, exist_ok=True)
        shard = self.directory / SHARDS.replace("*", hash_json(sorted(tensors))[:32])
        write_tensors(shard, tensors)
        self.shards |= dict.fromkeys(tensors, shard)


def write_tensors(path: Path, tensors: dict[str, torch.Tensor]) -> None:
    """Write a safetensors file, whole or not at all."""
    with write_file(path) as unfinished:
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, unfinished)


def read_shape(path: Path, name: str, dtype: str, axes: tuple[int | str, ...]) -> tuple[int, ...]:
    """Shape of the only tensor in a file.

    Args:
        path: File to look into.
        name: Name that the tensor must have.
        dtype: Type that it must have, as safetensors writes it: "F16", "U8".
        axes: Names of its axes; a number where the size is fixed.

    Raises:
        ValueError: The file is damaged, or holds something else; the message names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            if (names := list(file.keys())) != [name]:
                raise ValueError(f"{path} must hold the single tensor {name!r}, got {names}.")
            view = file.get_slice(name)
            shape, found = tuple(view.get_shape()), view.get_dtype()
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: {error}.") from None
    fixed = [(axis, size) for axis, size in zip(axes, shape, strict=False) if isinstance(axis, int)]
    if found != dtype or len(shape) != len(axes) or any(axis != size for axis, size in fixed):
        raise ValueError(f"{path}: `{name}` must be {dtype}, ({', '.join(map(str, axes))}), got {found}, {shape}.")
    return shape


def hash_model(model: nn.Module) -> str:
    """SHA-256 of a model's config and weights."""
    config = model.config if isinstance(model.config, dict) else model.config.to_dict()
    settings = {name: value for name, value in config.items() if not name.startswith("_")}

    def content() -> Iterator[Any]:
        yield json.dumps(settings, sort_keys=True, default=str).encode()
        for name, tensor in sorted(model.state_dict().items()):
            yield f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode()
            yield tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()

    return hash_chunks(content())
