"""Noisy clips that move more slowly than their target."""

import pytest
import torch

from landscape_video.training.objectives.motion_objective import alphas_cumprod_at, motion_losses
from landscape_video.training.objectives.slowed_motion import MOST_SIGNAL, slow_down
from training_steps import Answer, make_scheduler


def ramp(num_frames: int = 16) -> torch.Tensor:
    """Clips of one pixel whose frame i shows i, (3, 1, num_frames, 1, 1)."""
    return torch.arange(num_frames, dtype=torch.float32).reshape(1, 1, -1, 1, 1).repeat(3, 1, 1, 1, 1)


@pytest.mark.parametrize("anchor", [0.0, 0.5, 1.0])
def test_each_clip_moves_at_its_pace_around_the_anchor(anchor):
    paces = torch.tensor([0.0, 0.3, 1.0])
    slowed = slow_down(ramp(), paces, anchor)[:, 0, :, 0, 0]
    start = 15 * anchor
    expected = start + paces[:, None] * (torch.arange(16) - start)
    torch.testing.assert_close(slowed, expected)


def test_at_full_pace_a_clip_is_what_it_was():
    clips = torch.randn(2, 4, 7, 3, 3, generator=torch.Generator().manual_seed(0))
    for anchor in (0.0, 0.5):
        assert torch.equal(slow_down(clips, torch.ones(2), anchor), clips)


def test_a_single_frame_has_no_pace():
    frame = torch.randn(2, 4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(slow_down(frame, torch.zeros(2), 0.0), frame)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("rescale_betas_zero_snr", [False, True])
def test_the_unet_sees_the_slow_clip_and_has_to_find_the_fast_one(prediction_type, rescale_betas_zero_snr):
    """The right answer turns what the UNet saw into the clip at its own pace."""
    scheduler = make_scheduler(prediction_type, rescale_betas_zero_snr=rescale_betas_zero_snr)
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, 4, 8, 6, 6, generator=generator) for _ in range(2))
    timesteps = torch.tensor([500, 900])
    alpha_bar = alphas_cumprod_at(scheduler, timesteps, latents)
    seen = scheduler.add_noise(slow_down(latents, torch.tensor([0.25, 0.5]), 0.0), noise, timesteps)
    answer = (seen - alpha_bar.sqrt() * latents) / (1 - alpha_bar).sqrt()
    if prediction_type == "v_prediction":
        answer = alpha_bar.sqrt() * answer - (1 - alpha_bar).sqrt() * latents
    unet = Answer(answer)
    batch = (latents, torch.zeros(2, 5, 16), noise, timesteps)
    losses = motion_losses(unet, None, scheduler, *batch, pace=torch.tensor([0.25, 0.5]), pace_anchor=0.0)
    torch.testing.assert_close(unet.sample, seen)
    assert losses.diffusion.item() < 1e-9
    assert motion_losses(unet, None, scheduler, *batch).diffusion.item() > 1e-3


def test_where_little_noise_is_left_nothing_is_slowed():
    scheduler = make_scheduler()
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, 4, 8, 6, 6, generator=generator) for _ in range(2))
    timesteps = torch.tensor([50, 400])
    assert scheduler.alphas_cumprod[50] > MOST_SIGNAL > scheduler.alphas_cumprod[400]
    unet = Answer(noise)
    motion_losses(unet, None, scheduler, latents, torch.zeros(2, 5, 16), noise, timesteps, pace=torch.zeros(2))
    as_it_is = scheduler.add_noise(latents, noise, timesteps)
    assert torch.equal(unet.sample[0], as_it_is[0]) and not torch.allclose(unet.sample[1], as_it_is[1])
