"""Hold a first frame that is known before sampling: inpainting along the time axis."""

from collections.abc import Callable

import torch
from diffusers import SchedulerMixin


class FirstFrameInpainting:
    """
    Replace the first frame by a known one with the noise level of each step.

    Args:
        scheduler: Scheduler whose timesteps are set.
        clean: Latents of the known frame, `(batch, channels, 1, height, width)`.
        initial: First frame of the initial latents, of the same shape. Its noise is the noise of all steps.
    """

    def __init__(self, scheduler: SchedulerMixin, clean: torch.Tensor, initial: torch.Tensor) -> None:
        self.scheduler, self.clean = scheduler, clean
        self.noise = initial / scheduler.init_noise_sigma

    def replace(self, latents: torch.Tensor, step: int) -> torch.Tensor:
        """
        Return `latents`, `(batch, channels, num_frames, height, width)`, with the known frame in them.

        The frame has the noise level that step number `step` expects. After the last step it is clean.
        """
        frame, timesteps = self.clean, self.scheduler.timesteps
        if step < len(timesteps):
            frame = self.scheduler.add_noise(frame, self.noise, timesteps[step : step + 1])
        return torch.cat([frame, latents[:, :, 1:]], dim=2)

    def before(self, on_step: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
        """Return a step hook that puts the known frame in place before it calls `on_step`."""

        def replace_then_call(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
            return on_step(self.replace(latents, step + 1), timestep, step)

        return replace_then_call
