"""Encode captions into prompt embeddings once, and keep them in memory or on disk."""

import logging
from collections.abc import Iterable
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPTextModel, PreTrainedTokenizerBase

from landscape_video.files import hash_json, hash_text
from landscape_video.training.data.tensor_store import TensorStore, hash_model


CAPTIONS_PER_SHARD = 1024

logger = logging.getLogger(__name__)


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
