"""A first frame that is known before the first step, held through all of them."""

import torch
from diffusers import SchedulerMixin


class HeldFrame:
    """A first frame that is known from the beginning, with the noise that each step wants.

    Args:
        scheduler: whose timesteps are set.
        clean: latents of the frame, `(batch, channels, 1, height, width)`.
        initial: the frame as it was drawn for the first step, of the same shape.
    """

    def __init__(self, scheduler: SchedulerMixin, clean: torch.Tensor, initial: torch.Tensor) -> None:
        self.scheduler, self.clean = scheduler, clean
        self.noise = initial / scheduler.init_noise_sigma

    def put_into(self, sample: torch.Tensor, step: int) -> torch.Tensor:
        """`sample` with the frame in it, as it is before step number `step`; clean after the last one."""
        frame, timesteps = self.clean, self.scheduler.timesteps
        if step < len(timesteps):
            frame = self.scheduler.add_noise(frame, self.noise, timesteps[step : step + 1])
        return torch.cat([frame, sample[:, :, 1:]], dim=2)
