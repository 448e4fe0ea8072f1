"""What one training step of a motion adapter minimises (NADM, Alg. 1 and Eq. 13), as a pure function."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin
from torch import nn

from landscape_video.training.objectives.slowed_motion import MOST_SIGNAL, slow_down
from motion_adapter.noise_adapter import NoiseAdapter, contrastive_loss


PREDICTION_TYPES = ("epsilon", "v_prediction")


class MotionLosses(NamedTuple):
    """The losses of one batch, float32 scalars. `contrastive` is None where no noise adapter took part."""

    total: torch.Tensor
    diffusion: torch.Tensor
    contrastive: torch.Tensor | None


def motion_losses(
    unet: nn.Module,
    noise_adapter: NoiseAdapter | None,
    scheduler: SchedulerMixin,
    latents: torch.Tensor,
    encoder_hidden_states: torch.Tensor,
    noise: torch.Tensor,
    timesteps: torch.Tensor,
    contrastive_weight: float = 0.07,
    temperature: float = 0.07,
    threshold: int = 4,
    negatives: str = "all",
    positives: str = "next",
    snr_gamma: float | None = None,
    first_frame_weight: float = 1.0,
    pace: torch.Tensor | None = None,
    pace_anchor: float = 0.5,
) -> MotionLosses:
    """L = L_diff + lambda L_con (Eq. 13) of a batch of clips.

    Args:
        unet: a `UNetMotionModel`, or what stands in for it (a wrapper for several processes, say).
        noise_adapter: g of Eq. 9; without it, the loss is L_diff alone.
        scheduler: gives the noise schedule and the prediction type, "epsilon" or "v_prediction".
        latents: clean clips, (batch, channels, num_frames, height, width).
        encoder_hidden_states: the text's states, (batch, tokens, dim).
        noise: standard normal, of the latents' shape.
        timesteps: one step of the schedule for each clip (all its frames are equally noisy), (batch,).
        contrastive_weight: lambda of Eq. 13.
        temperature, threshold, negatives, positives: see `contrastive_loss`.
        snr_gamma: weighs each clip's error by min(SNR, gamma), in units of the noise (Hang et al., 2023); None weighs
            all steps alike, as the paper does.
        first_frame_weight: how much the first frame's error counts, where each other frame's counts 1; the weights are
            scaled to a mean of 1. A picture that the clip begins with says all of that frame, little of the others.
        pace, pace_anchor: the noisy clips move at the share `pace` of their speed, (batch,), around the frame at
            `pace_anchor`, as `slow_down` has it, where alpha_bar is at most 0.8; the target does not. None slows
            nothing down.

    Raises:
        ValueError: for another prediction type.
    """
    alpha_bar = alphas_cumprod_at(scheduler, timesteps, latents.float())
    if pace is not None:  # to noise that makes a slower clip of the clip
        pace = torch.where(alpha_bar.flatten() <= MOST_SIGNAL, pace.to(alpha_bar), 1)
        slower = slow_down(latents, pace, pace_anchor)
        noise = noise + (alpha_bar / (1 - alpha_bar)).sqrt() * (slower - latents)
    noisy_latents = scheduler.add_noise(latents, noise, timesteps)
    text = encoder_hidden_states.repeat_interleave(latents.shape[2], dim=0)  # one copy for each frame
    prediction = unet(noisy_latents, timesteps, encoder_hidden_states=text).sample.float()

    if scheduler.config.prediction_type == "epsilon":
        target = noise
        noise_pred = prediction
    elif scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
        noise_pred = alpha_bar.sqrt() * prediction + (1 - alpha_bar).sqrt() * noisy_latents
    else:
        raise ValueError(
            f"The scheduler's `prediction_type` is {scheduler.config.prediction_type!r}, "
            f"but has to be one of {PREDICTION_TYPES}."
        )

    if snr_gamma is None and first_frame_weight == 1:
        diffusion = F.mse_loss(prediction, target.float())
    else:
        error = F.mse_loss(prediction, target.float(), reduction="none").mean(dim=(1, 3, 4))  # (batch, num_frames)
        weights = torch.ones_like(error)
        weights[:, 0] = first_frame_weight
        weights /= weights.mean(dim=1, keepdim=True)
        if snr_gamma is not None:
            weights *= min_snr_weight(scheduler, timesteps, snr_gamma)[:, None]
        diffusion = (error * weights).mean()
    if noise_adapter is None:
        return MotionLosses(diffusion, diffusion.detach(), None)
    contrastive = contrastive_loss(noise_adapter(noise_pred), temperature, threshold, negatives, positives)
    return MotionLosses(diffusion + contrastive_weight * contrastive, diffusion.detach(), contrastive.detach())


class MotionObjective(nn.Module):
    """UNet and noise adapter as one module whose forward pass is `motion_losses`: FSDP takes one only, whose weights
    are whole while it is called.

    Args:
        unet, noise_adapter, scheduler: as `motion_losses`.
        settings: the keywords of `motion_losses`.
    """

    # What FSDP gathers, uses and gives back at a time.
    _no_split_modules = ["UNetMotionModel", "ResnetBlock2D", "Transformer2DModel", "AnimateDiffTransformer3D"]

    def __init__(
        self, unet: nn.Module, noise_adapter: NoiseAdapter | None, scheduler: SchedulerMixin, **settings: Any
    ) -> None:
        super().__init__()
        self.unet = unet
        self.noise_adapter = noise_adapter
        self.scheduler = scheduler
        self.settings = settings

    def forward(
        self,
        latents: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        pace: torch.Tensor | None = None,
    ) -> MotionLosses:
        """The losses of one batch of clips; arguments as `motion_losses`."""
        return motion_losses(
            self.unet, self.noise_adapter, self.scheduler, latents, encoder_hidden_states, noise, timesteps,
            pace=pace, **self.settings,
        )  # fmt: skip

    def trainable(self) -> list[tuple[str, nn.Parameter]]:
        """Name and parameter of all that trains, the motion modules first; FSDP puts others in their place."""
        named = list(self.unet.named_parameters())
        if self.noise_adapter is not None:
            named += [(f"noise_adapter.{name}", p) for name, p in self.noise_adapter.named_parameters()]
        return [(name, parameter) for name, parameter in named if parameter.requires_grad]


def alphas_cumprod_at(scheduler: SchedulerMixin, timesteps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """alpha_bar of each clip's step, (batch, 1, 1, 1, 1), on the device and in the type of `like`."""
    alphas_cumprod = scheduler.alphas_cumprod.to(like.device)[timesteps.to(like.device)]
    return alphas_cumprod.to(like.dtype)[:, None, None, None, None]


def min_snr_weight(scheduler: SchedulerMixin, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """The weight of each clip's error, (batch,): min(SNR, gamma) / SNR for noise, / (SNR + 1) for velocity."""
    alpha_bar = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    snr = alpha_bar / (1 - alpha_bar)
    if scheduler.config.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)  # the same ratio, and finite where a zero-terminal schedule has no signal
