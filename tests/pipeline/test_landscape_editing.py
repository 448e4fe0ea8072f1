"""Invert DDIM as diffusers does where it is right, undo its steps exactly, and follow the difference of two edits."""

from functools import partial

import pytest
import torch
from diffusers import DDIMInverseScheduler, DDIMScheduler, EulerDiscreteScheduler
from tqdm import tqdm

from pipeline_landscape_video.landscape_denoising import denoise
from pipeline_landscape_video.landscape_editing import (
    check_invertible,
    combine_regions,
    edit_paired,
    invert,
    last_timesteps,
    split_prediction,
)


no_progress_bar = partial(tqdm, disable=True)
LOOP = {"progress_bar": no_progress_bar, "is_interrupted": lambda: False}


def scheduler_for(prediction_type, steps=10, **config):
    config = {"clip_sample": False, "timestep_spacing": "trailing", "prediction_type": prediction_type} | config
    scheduler = DDIMScheduler(**config)
    scheduler.set_timesteps(steps)
    return scheduler


def smooth_model(latents, timestep, step):
    """Predict something that depends on the latents and the timestep, as a model does."""
    return torch.tanh(latents.roll(1, -1)) * (0.2 + timestep / 2000)


def latents_of(seed=0):
    return torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


def sample(scheduler, latents, timesteps, predict=smooth_model):
    kwargs = {"num_inference_steps": len(timesteps), **LOOP}
    return denoise(scheduler, latents, timesteps, predict, {"eta": 0.0}, lambda latents, *_: latents, **kwargs)


def invert_clip(scheduler, latents, timesteps, iterations):
    kept = {}
    inverted = invert(
        scheduler,
        latents,
        timesteps,
        smooth_model,
        iterations,
        lambda latents, step: kept.update({step: latents}),
        progress_bar=no_progress_bar,
    )
    assert sorted(kept) == list(range(len(timesteps))) and kept[0] is inverted
    return inverted


def test_without_iterations_noise_models_give_what_diffusers_gives():
    scheduler, clean = scheduler_for("epsilon"), latents_of()
    theirs = DDIMInverseScheduler.from_config(scheduler.config)
    theirs.set_timesteps(10)
    expected = clean
    for timestep in theirs.timesteps:
        expected = theirs.step(smooth_model(expected, timestep, 0), timestep, expected).prev_sample
    ours = invert_clip(scheduler, clean, scheduler.timesteps, iterations=0)
    assert torch.allclose(ours, expected, atol=1e-5)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_iterations_lead_back_to_the_clip(prediction_type):
    scheduler, clean = scheduler_for(prediction_type), latents_of()
    timesteps = last_timesteps(scheduler, 0.8)
    assert timesteps.tolist() == [799, 699, 599, 499, 399, 299, 199, 99]
    errors = []
    for iterations in (0, 1, 20):
        again = sample(scheduler, invert_clip(scheduler, clean, timesteps, iterations), timesteps)
        errors.append((again - clean).abs().max())
    assert errors[1] < errors[0] and errors[2] < 1e-4


def test_a_v_model_is_asked_at_the_timestep_of_its_latents():
    scheduler, clean, noise = scheduler_for("v_prediction"), latents_of(0), latents_of(1)

    def perfect(latents, timestep, step):  # the exact v of this clip and this noise
        alpha_bar = scheduler.alphas_cumprod[int(timestep)]
        return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clean

    timesteps = last_timesteps(scheduler, 0.8)
    inverted = invert(scheduler, clean, timesteps, perfect, 0, lambda *_: None, progress_bar=no_progress_bar)
    expected = scheduler.add_noise(clean, noise, timesteps[:1])
    theirs = DDIMInverseScheduler.from_config(scheduler.config)
    theirs.set_timesteps(10)
    late = clean
    for timestep in theirs.timesteps[:8]:
        late = theirs.step(perfect(late, timestep, 0), timestep, late).prev_sample
    assert torch.allclose(inverted, expected, atol=0.02)
    assert (late - expected).abs().max() > 1


def edit(predict_source, predict_target, mask=None):
    scheduler, source = scheduler_for("v_prediction"), latents_of()
    generator = torch.Generator().manual_seed(3)
    return source, edit_paired(
        scheduler,
        source,
        lambda: torch.randn(1, 4, 1, 8, 8, generator=generator),
        last_timesteps(scheduler, 0.8),
        predict_source,
        predict_target,
        mask,
        lambda latents, *_: latents,
        **LOOP,
    )


def test_equal_predictors_change_nothing():
    source, edited = edit(smooth_model, smooth_model)
    assert torch.equal(source, edited)


def test_models_that_know_both_clips_lead_from_one_to_the_other():
    scheduler, source, other = scheduler_for("v_prediction"), latents_of(), latents_of(9)

    def knowing(clip):
        def predict(latents, timestep, step):
            alpha_bar = scheduler.alphas_cumprod[int(timestep)]
            noise = (latents - alpha_bar.sqrt() * clip) / (1 - alpha_bar).sqrt()
            return alpha_bar.sqrt() * noise - (1 - alpha_bar).sqrt() * clip

        return predict

    assert torch.allclose(edit(knowing(source), knowing(other))[1], other, atol=1e-4)
    mask = torch.zeros(1, 1, 3, 8, 8)
    mask[..., :4] = 1
    masked = edit(knowing(source), knowing(other), mask)[1]
    assert torch.equal(masked[..., 4:], source[..., 4:])
    assert torch.allclose(masked[..., :4], other[..., :4], atol=1e-4)


def test_regions_follow_their_own_predictors():
    left = torch.zeros(1, 1, 1, 8, 8)
    left[..., :4] = 1
    both = combine_regions([lambda *_: torch.tensor(1.0), lambda *_: torch.tensor(3.0)], [left, 1 - left])
    expected = torch.where(left.bool(), 1.0, 3.0)
    assert torch.equal(both(None, None, 0), expected)


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (EulerDiscreteScheduler(), "got EulerDiscreteScheduler"),
        (DDIMScheduler(), "must not have `clip_sample`"),
        (
            DDIMScheduler(clip_sample=False, prediction_type="sample"),
            "must predict epsilon or v_prediction, got sample",
        ),
    ],
)
def test_schedulers_that_cannot_be_inverted_are_named(scheduler, message):
    with pytest.raises(ValueError, match=message):
        check_invertible(scheduler)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_prediction_splits_into_clean_latents_and_noise(prediction_type):
    scheduler, clean, noise = scheduler_for(prediction_type), latents_of(0), latents_of(1)
    timestep = torch.tensor(399)
    noisy = scheduler.add_noise(clean, noise, timestep[None])
    prediction = noise if prediction_type == "epsilon" else scheduler.get_velocity(clean, noise, timestep[None])
    found = split_prediction(scheduler, prediction, noisy, timestep)
    assert torch.allclose(found[0], clean, atol=1e-4) and torch.allclose(found[1], noise, atol=1e-4)
