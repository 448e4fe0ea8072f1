"""Fuse the backgrounds of frames that were generated one by one: the average fusion module of Consistency tuning.

The paper averages noisy latents x_t. The noises of four frames are independent, so their mean has half the standard
deviation, and the model takes the result for a cleaner image than it is. Here, the predicted clean latents x_0 are
fused instead, and each frame gets its own noise back (`fusion_space="x0"`).
"""

from collections.abc import Callable

import torch
from diffusers import DDIMScheduler

from pipeline_landscape_video.landscape_editing import signal_and_spread, split_prediction


FUSION_SPACES = ("x0", "xt")


def sample_votes(num_frames: int, count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw the frames whose backgrounds are averaged, (num_frames, count) indices; row k begins with k.

    All frames share the others, as far as they can, so that their backgrounds agree. In a clip of fewer frames than
    `count`, all vote.

    Args:
        num_frames: Number of frames of the clip.
        count: Frames in each average.
        generator: Generator on the CPU.
    """
    order = torch.randperm(num_frames, generator=generator).tolist()
    rows = [[frame, *[other for other in order if other != frame][: count - 1]] for frame in range(num_frames)]
    return torch.tensor(rows)


def fuse_average(
    latents: torch.Tensor,
    background: torch.Tensor,
    votes: torch.Tensor,
    background_weight: float | torch.Tensor = 1.0,
    foreground_weight: float | torch.Tensor = 1.0,
) -> torch.Tensor:
    """Consistency tuning Eq. 11: x'_k = w_b bg_k mean_{i in S_k}(x_i; bg_i) + w_f fg_k x_k.

    The printed equation lacks bg_k, so a pixel that is background elsewhere would count twice in the foreground. The
    mean is over those frames of S_k that show the background at this place.

    Args:
        latents: Latents x of the frames, (num_frames, channels, height, width).
        background: Share of each latent pixel that is background, (num_frames, 1, height, width) in [0, 1]; the rest
            is foreground.
        votes: Frames S_k of each average, see `sample_votes`; (num_frames, count).
        background_weight: Weight w_b; a tensor may require gradients.
        foreground_weight: Weight w_f, likewise.

    Returns:
        Fused latents of the same shape.
    """
    total = (latents * background)[votes].sum(dim=1)
    shares = background[votes].sum(dim=1)
    # Frame k is in S_k, so where its background has a share, so has the sum.
    mean = torch.where(shares > 0, total / shares.clamp(min=1e-6), latents)
    return background_weight * background * mean + foreground_weight * (1 - background) * latents


def fuse_at_step(
    scheduler: DDIMScheduler,
    latents: torch.Tensor,
    prediction: torch.Tensor,
    timestep: torch.Tensor,
    fuse: Callable[[torch.Tensor], torch.Tensor],
    fusion_space: str = "x0",
) -> torch.Tensor:
    """Consistency tuning Eq. 10: return the fused noisy latents x'_t of a step.

    Args:
        scheduler: Noise schedule.
        latents: Noisy latents x_t of a clip, (1, channels, num_frames, height, width).
        prediction: Output of the model for them.
        timestep: Timestep t.
        fuse: `fuse_average` with masks and votes, from latents (num_frames, channels, height, width) to fused ones.
        fusion_space: "x0" fuses the predicted clean latents and keeps the noise of each frame. "xt" fuses the noisy
            latents, as printed.
    """

    def of_clip(clip: torch.Tensor) -> torch.Tensor:
        return fuse(clip[0].transpose(0, 1)).transpose(0, 1)[None]

    if fusion_space == "xt":
        return of_clip(latents)
    clean, noise = split_prediction(scheduler, prediction, latents, timestep)
    signal, spread = signal_and_spread(scheduler, timestep, latents)
    return signal * of_clip(clean) + spread * noise
