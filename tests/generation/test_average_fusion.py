"""Average fusion: closed forms of Eq. 11, and the noise that each form keeps."""

import pytest
import torch
from diffusers import DDIMScheduler

from landscape_video.generation.average_fusion import fuse_at_step, fuse_average, sample_votes
from pipeline_landscape_video.landscape_editing import split_prediction
from tiny_models import build_scheduler


def test_votes_begin_with_their_frame_and_share_the_others():
    votes = sample_votes(12, 4, torch.Generator().manual_seed(0))
    assert votes.shape == (12, 4)
    assert votes[:, 0].tolist() == list(range(12))
    assert all(len(set(row)) == 4 for row in votes.tolist())
    assert len(set(votes[:, 1:].flatten().tolist())) == 4
    assert sample_votes(3, 4, torch.Generator()).shape == (3, 3)


def test_backgrounds_are_averaged_where_frames_show_them():
    latents = torch.tensor([1.0, 3.0, 5.0]).reshape(3, 1, 1, 1).expand(3, 1, 1, 2)
    background = torch.tensor([[1.0, 0.0], [1.0, 1.0], [1.0, 0.0]]).reshape(3, 1, 1, 2)
    votes = sample_votes(3, 3, torch.Generator().manual_seed(0))
    fused = fuse_average(latents, background, votes)
    # Left: background everywhere. Right: only the second frame shows it; the others keep their foreground.
    torch.testing.assert_close(fused[:, 0, 0], torch.tensor([[3.0, 1.0], [3.0, 3.0], [3.0, 5.0]]))
    weighted = fuse_average(latents, background, votes, background_weight=0.5, foreground_weight=2.0)
    torch.testing.assert_close(weighted[:, 0, 0], torch.tensor([[1.5, 2.0], [1.5, 1.5], [1.5, 10.0]]))


def test_without_background_nothing_changes():
    latents = torch.randn(4, 2, 3, 3)
    votes = sample_votes(4, 4, torch.Generator().manual_seed(0))
    torch.testing.assert_close(fuse_average(latents, torch.zeros(4, 1, 3, 3), votes), latents)


def test_weights_receive_gradients():
    weights = [torch.tensor(1.0, requires_grad=True) for _ in range(2)]
    background = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    fuse_average(torch.ones(4, 2, 3, 3), background, torch.arange(4)[:, None], *weights).sum().backward()
    assert weights[0].grad == pytest.approx(2 * float(background.sum()))
    assert weights[1].grad == pytest.approx(2 * float((1 - background).sum()))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("fusion_space, deviation, tolerance", [("x0", 1.0, 0.02), ("xt", 0.5, 0.05)])
def test_noise_after_the_fusion(prediction_type, fusion_space, deviation, tolerance):
    # Clean latents of 0, a perfect predictor, and backgrounds only.
    scheduler = DDIMScheduler.from_config(build_scheduler().config, prediction_type=prediction_type)
    timestep = torch.tensor(400)
    noise = torch.randn(1, 4, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    noisy = scheduler.add_noise(torch.zeros_like(noise), noise, timestep[None])
    prediction = noise
    if prediction_type == "v_prediction":
        prediction = scheduler.get_velocity(torch.zeros_like(noise), noise, timestep[None])
    votes = sample_votes(4, 4, torch.Generator().manual_seed(0))
    fused = fuse_at_step(
        scheduler,
        noisy,
        prediction,
        timestep,
        lambda latents: fuse_average(latents, torch.ones(4, 1, 32, 32), votes),
        fusion_space,
    )
    spread = (1 - scheduler.alphas_cumprod[400]).sqrt()
    assert float((fused / spread).std()) == pytest.approx(deviation, abs=tolerance)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_prediction_is_split_into_image_and_noise(prediction_type):
    scheduler = DDIMScheduler.from_config(build_scheduler().config, prediction_type=prediction_type)
    clean, noise = torch.randn(2, 1, 4, 2, 8, 8, generator=torch.Generator().manual_seed(0))
    timestep = torch.tensor(300)
    noisy = scheduler.add_noise(clean, noise, timestep[None])
    prediction = scheduler.get_velocity(clean, noise, timestep[None]) if prediction_type == "v_prediction" else noise
    found = split_prediction(scheduler, prediction, noisy, timestep)
    torch.testing.assert_close(found[0], clean, atol=1e-5, rtol=0)
    torch.testing.assert_close(found[1], noise, atol=1e-5, rtol=0)
