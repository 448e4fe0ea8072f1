"""Losses of combined tuning in closed form, and the LoRA that a recipe writes."""

import pytest
import torch
from diffusers import DDPMScheduler

from landscape_video.training.objectives.consistency_recipe import ConsistencyObjective, masked_losses
from landscape_video.training.settings.consistency import ConsistencySettings
from motion_unets import moving_unet
from tiny_models import build_scheduler


def inputs(batch=2, frames=4):
    generator = torch.Generator().manual_seed(0)
    latents, noise = torch.randn(2, batch, 4, frames, 8, 8, generator=generator)
    background = (torch.rand(batch, 1, frames, 8, 8, generator=generator) > 0.3).float()
    text = torch.randn(batch, 7, 16, generator=generator)
    return latents, text, noise, torch.tensor([100, 700])[:batch], background


def objective(prediction_type="epsilon", **settings):
    scheduler = DDPMScheduler.from_config(build_scheduler().config, prediction_type=prediction_type)
    return ConsistencyObjective(moving_unet(), scheduler, ConsistencySettings(**settings))


def test_losses_are_means_over_their_areas():
    error = torch.tensor([4.0, 1.0, 1.0, 2.0]).reshape(1, 1, 1, 2, 2)
    background = torch.tensor([0.0, 1.0, 1.0, 1.0]).reshape(1, 1, 1, 2, 2)
    losses = masked_losses(error, background, "area")
    assert [float(losses[name]) for name in ("diffusion", "foreground")] == [2.0, 4.0]
    assert float(losses["background"]) == pytest.approx(4 / 3)
    losses = masked_losses(error, background, "none")
    assert [float(losses[name]) for name in ("foreground", "background")] == [1.0, 1.0]
    assert float(masked_losses(error, torch.ones_like(background), "area")["foreground"]) == 0


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_equal_weights_without_normalization_are_the_diffusion_loss(prediction_type):
    settings = {"diffusion_weight": 0.0, "mask_normalization": "none"}
    losses = objective(prediction_type, **settings)(*inputs())
    assert losses["total"].item() == pytest.approx(float(losses["diffusion"]), rel=1e-6)


def test_weights_scale_their_losses():
    settings = {"diffusion_weight": 2.0, "foreground_loss_weight": 3.0, "background_loss_weight": 0.5}
    losses = {name: loss.item() for name, loss in objective(**settings)(*inputs()).items()}
    expected = 2 * losses["diffusion"] + 3 * losses["foreground"] + 0.5 * losses["background"]
    assert losses["total"] == pytest.approx(expected, rel=1e-6)


def test_a_gradient_reaches_the_fusion_weights():
    learning = objective(learn_fusion_weights=True)
    learning(*inputs())["total"].backward()
    assert (learning.fusion_weights.grad.abs() > 1e-6).all()
    assert "fusion_weights" in learning.trainable()
    assert "fusion_weights" not in objective().trainable()


def test_the_fusion_in_training_averages_backgrounds():
    latents, _, _, _, background = inputs(batch=1)
    fused = objective(learn_fusion_weights=True).fuse(latents, torch.ones_like(background))
    mean = latents.mean(dim=2, keepdim=True).expand_as(latents)
    torch.testing.assert_close(fused, mean)


def test_all_weights_zero_is_refused():
    with pytest.raises(ValueError, match="`diffusion_weight` and the other loss weights must not all be 0"):
        ConsistencySettings(diffusion_weight=0.0, foreground_loss_weight=0.0, background_loss_weight=0.0)
