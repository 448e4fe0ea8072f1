"""
Keep the colors of a long clip or a wide canvas together.

Windows that are far apart share no prediction. If a prompt names no palette, each of them may choose another one, and
the colors drift. What decides the palette is the mean of the first, blurred predictions of clean latents. Here, these
means are shifted to that of the whole clip while the noise is strong. Details and motion, which change no mean, stay.
"""

from collections.abc import Callable
from typing import Any

import torch
from diffusers import SchedulerMixin


NoisePredictor = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]  # as in landscape_denoising.py

ANCHOR_UNTIL = 0.5  # signal, sqrt(alpha_bar), above which each window keeps its colors


def color_shift(means: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
    """
    Return what takes the mean colors of all positions to those of their prompts.

    Args:
        means: Mean clean latents of each position, such as a frame, `(positions, channels)`.
        shares: Share of each prompt in each position, `(positions, prompts)`; they sum to 1.

    Returns:
        Shift of each position, `(positions, channels)`. Positions with one prompt get the same mean.
    """
    of_prompts = shares.T @ means / shares.sum(dim=0).clamp(min=1e-6)[:, None]
    return shares @ of_prompts - means


def anchor_colors(predict_noise: NoisePredictor, scheduler: SchedulerMixin, shares: torch.Tensor) -> NoisePredictor:
    """
    Return a predictor whose predicted clean frames have the mean color of their prompt while the noise is strong.

    Args:
        predict_noise: Predictor of all frames of long clips.
        scheduler: Noise scheduler. The result is `predict_noise` itself for one without `alphas_cumprod`.
        shares: Share of each prompt in each frame of each clip, `(batch, num_frames, prompts)`.
    """
    alphas_cumprod: Any = getattr(scheduler, "alphas_cumprod", None)
    kind = scheduler.config.get("prediction_type")
    if alphas_cumprod is None or kind not in ("epsilon", "v_prediction"):
        return predict_noise

    def predict_anchored_noise(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        prediction = predict_noise(latents, timestep, step)
        alpha_bar = alphas_cumprod[int(timestep)].item()
        signal, spread = alpha_bar**0.5, (1 - alpha_bar) ** 0.5
        if signal > ANCHOR_UNTIL:
            return prediction
        # x_0 = signal x_t - spread v, or x_0 = (x_t - spread epsilon) / signal: a shift of x_0 shifts v or epsilon.
        scale, factor = (signal, -spread) if kind == "v_prediction" else (1 / signal, -spread / signal)
        means = (scale * latents + factor * prediction).float().mean(dim=(3, 4)).transpose(1, 2)
        shift = torch.stack([color_shift(*clip) for clip in zip(means, shares.to(means), strict=True)])
        return prediction + (shift.transpose(1, 2)[..., None, None] / factor).to(prediction)

    return predict_anchored_noise
