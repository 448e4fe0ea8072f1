"""
FreeNoise of diffusers, with faults of diffusers 0.42.1 mended (`models/attention.py`, `free_noise_utils.py`).

- If the last window must be moved back to end with the clip, the weights of its frames are summed wrongly. With
  `pyramid` weights, the last frames of most lengths come out at a half or a third of their scale.
- `noise_type="repeat_context"` repeats nothing.
- New blocks lose custom attention processors and `requires_grad=False`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from diffusers import UNetMotionModel
from diffusers.models.attention import FreeNoiseTransformerBlock
from diffusers.models.attention_processor import FusedAttnProcessor2_0
from diffusers.utils.torch_utils import randn_tensor


class FreeNoiseBlock(FreeNoiseTransformerBlock):
    """Block that treats the last window as all others."""

    def _get_frame_indices(self, num_frames: int) -> list[tuple[int, int]]:
        last = num_frames - self.context_length
        starts = sorted({*range(0, last + 1, self.context_stride), last})
        return [(start, start + self.context_length) for start in starts]


class FreeNoiseMixin:
    """Methods of FreeNoise for subclasses of `AnimateDiffPipeline`, which follows it among the bases."""

    def enable_free_noise(self, context_length: int | None = 16, *args: Any, **kwargs: Any) -> None:
        """
        Enable FreeNoise, as in diffusers, also for a motion UNet without an adapter.

        Args:
            context_length: Frames per window. `None` takes `max_num_frames`.
            *args: Further arguments of the method in diffusers.
            **kwargs: Further keyword arguments of the method in diffusers.
        """
        adapter, self.motion_adapter = self.motion_adapter, self.motion_adapter or self.unet
        try:
            with keep_processors_and_frozen_parameters(self.unet):
                super().enable_free_noise(context_length or self.max_num_frames, *args, **kwargs)
        finally:
            self.motion_adapter = adapter
        for module in self.unet.modules():
            if isinstance(module, FreeNoiseTransformerBlock):
                module.__class__ = FreeNoiseBlock

    def disable_free_noise(self) -> None:
        """Disable FreeNoise. The method in diffusers fails on a mid block without motion modules, our default."""
        self._free_noise_context_length = None
        with keep_processors_and_frozen_parameters(self.unet):
            for block in (*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks):
                if hasattr(block, "motion_modules"):
                    self._disable_free_noise_in_block(block)

    def enable_free_noise_split_inference(self, spatial_split_size: int = 256, temporal_split_size: int = 16) -> None:
        """Enable split inference, as in diffusers. A mid block without motion modules cannot be split and is kept."""
        mid_block = self.unet.mid_block
        if not hasattr(mid_block, "motion_modules"):
            self.unet.mid_block = None  # hide it from the method in diffusers
        try:
            super().enable_free_noise_split_inference(spatial_split_size, temporal_split_size)
        finally:
            self.unet.mid_block = mid_block

    def _prepare_latents_free_noise(
        self,
        batch_size: int,
        channels: int,
        num_frames: int,
        height: int,
        width: int,
        dtype: torch.dtype,
        device: torch.device,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
    ) -> torch.Tensor:
        if isinstance(generator, list) and len(generator) == batch_size > 1:  # diffusers shuffles with one generator
            rows = [None] * batch_size if latents is None else latents.split(1)
            size = (1, channels, num_frames, height, width, dtype, device)
            return torch.cat(
                [self._prepare_latents_free_noise(*size, *row) for row in zip(generator, rows, strict=True)]
            )
        generator = generator[0] if isinstance(generator, list) and len(generator) == 1 else generator
        if latents is None and self._free_noise_noise_type == "repeat_context":
            sides = [side // self.vae_scale_factor for side in (height, width)]
            shape = (batch_size, channels, self._free_noise_context_length, *sides)
            latents = randn_tensor(shape, generator=generator, device=device, dtype=dtype)
        return super()._prepare_latents_free_noise(
            batch_size, channels, num_frames, height, width, dtype, device, generator, latents
        )


@contextmanager
def keep_processors_and_frozen_parameters(unet: UNetMotionModel) -> Iterator[None]:
    """Give blocks that are replaced in the meantime the attention processors and `requires_grad` of the old ones."""
    # Fused projections belong to the old layers.
    processors = {
        name: processor
        for name, processor in unet.attn_processors.items()
        if not isinstance(processor, FusedAttnProcessor2_0)
    }
    frozen = {name for name, parameter in unet.named_parameters() if not parameter.requires_grad}
    yield
    unet.set_attn_processor(unet.attn_processors | processors)
    for name, parameter in unet.named_parameters():
        parameter.requires_grad_(name not in frozen)
