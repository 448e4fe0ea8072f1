"""Attention over few tokens in half precision on a CPU, where torch's fused kernel is several times slower.

The motion modules attend over 8 to 32 frames and a small image model over 16 to 64 places. There the backward pass of
`scaled_dot_product_attention` in bfloat16 is a third of a training step of shanshui-tiny, and the same attention as
two matrix products makes the whole step 1.3 to 1.4 times faster (`benchmarks/train_step.py`). Over 1024 tokens, and in
float32, the fused kernel wins.
"""

from typing import Any

import torch
from diffusers import UNetMotionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0


MOST_TOKENS = 256


class ShortAttnProcessor:
    """Diffusers' plain attention for up to `MOST_TOKENS` queries, its fused one for more."""

    def __init__(self) -> None:
        self.plain = AttnProcessor()
        self.fused = AttnProcessor2_0()

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """As diffusers' processors; `hidden_states` is (batch, tokens, channels)."""
        processor = self.plain if hidden_states.shape[1] <= MOST_TOKENS else self.fused
        return processor(attn, hidden_states, *args, **kwargs)


def use_fast_attention(unet: UNetMotionModel, device: torch.device, dtype: torch.dtype) -> None:
    """Set the processors of `unet` for training on `device` with attention computed in `dtype`."""
    if device.type == "cpu" and dtype == torch.bfloat16:
        unet.set_attn_processor(ShortAttnProcessor())
