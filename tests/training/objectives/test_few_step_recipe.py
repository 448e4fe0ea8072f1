"""Distillation: steps between noise levels are those of diffusers; a student that equals its teacher has no loss."""

from copy import deepcopy

import pytest
import torch
from diffusers import DDIMScheduler

from landscape_video.training.objectives.few_step_recipe import (
    FewStepObjective,
    NoiseSchedule,
    Teacher,
    trailing_timesteps,
)
from pipeline_landscape_video import LandscapeVideoPipeline
from tiny_models import build_components
from training_steps import make_scheduler


SHAPE = (1, 4, 3, 8, 8)


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_steps_are_those_of_ddim(prediction_type):
    scheduler = DDIMScheduler.from_config(
        make_scheduler(prediction_type).config, clip_sample=False, timestep_spacing="trailing", set_alpha_to_one=True
    )
    scheduler.set_timesteps(4)
    timesteps = trailing_timesteps(4, 1000)
    assert timesteps == [*scheduler.timesteps.tolist(), -1] == [999, 749, 499, 249, -1]
    schedule, latents, prediction = NoiseSchedule(scheduler), random(*SHAPE), random(*SHAPE, seed=1)
    for timestep, following in zip(timesteps[:-1], timesteps[1:], strict=True):
        expected = scheduler.step(prediction, timestep, latents).prev_sample
        velocity = schedule.velocity(prediction, latents, timestep)
        reached = schedule.step(velocity, latents, timestep, following)
        torch.testing.assert_close(reached, expected, rtol=1e-4, atol=1e-4)
        found = schedule.velocity_between(latents, timestep, reached, following)
        torch.testing.assert_close(found, velocity, rtol=1e-3, atol=1e-3)


def objective(guidance_scale, teacher_steps):
    components = build_components()
    unet = LandscapeVideoPipeline(**components).unet.requires_grad_(False)
    teacher = Teacher(deepcopy(unet), NoiseSchedule(make_scheduler()), guidance_scale)
    return FewStepObjective(unet, teacher, 2, teacher_steps)


def test_the_loss_is_zero_where_student_and_teacher_are_the_same():
    text, null = random(1, 77, 16), random(1, 77, 16, seed=1)
    same = objective(1.0, teacher_steps=2)(random(*SHAPE), text, null)
    assert same.keys() == {"total", "step_1", "step_2"} and same["total"] < 1e-6
    guided = objective(4.0, teacher_steps=2)(random(*SHAPE), text, null)
    finer = objective(1.0, teacher_steps=6)(random(*SHAPE), text, null)
    assert guided["total"] > 100 * same["total"] and finer["total"] > 100 * same["total"]
