"""A noisy clip that moves more slowly than it should, for a model that learns to make up for it.

In training, what a noisy clip shows moves as its caption says; a sampler's own clip has still to begin to move, and a
model that has learnt to trust what it sees lets it stand. So some noisy clips are made of a slower one, up to one that
stands still, while the target keeps its pace: what moves is then known from the caption alone. This is scheduled
sampling (Bengio et al., 2015) with the error that such samplers were seen to make in place of the model's own.
"""

import torch


# Steps with more signal than that are left as they are: there, little is left to choose.
MOST_SIGNAL = 0.8  # alpha_bar


def slow_down(latents: torch.Tensor, pace: torch.Tensor, anchor: float) -> torch.Tensor:
    """Clips that move at the share `pace` of their speed.

    Args:
        latents: (batch, channels, num_frames, height, width).
        pace: 0 (stands still) to 1 (as it is) for each clip, (batch,).
        anchor: the place of the frame that stays what it is, from 0 (the first) to 1 (the last).

    Returns:
        Clips whose frame i is what the given one shows at `a + pace (i - a)`, `a` being the anchor's frame number;
        between two frames, the two weighted by nearness.
    """
    num_frames = latents.shape[2]
    if num_frames == 1:
        return latents
    frame = torch.arange(num_frames, dtype=torch.float32, device=latents.device)
    start = anchor * (num_frames - 1)
    place = start + pace.to(frame)[:, None] * (frame - start)
    before = place.floor().clamp(max=num_frames - 2)
    share = (place - before).to(latents.dtype)[:, None, :, None, None]
    clip = torch.arange(len(latents), device=latents.device)[:, None]
    frames_first = latents.movedim(2, 1)
    earlier, later = (frames_first[clip, index.long()].movedim(1, 2) for index in (before, before + 1))
    return torch.lerp(earlier, later, share)
