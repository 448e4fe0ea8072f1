"""Losses of a motion adapter (NADM, Alg. 1 and Eq. 13), as a pure function and as a module."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import SchedulerMixin
from torch import nn

from motion_adapter.noise_adapter import NoiseAdapter, contrastive_loss


PREDICTION_TYPES = ("epsilon", "v_prediction")

# Clips with more signal than this are not slowed down: with so little noise, hardly any motion is left to predict.
MAX_SLOWED_ALPHA_BAR = 0.8


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
    speed: torch.Tensor | None = None,
    speed_anchor: float = 0.5,
) -> dict[str, torch.Tensor]:
    """NADM Eq. 13: L = L_diff + lambda L_con of a batch of clips.

    Args:
        unet: A `UNetMotionModel`, or a callable with its signature.
        noise_adapter: The head g of NADM Eq. 9; without it the loss is L_diff alone.
        scheduler: Noise schedule and prediction type, "epsilon" or "v_prediction".
        latents: Clean clips, (batch, channels, num_frames, height, width).
        encoder_hidden_states: Prompt embeddings, (batch, tokens, dim).
        noise: Standard normal noise of the latents' shape.
        timesteps: One timestep for each clip, (batch,); all frames of a clip are equally noisy.
        contrastive_weight: Weight lambda of NADM Eq. 13.
        temperature, threshold, negatives, positives: See `contrastive_loss`.
        snr_gamma: Parameter gamma of min-SNR weighting; None weighs all timesteps alike, as the paper does.
        first_frame_weight: Weight of the first frame's error, where each other frame has 1. The weights are scaled to
            a mean of 1. Useful if the UNet receives the first frame as an image, which determines this frame only.
        speed: Fraction of each clip's speed at which its noisy version moves, (batch,). The target keeps its speed.
            Clips with alpha_bar above 0.8 are not slowed down; None slows down none.
        speed_anchor: Position of the frame that does not change, see `slow_down`.

    Returns:
        "total", which is minimized, "diffusion" and "contrastive" (zero without a noise adapter): float32 scalars.

    Raises:
        ValueError: The scheduler has another prediction type.
    """
    alpha_bar = alphas_cumprod_at(scheduler, timesteps, latents.float())
    if speed is not None:
        noise = noise_of_slower_clip(latents, noise, alpha_bar, speed, speed_anchor)
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
            f"The scheduler's `prediction_type` must be one of {', '.join(PREDICTION_TYPES)}, "
            f"got {scheduler.config.prediction_type!r}."
        )

    # NADM Eq. 12: L_diff, the mean over all elements unless frames or timesteps are weighted.
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
        return {"total": diffusion, "diffusion": diffusion.detach(), "contrastive": torch.zeros_like(diffusion)}
    # NADM Eqs. 9-11: L_con compares the frames' predicted noise.
    contrastive = contrastive_loss(noise_adapter(noise_pred), temperature, threshold, negatives, positives)
    total = diffusion + contrastive_weight * contrastive
    return {"total": total, "diffusion": diffusion.detach(), "contrastive": contrastive.detach()}


class MotionObjective(nn.Module):
    """UNet and noise adapter as one module whose forward pass is `motion_losses`.

    FSDP wraps a single module, and gathers its weights during the forward pass.

    Args:
        unet, noise_adapter, scheduler: See `motion_losses`.
        settings: Keywords of `motion_losses`.
    """

    # Layers whose weights FSDP gathers for use and splits again, one layer at a time.
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
        speed: torch.Tensor | None = None,
        **conditions: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Return the losses of a batch of clips; `conditions` go to the UNet, other arguments to `motion_losses`."""
        unet = partial(self.unet, **conditions)
        batch = (latents, encoder_hidden_states, noise, timesteps)
        return motion_losses(unet, self.noise_adapter, self.scheduler, *batch, speed=speed, **self.settings)

    def trainable(self) -> dict[str, nn.Parameter]:
        """Return trainable parameters by name, the UNet's first; FSDP replaces the parameters."""
        named = dict(self.unet.named_parameters())
        if self.noise_adapter is not None:
            named |= {f"noise_adapter.{name}": p for name, p in self.noise_adapter.named_parameters()}
        return {name: parameter for name, parameter in named.items() if parameter.requires_grad}


def alphas_cumprod_at(scheduler: SchedulerMixin, timesteps: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return alpha_bar at each clip's timestep, (batch, 1, 1, 1, 1), with the device and dtype of `like`."""
    alphas_cumprod = scheduler.alphas_cumprod.to(like.device)[timesteps.to(like.device)]
    return alphas_cumprod.to(like.dtype)[:, None, None, None, None]


def min_snr_weight(scheduler: SchedulerMixin, timesteps: torch.Tensor, gamma: float) -> torch.Tensor:
    """Min-SNR (Hang et al., 2023): weight of each clip's error, (batch,).

    min(SNR, gamma) / SNR for predicted noise, min(SNR, gamma) / (SNR + 1) for predicted velocity.
    """
    alpha_bar = scheduler.alphas_cumprod.to(timesteps.device)[timesteps].float()
    snr = alpha_bar / (1 - alpha_bar)
    if scheduler.config.prediction_type == "v_prediction":
        return snr.clamp(max=gamma) / (snr + 1)
    return (gamma / snr).clamp(max=1)  # the same ratio, and finite where a zero-terminal schedule has no signal


# Slowed-down clips.
#
# In training, the noisy clip already moves as its caption says. In sampling, motion must arise from noise, and a model
# that has learned to continue the motion of its input leaves the clip still. So some noisy clips are made from a
# slower clip, down to a still one, while the target keeps its speed: only the caption then tells what moves. As in
# scheduled sampling (Bengio et al., 2015), the model trains on inputs with the errors of sampling. These errors are
# not computed by the model; they imitate the one that samplers were seen to make, too little motion.


def noise_of_slower_clip(
    latents: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor, speed: torch.Tensor, anchor: float
) -> torch.Tensor:
    """Return the noise that turns clips into the noisy version of slower clips, of the shape of `latents`.

    With the clip x, the slower clip s, the noise n and a = alpha_bar, the noise n' must satisfy
    sqrt(a) x + sqrt(1 - a) n' = sqrt(a) s + sqrt(1 - a) n. Hence n' = n + sqrt(a / (1 - a)) (s - x).
    """
    speed = torch.where(alpha_bar.flatten() <= MAX_SLOWED_ALPHA_BAR, speed.to(alpha_bar), 1)
    return noise + (alpha_bar / (1 - alpha_bar)).sqrt() * (slow_down(latents, speed, anchor) - latents)


def slow_down(latents: torch.Tensor, speed: torch.Tensor, anchor: float) -> torch.Tensor:
    """Slow clips down to a fraction of their speed.

    Args:
        latents: Clips, (batch, channels, num_frames, height, width).
        speed: Fraction of each clip's speed, from 0 (still) to 1 (unchanged), (batch,).
        anchor: Position of the frame that does not change, from 0 (the first) to 1 (the last).

    Returns:
        Clips whose frame i is the given clip at time `a + speed (i - a)`, where `a` is the anchor's frame number.
        Between two frames, the clip is interpolated linearly.
    """
    num_frames = latents.shape[2]
    if num_frames == 1:
        return latents
    frame = torch.arange(num_frames, dtype=torch.float32, device=latents.device)
    start = anchor * (num_frames - 1)
    time = start + speed.to(frame)[:, None] * (frame - start)
    before = time.floor().clamp(max=num_frames - 2)
    weight = (time - before).to(latents.dtype)[:, None, :, None, None]
    clip = torch.arange(len(latents), device=latents.device)[:, None]
    frames_first = latents.movedim(2, 1)
    earlier, later = (frames_first[clip, index.long()].movedim(1, 2) for index in (before, before + 1))
    return torch.lerp(earlier, later, weight)
