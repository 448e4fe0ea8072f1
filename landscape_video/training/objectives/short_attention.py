"""
Speed up attention over few tokens in half precision on a CPU.

There, torch's fused kernel is several times slower than two matrix products. Motion modules attend over 8 to 32
frames, and a small image model over 16 to 64 positions. The backward pass of `scaled_dot_product_attention` in
bfloat16 takes a third of a training step of shanshui-tiny; without it a step is 1.3 to 1.4 times faster
(`benchmarks/train_step.py`). Over 1024 tokens, and in float32, the fused kernel is faster.
"""

from typing import Any

import torch
from diffusers import UNetMotionModel
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0


MAX_SHORT_TOKENS = 256


class ShortAttnProcessor:
    """Attention processor that avoids the fused kernel for up to `MAX_SHORT_TOKENS` queries."""

    def __init__(self) -> None:
        self.plain = AttnProcessor()
        self.fused = AttnProcessor2_0()

    def __call__(self, attn: Attention, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """
        Compute attention as the processors of diffusers do.

        Args:
            attn: Attention layer.
            hidden_states: Tokens, `(batch, tokens, channels)`.
            *args: Further arguments of the processor.
            **kwargs: Further keyword arguments of the processor.
        """
        processor = self.plain if hidden_states.shape[1] <= MAX_SHORT_TOKENS else self.fused
        return processor(attn, hidden_states, *args, **kwargs)


def use_fast_attention(unet: UNetMotionModel, device: torch.device, dtype: torch.dtype) -> None:
    """Set the fastest attention processors for training `unet` on `device` in `dtype`."""
    if device.type == "cpu" and dtype == torch.bfloat16:
        unet.set_attn_processor(ShortAttnProcessor())
