"""Tensors on disk under names, in safetensors shards that are never changed once they are written.

What made a tensor belongs into the folder's name and into the tensor's, as hashes: then a store never holds anything
out of date, and several runs may share and extend it at once.
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


class TensorStore:
    """The shards of one folder; a damaged shard is passed over with a warning, as if it had never been written."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._shard_of: dict[str, Path] = {}
        self._handles: dict[Path, Any] = {}  # opened when a process first reads from them
        self.refresh()

    def refresh(self) -> None:
        """Look for what other processes have written."""
        for shard in sorted(set(self.directory.glob(SHARDS)) - set(self._shard_of.values())):
            try:
                with safe_open(shard, framework="pt") as file:
                    self._shard_of |= dict.fromkeys(file.keys(), shard)
            except SafetensorError as error:
                logger.warning("Passed over %s, which is damaged: %s", shard, error)

    def __contains__(self, name: str) -> bool:
        return name in self._shard_of

    def read(self, name: str, rows: slice = slice(None)) -> torch.Tensor:
        """The tensor of that name, or some rows of it. Raises a KeyError if there is none."""
        shard = self._shard_of[name]
        if shard not in self._handles:
            self._handles[shard] = safe_open(shard, framework="pt")
        return self._handles[shard].get_slice(name)[rows]

    def write(self, tensors: dict[str, torch.Tensor]) -> None:
        """Add a shard; it appears when it is complete."""
        self.directory.mkdir(parents=True, exist_ok=True)
        name = SHARDS.replace("*", hash_json(sorted(tensors))[:32])
        with write_file(self.directory / name) as unfinished:
            save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, unfinished)
        self._shard_of |= dict.fromkeys(tensors, self.directory / name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}  # open files do not travel to worker processes


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
