"""Losses of a motion adapter: targets, weights, gradients and slowed-down clips."""

import pytest
import torch

from landscape_video.training.objectives.motion_objective import (
    MAX_SLOWED_ALPHA_BAR,
    alphas_cumprod_at,
    min_snr_weight,
    motion_losses,
    slow_down,
)
from motion_adapter.build import attach_motion_adapter, freeze_image_layers
from motion_adapter.noise_adapter import NoiseAdapter, contrastive_loss
from tiny_models import build_motion_adapter, build_unet2d
from training_steps import Answer, make_scheduler


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "latents": torch.randn(2, 4, 8, 8, 8, generator=generator),
        "encoder_hidden_states": torch.randn(2, 5, 16, generator=generator),
        "noise": torch.randn(2, 4, 8, 8, 8, generator=generator),
        "timesteps": torch.tensor([100, 900]),
    }


def test_noise_is_the_target_of_epsilon(batch):
    perfect = Answer(batch["noise"])
    assert motion_losses(perfect, None, make_scheduler(), **batch)["diffusion"].item() == 0
    off_by_one = Answer(batch["noise"] + 1)
    assert motion_losses(off_by_one, None, make_scheduler(), **batch)["diffusion"].item() == pytest.approx(1, rel=1e-5)


def test_velocity_is_the_target_of_v_prediction(batch):
    scheduler = make_scheduler("v_prediction")
    alpha_bar = scheduler.alphas_cumprod[batch["timesteps"]].reshape(2, 1, 1, 1, 1)
    velocity = alpha_bar.sqrt() * batch["noise"] - (1 - alpha_bar).sqrt() * batch["latents"]
    assert motion_losses(Answer(velocity), None, scheduler, **batch)["diffusion"].item() < 1e-10


def test_the_unet_sees_noisy_latents_and_the_text_of_every_frame(batch):
    unet = Answer(batch["noise"])
    scheduler = make_scheduler()
    motion_losses(unet, None, scheduler, **batch)
    alpha_bar = scheduler.alphas_cumprod[batch["timesteps"]].reshape(2, 1, 1, 1, 1)
    noisy = alpha_bar.sqrt() * batch["latents"] + (1 - alpha_bar).sqrt() * batch["noise"]
    torch.testing.assert_close(unet.sample, noisy)
    assert torch.equal(unet.timestep, batch["timesteps"])
    assert unet.text.shape == (16, 5, 16)
    for frame in range(8):
        assert torch.equal(unet.text[frame], batch["encoder_hidden_states"][0])
        assert torch.equal(unet.text[8 + frame], batch["encoder_hidden_states"][1])


def test_the_noise_adapter_gets_the_predicted_noise_in_both_parametrizations(batch):
    # A perfect answer in either parametrization means the same predicted noise: the noise that was added.
    adapter = NoiseAdapter(pool_size=8)
    expected = contrastive_loss(adapter(batch["noise"])).item()
    epsilon = motion_losses(Answer(batch["noise"]), adapter, make_scheduler(), **batch)
    scheduler = make_scheduler("v_prediction")
    velocity = scheduler.get_velocity(batch["latents"], batch["noise"], batch["timesteps"])
    v_prediction = motion_losses(Answer(velocity), adapter, scheduler, **batch)
    assert epsilon["contrastive"].item() == pytest.approx(expected, rel=1e-5)
    assert v_prediction["contrastive"].item() == pytest.approx(expected, rel=1e-4)


def test_the_total_is_the_weighted_sum(batch):
    unet, adapter = Answer(torch.randn(2, 4, 8, 8, 8)), NoiseAdapter(pool_size=8)
    for weight in (0.07, 2.0):
        losses = motion_losses(unet, adapter, make_scheduler(), **batch, contrastive_weight=weight)
        assert losses["total"].item() == pytest.approx(
            losses["diffusion"].item() + weight * losses["contrastive"].item()
        )
    alone = motion_losses(unet, None, make_scheduler(), **batch)
    assert alone["contrastive"] == 0 and alone["total"].item() == alone["diffusion"].item()


@pytest.mark.parametrize(
    "change", [{"temperature": 0.5}, {"threshold": 2}, {"negatives": "eq10"}, {"positives": "within_threshold"}]
)
def test_choices_of_the_contrastive_loss_act(batch, change):
    unet, adapter = Answer(batch["noise"]), NoiseAdapter(pool_size=8)
    default = motion_losses(unet, adapter, make_scheduler(), **batch)["contrastive"]
    assert motion_losses(unet, adapter, make_scheduler(), **batch, **change)["contrastive"] != default


def test_the_contrastive_loss_teaches_the_unet_too(batch):
    unet, adapter = Answer(batch["noise"].clone()), NoiseAdapter(pool_size=8)
    losses = motion_losses(unet, adapter, make_scheduler(), **batch)  # the diffusion loss is 0 and flat here
    losses["total"].backward()
    assert unet.answer.grad.abs().sum() > 0 and adapter.linear_1.weight.grad.abs().sum() > 0


def test_min_snr_weights_are_hang_et_al_s():
    timesteps = torch.tensor([0, 500, 999])
    alpha_bar = make_scheduler().alphas_cumprod[timesteps]
    snr = alpha_bar / (1 - alpha_bar)
    assert snr[0] > 5 > snr[2]
    torch.testing.assert_close(min_snr_weight(make_scheduler(), timesteps, 5.0), snr.clamp(max=5) / snr)
    v_scheduler = make_scheduler("v_prediction")
    torch.testing.assert_close(min_snr_weight(v_scheduler, timesteps, 5.0), snr.clamp(max=5) / (snr + 1))
    terminal = make_scheduler(rescale_betas_zero_snr=True)
    assert min_snr_weight(terminal, torch.tensor([999]), 5.0).item() == 1


def test_min_snr_weighs_each_clip(batch):
    scheduler, unet = make_scheduler(), Answer(batch["noise"] + torch.tensor([1.0, 2.0]).reshape(2, 1, 1, 1, 1))
    weights = min_snr_weight(scheduler, batch["timesteps"], 5.0)
    loss = motion_losses(unet, None, scheduler, **batch, snr_gamma=5.0)["diffusion"]
    assert loss.item() == pytest.approx(((weights * torch.tensor([1.0, 4.0])).mean()).item(), rel=1e-5)


@pytest.mark.parametrize("gamma", [None, 5.0])
def test_the_first_frame_is_weighted_in_closed_form(batch, gamma):
    """Frame i is off by i + 1, so the weighted mean of squares is known."""
    scheduler, frames = make_scheduler(), batch["noise"].shape[2]
    off = torch.arange(1.0, frames + 1)
    unet = Answer(batch["noise"] + off.reshape(1, 1, -1, 1, 1))
    for weight in (1.0, 3.0):
        weights = torch.tensor([weight] + [1.0] * (frames - 1))
        expected = (off.square() * weights).sum() / weights.sum()
        if gamma is not None:
            expected = expected * min_snr_weight(scheduler, batch["timesteps"], gamma).mean()
        losses = motion_losses(unet, None, scheduler, **batch, snr_gamma=gamma, first_frame_weight=weight)
        assert losses["diffusion"].item() == pytest.approx(expected.item(), rel=1e-5)


def test_another_prediction_type_is_refused(batch):
    with pytest.raises(ValueError, match="`prediction_type` must be one of .*, got 'sample'"):
        motion_losses(Answer(batch["noise"]), None, make_scheduler("sample"), **batch)


def test_gradients_reach_the_motion_modules_and_nothing_else(batch):
    torch.manual_seed(0)
    unet = attach_motion_adapter(build_unet2d(), build_motion_adapter("previous"))
    trainable = dict(freeze_image_layers(unet))
    adapter = NoiseAdapter(pool_size=8)
    motion_losses(unet, adapter, make_scheduler(), **batch)["total"].backward()
    for name, parameter in unet.named_parameters():
        if name in trainable:
            assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
        else:
            assert parameter.grad is None, name
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())


# Slowed-down clips


def ramp(num_frames: int = 16) -> torch.Tensor:
    """Clips of one pixel whose frame i shows i, (3, 1, num_frames, 1, 1)."""
    return torch.arange(num_frames, dtype=torch.float32).reshape(1, 1, -1, 1, 1).repeat(3, 1, 1, 1, 1)


@pytest.mark.parametrize("anchor", [0.0, 0.5, 1.0])
def test_each_clip_moves_at_its_speed_around_the_anchor(anchor):
    speeds = torch.tensor([0.0, 0.3, 1.0])
    slowed = slow_down(ramp(), speeds, anchor)[:, 0, :, 0, 0]
    start = 15 * anchor
    expected = start + speeds[:, None] * (torch.arange(16) - start)
    torch.testing.assert_close(slowed, expected)


def test_at_full_speed_a_clip_is_what_it_was():
    clips = torch.randn(2, 4, 7, 3, 3, generator=torch.Generator().manual_seed(0))
    for anchor in (0.0, 0.5):
        assert torch.equal(slow_down(clips, torch.ones(2), anchor), clips)


def test_a_single_frame_has_no_speed():
    frame = torch.randn(2, 4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(slow_down(frame, torch.zeros(2), 0.0), frame)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("rescale_betas_zero_snr", [False, True])
def test_the_unet_sees_the_slow_clip_and_must_predict_the_fast_one(prediction_type, rescale_betas_zero_snr):
    """The right answer turns what the UNet saw into the clip at its own speed."""
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
    losses = motion_losses(unet, None, scheduler, *batch, speed=torch.tensor([0.25, 0.5]), speed_anchor=0.0)
    torch.testing.assert_close(unet.sample, seen)
    assert losses["diffusion"].item() < 1e-9
    assert motion_losses(unet, None, scheduler, *batch)["diffusion"].item() > 1e-3


def test_clips_with_little_noise_are_not_slowed_down():
    scheduler = make_scheduler()
    generator = torch.Generator().manual_seed(0)
    latents, noise = (torch.randn(2, 4, 8, 6, 6, generator=generator) for _ in range(2))
    timesteps = torch.tensor([50, 400])
    assert scheduler.alphas_cumprod[50] > MAX_SLOWED_ALPHA_BAR > scheduler.alphas_cumprod[400]
    unet = Answer(noise)
    motion_losses(unet, None, scheduler, latents, torch.zeros(2, 5, 16), noise, timesteps, speed=torch.zeros(2))
    as_it_is = scheduler.add_noise(latents, noise, timesteps)
    assert torch.equal(unet.sample[0], as_it_is[0]) and not torch.allclose(unet.sample[1], as_it_is[1])
