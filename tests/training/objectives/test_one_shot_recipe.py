"""The losses of one-shot tuning: what a perfect prediction and a still one cost, in both targets."""

import pytest
import torch

from landscape_video.training.objectives.one_shot_recipe import one_shot_losses, predict_clean
from training_steps import Answer, make_scheduler


TIMESTEPS = torch.tensor([200, 700])


def batch() -> tuple[torch.Tensor, ...]:
    """Latents with motion, prompt embeddings, noise and timesteps."""
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, 4, 5, 8, 8, generator=generator) for _ in range(2))
    return latents, torch.zeros(2, 7, 16), noise, TIMESTEPS


def answer_of(scheduler, latents: torch.Tensor, noise: torch.Tensor, clean: torch.Tensor) -> Answer:
    """Return a UNet that sees `latents` with noise and predicts that they were `clean`."""
    alpha_bar = scheduler.alphas_cumprod[TIMESTEPS].view(2, 1, 1, 1, 1)
    noisy = scheduler.add_noise(latents, noise, TIMESTEPS)
    implied = (noisy - alpha_bar.sqrt() * clean) / (1 - alpha_bar).sqrt()
    if scheduler.config.prediction_type == "epsilon":
        return Answer(implied)
    return Answer(alpha_bar.sqrt() * implied - (1 - alpha_bar).sqrt() * clean)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_clean_clip_of_a_prediction(prediction_type):
    scheduler = make_scheduler(prediction_type)
    latents, text, noise, timesteps = batch()
    still = latents[:, :, :1].expand_as(latents)
    for clean in (latents, still):
        unet = answer_of(scheduler, latents, noise, clean)
        _, _, found = predict_clean(unet, scheduler, latents, text, noise, timesteps)
        torch.testing.assert_close(found, clean, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_temporal_loss_of_a_perfect_and_of_a_still_prediction(prediction_type):
    scheduler = make_scheduler(prediction_type)
    latents, text, noise, timesteps = batch()
    alpha_bar = scheduler.alphas_cumprod[TIMESTEPS].view(2, 1, 1, 1, 1)
    motion = (alpha_bar * latents.diff(dim=2).square()).mean().item()
    perfect = answer_of(scheduler, latents, noise, latents)
    still = answer_of(scheduler, latents, noise, latents[:, :, :1].expand_as(latents))

    def losses(unet: Answer, target: str) -> dict[str, float]:
        found = one_shot_losses(
            unet, scheduler, latents, text, noise, timesteps, temporal_weight=0.5, temporal_target=target
        )
        return {name: loss.item() for name, loss in found.items()}

    assert losses(perfect, "match_source")["total"] < 1e-4
    assert losses(perfect, "literal")["temporal"] == pytest.approx(motion, rel=1e-3)  # punishes the source's motion
    assert losses(still, "match_source")["temporal"] == pytest.approx(motion, rel=1e-3)
    found = losses(still, "literal")
    assert found["temporal"] < 1e-5 and found["diffusion"] > 0.1
    found = losses(perfect, "literal")
    assert found["total"] == pytest.approx(found["diffusion"] + 0.5 * found["temporal"], rel=1e-4)


def test_depth_follows_the_latents_into_the_unet():
    scheduler = make_scheduler("epsilon")
    latents, text, noise, timesteps = batch()
    unet, depth = Answer(noise), torch.rand(2, 1, 5, 8, 8)
    one_shot_losses(unet, scheduler, latents, text, noise, timesteps, depth)
    assert unet.sample.shape[1] == 5 and torch.equal(unet.sample[:, 4:], depth)
    assert unet.text.shape == (10, 7, 16)


def test_other_predictions_are_refused():
    latents, text, noise, timesteps = batch()
    with pytest.raises(ValueError, match="`prediction_type` must be one of epsilon, v_prediction, got 'sample'"):
        one_shot_losses(Answer(noise), make_scheduler("sample"), latents, text, noise, timesteps)
