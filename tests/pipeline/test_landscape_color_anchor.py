"""Positions with one prompt get one mean color while the noise is strong; nothing else changes."""

import pytest
import torch
from diffusers import DDIMScheduler

from pipeline_landscape_video.landscape_color_anchor import anchor_colors, color_shift


def test_positions_go_to_the_mean_of_their_prompts():
    means = torch.tensor([[0.0], [2.0], [10.0], [14.0]])
    assert (means + color_shift(means, torch.ones(4, 1))).flatten().tolist() == [6.5] * 4
    shares = torch.tensor([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    assert (means + color_shift(means, shares)).flatten().tolist() == [1, 1, 12, 12]


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_clean_frames_share_a_mean_and_keep_their_details(prediction_type):
    scheduler = DDIMScheduler(prediction_type=prediction_type, clip_sample=False)
    generator = torch.Generator().manual_seed(0)
    latents, prediction = (torch.randn(1, 4, 20, 8, 8, generator=generator) for _ in range(2))
    shares = torch.ones(1, 20, 1)
    anchored = anchor_colors(lambda *state: prediction, scheduler, shares)

    def clean(prediction, timestep):
        return scheduler.step(prediction, timestep, latents).pred_original_sample

    scheduler.set_timesteps(10)
    strong, weak = torch.tensor(900), torch.tensor(100)
    before, after = (clean(one, strong) for one in (prediction, anchored(latents, strong, 0)))
    means = after.mean(dim=(3, 4))
    torch.testing.assert_close(means, before.mean(dim=(2, 3, 4))[:, :, None].expand_as(means), atol=1e-3, rtol=1e-3)
    details = [one - one.mean(dim=(3, 4), keepdim=True) for one in (before, after)]
    torch.testing.assert_close(*details, atol=1e-3, rtol=1e-3)
    assert torch.equal(anchored(latents, weak, 0), prediction)
