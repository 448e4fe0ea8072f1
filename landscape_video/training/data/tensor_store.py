"""Cache tensors in safetensors files: all latents and prompt embeddings that training keeps go through here.

A `TensorStore` finds tensors by name. Whatever determines a tensor's values goes into its folder's name and its own
name as hashes: a store never holds anything out of date, and several runs can share and extend it at once.
"""

import json
import logging
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase

from landscape_video.files import hash_chunks, hash_json, hash_text, write_file


SHARDS = "shard-*.safetensors"

logger = logging.getLogger(__name__)

CAPTIONS_PER_SHARD = 1024


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


class PromptEmbedsCache:
    """Encodes captions into the prompt embeddings that diffusers' pipelines pass to the UNet, and remembers them.

    Each caption is encoded alone, so that its embeddings do not depend on the batch it first came in, not even in the
    last bit: a resumed run sees the same numbers.

    Args:
        tokenizer, text_encoder: The image model's own.
        cache_bytes: Memory for embeddings; further ones are read or encoded each time they are needed.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModel, cache_bytes: int = 2 * 2**30
    ) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.cache_bytes = cache_bytes
        self._cache: dict[str, torch.Tensor] = {}
        self._cached_bytes = 0
        self._store: TensorStore | None = None
        self._warned = False

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """Prompt embeddings (batch, tokens, dim), on the text encoder's device and in its type."""
        return torch.cat([self._embeds(text) for text in texts]).to(self.text_encoder.device)

    def store(self, texts: Iterable[str], cache_dir: str | Path) -> None:
        """Encode the texts that are not on disk yet, and read from disk from now on.

        Embeddings are named by the SHA-256 of the caption, in a `TensorStore` whose folder is named after the text
        encoder's weights and type and after the tokenizer.
        """
        tokenizer = [type(self.tokenizer).__name__, self.tokenizer.get_vocab(), self.tokenizer.model_max_length]
        settings = [hash_model(self.text_encoder), str(self.text_encoder.dtype), hash_json(tokenizer)]
        self._store = TensorStore(Path(cache_dir) / f"text-{hash_json(settings)[:32]}")
        missing = [text for text in sorted(set(texts)) if hash_text(text) not in self._store.shards]
        progress = tqdm(total=len(missing), desc="Encoding captions", disable=None if missing else True)
        for first in range(0, len(missing), CAPTIONS_PER_SHARD):
            encoded = {}
            for text in missing[first : first + CAPTIONS_PER_SHARD]:
                encoded[hash_text(text)] = self._encode(text)
                progress.update()
            self._store.write(encoded)
        progress.close()

    def _embeds(self, text: str) -> torch.Tensor:
        if text in self._cache:
            return self._cache[text]
        if self._store is not None and hash_text(text) in self._store.shards:
            embeds = self._store.read(hash_text(text))
        else:
            embeds = self._encode(text).cpu()
        if self._cached_bytes + embeds.nbytes <= self.cache_bytes:
            self._cache[text] = embeds
            self._cached_bytes += embeds.nbytes
        return embeds

    @torch.no_grad()
    def _encode(self, text: str) -> torch.Tensor:
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        if not self._warned and len(self.tokenizer(text).input_ids) > length:
            self._warned = True  # once: a dataset of long captions would flood the log
            logger.warning("Captions are cut after %d tokens; the first such caption begins %r.", length, text[:60])
        device = self.text_encoder.device
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if uses_mask else None
        return self.text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]


def load_prompt_embeds_cache(
    model: str, revision: str | None, dtype: torch.dtype, device: torch.device
) -> PromptEmbedsCache:
    """Load the image model's own text encoder, frozen and in `dtype`."""
    tokenizer = AutoTokenizer.from_pretrained(model, subfolder="tokenizer", revision=revision)
    text_encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", revision=revision, dtype=dtype)
    return PromptEmbedsCache(tokenizer, text_encoder.requires_grad_(False).eval().to(device))
