"""The text encoder's states of captions, computed once for each caption and kept in memory, or on disk as well."""

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


class TextStates:
    """Turns captions into the states that the UNet attends to, as diffusers' pipelines do, and remembers them.

    Each caption is encoded alone, so that its states do not depend, to the last bit, on which batch it first came in:
    a resumed run meets the same numbers.

    Args:
        cache_bytes: captions beyond this much memory are read or encoded each time they come up.
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
        """The states of `texts`, (batch, tokens, dim), on the text encoder's device and in its type."""
        return torch.cat([self._states(text) for text in texts]).to(self.text_encoder.device)

    def store(self, texts: Iterable[str], cache_dir: str | Path) -> None:
        """Encode what the cache lacks of `texts`, and read from it from now on.

        States lie in a `TensorStore` under the caption's SHA-256, in a folder named after the text encoder's weights,
        its type and the tokenizer.
        """
        tokenizer = [type(self.tokenizer).__name__, self.tokenizer.get_vocab(), self.tokenizer.model_max_length]
        settings = [hash_model(self.text_encoder), str(self.text_encoder.dtype), hash_json(tokenizer)]
        self._store = TensorStore(Path(cache_dir) / f"text-{hash_json(settings)[:32]}")
        missing = [text for text in sorted(set(texts)) if _name(text) not in self._store]
        progress = tqdm(total=len(missing), desc="Encoding captions", disable=None if missing else True)
        for first in range(0, len(missing), CAPTIONS_PER_SHARD):
            encoded = {}
            for text in missing[first : first + CAPTIONS_PER_SHARD]:
                encoded[_name(text)] = self._encode(text)
                progress.update()
            self._store.write(encoded)
        progress.close()

    def _states(self, text: str) -> torch.Tensor:
        if text in self._cache:
            return self._cache[text]
        if self._store is not None and _name(text) in self._store:
            states = self._store.read(_name(text))
        else:
            states = self._encode(text).cpu()
        size = states.numel() * states.element_size()
        if self._cached_bytes + size <= self.cache_bytes:
            self._cache[text] = states
            self._cached_bytes += size
        return states

    @torch.no_grad()
    def _encode(self, text: str) -> torch.Tensor:
        length = self.tokenizer.model_max_length
        tokens = self.tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
        if not self._warned and len(self.tokenizer(text).input_ids) > length:
            self._warned = True  # one caption shows it; a folder of long ones would flood the log
            logger.warning("Captions are cut after %d tokens; the first such caption begins %r.", length, text[:60])
        device = self.text_encoder.device
        uses_mask = getattr(self.text_encoder.config, "use_attention_mask", False)
        mask = tokens.attention_mask.to(device) if uses_mask else None
        return self.text_encoder(tokens.input_ids.to(device), attention_mask=mask)[0]


def load_text_states(model: str, revision: str | None, dtype: torch.dtype, device: torch.device) -> TextStates:
    """The states of the image model's own text encoder, which is frozen and computes in `dtype`."""
    tokenizer = AutoTokenizer.from_pretrained(model, subfolder="tokenizer", revision=revision)
    text_encoder = CLIPTextModel.from_pretrained(model, subfolder="text_encoder", revision=revision, dtype=dtype)
    return TextStates(tokenizer, text_encoder.requires_grad_(False).eval().to(device))


def _name(text: str) -> str:
    return hash_text(text)
