"""The text encoder's states of captions, computed once for each caption."""

import logging

import torch
from transformers import CLIPTextModel, PreTrainedTokenizerBase


logger = logging.getLogger(__name__)


class TextStates:
    """Turns captions into the states that the UNet attends to, as diffusers' pipelines do, and remembers them.

    Each caption is encoded alone, so that its states do not depend, to the last bit, on which batch it first came in:
    a resumed run meets the same numbers.

    Args:
        cache_bytes: captions beyond this much memory are encoded each time they come up.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, text_encoder: CLIPTextModel, cache_bytes: int = 2 * 2**30
    ) -> None:
        self.tokenizer = tokenizer
        self.text_encoder = text_encoder
        self.cache_bytes = cache_bytes
        self._cache: dict[str, torch.Tensor] = {}
        self._cached_bytes = 0
        self._warned = False

    def __call__(self, texts: list[str]) -> torch.Tensor:
        """The states of `texts`, (batch, tokens, dim), on the text encoder's device and in its type."""
        return torch.cat([self._states(text) for text in texts]).to(self.text_encoder.device)

    def _states(self, text: str) -> torch.Tensor:
        if text in self._cache:
            return self._cache[text]
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
