"""
Draw noise for clips of any length, so that a longer clip begins with the noise of a shorter one.

`torch.randn` fills a clip channel by channel: one more frame would change the noise of all frames. Here, the first 16
frames are drawn at once, as they always were, and every further block of 16 frames from a generator of its own. A clip
of fewer than 16 frames keeps its own noise.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import DDIMParallelScheduler, DDIMScheduler, SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor


BLOCK = 16  # frames

Generators = torch.Generator | list[torch.Generator] | None


class FrameNoise:
    """
    Source of noise for one clip or a batch of clips.

    Args:
        generator: Generator of all clips, or one per clip. With `None`, torch's global one draws all frames at once.
        num_frames: Number of frames per clip.
    """

    def __init__(self, generator: Generators, num_frames: int) -> None:
        self.blocks: list[Generators] = [generator]
        if generator is not None and num_frames > BLOCK:
            self.blocks += _generators_of_blocks(generator, -(-num_frames // BLOCK) - 1)
        self.num_frames = num_frames

    @property
    def is_plain(self) -> bool:
        """Whether the noise is that of `torch.randn`."""
        return len(self.blocks) == 1

    def draw(self, shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
        """
        Draw noise.

        Args:
            shape: `(batch, channels, num_frames, height, width)`.
            device: Device of the result.
            dtype: Dtype of the result.
        """
        if self.is_plain:
            return randn_tensor(shape, generator=self.blocks[0], device=device, dtype=dtype)
        shape = (*shape[:2], BLOCK, *shape[3:])
        blocks = [randn_tensor(shape, generator=block, device=device, dtype=dtype) for block in self.blocks]
        return torch.cat(blocks, dim=2)[:, :, : self.num_frames]

    def step_kwargs(
        self, scheduler: SchedulerMixin, kwargs: dict[str, Any]
    ) -> dict[str, Any] | Callable[[torch.Tensor], dict[str, Any]]:
        """
        Return keyword arguments of `scheduler.step` whose noise is drawn here.

        Only DDIM takes noise as an argument. Other schedulers draw the noise of all frames at once.

        Args:
            scheduler: Noise scheduler.
            kwargs: Keyword arguments with the generator.

        Returns:
            `kwargs`, or a function from the latents to the keyword arguments of the next step.
        """
        if self.is_plain or not isinstance(scheduler, DDIMScheduler | DDIMParallelScheduler) or not kwargs.get("eta"):
            return kwargs
        kwargs = {name: value for name, value in kwargs.items() if name != "generator"}
        return lambda latents: kwargs | {"variance_noise": self.draw(latents.shape, latents.device, latents.dtype)}


def _generators_of_blocks(generator: torch.Generator | list[torch.Generator], count: int) -> list[Generators]:
    """Return generators for further blocks. They depend on the state of `generator`, which does not change."""
    if isinstance(generator, list):
        of_clips = [_generators_of_blocks(one, count) for one in generator]
        return [list(block) for block in zip(*of_clips, strict=True)]
    copy = torch.Generator(generator.device)
    copy.set_state(generator.get_state())
    seeds = torch.randint(2**63 - 1, (count,), generator=copy, device=generator.device).tolist()
    return [torch.Generator(generator.device).manual_seed(seed) for seed in seeds]
