"""The noise schedule: scaled_linear betas are replaced or warned about, and the number of steps is limited."""

import logging

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    PNDMScheduler,
    UNetMotionModel,
)

from pipeline_calls import PIPELINE_LOGGER, said, sample
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoPipeline
from pipeline_landscape_video.landscape_scheduler import check_num_inference_steps
from tiny_models import build_scheduler


NOISE_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012}

# In a new pipeline


@pytest.mark.parametrize("scheduler_class", [PNDMScheduler, DDIMScheduler, EulerDiscreteScheduler])
def test_scaled_linear_scheduler_of_an_image_model_is_replaced_and_said_so(tiny_components, caplog, scheduler_class):
    given = scheduler_class(
        beta_schedule="scaled_linear", prediction_type="v_prediction", timestep_spacing="trailing", **NOISE_SCHEDULE
    )
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER):
        pipe = LandscapeVideoPipeline(**tiny_components(scheduler=given))
    (message,) = said(caplog)
    assert scheduler_class.__name__ in message and "linear betas" in message and "\n" not in message
    assert type(pipe.scheduler) is DDIMScheduler
    config = pipe.scheduler.config
    assert (config.beta_schedule, config.beta_start, config.beta_end) == ("linear", 0.00085, 0.012)
    assert (config.clip_sample, config.steps_offset, config.timestep_spacing) == (False, 1, "leading")
    assert config.prediction_type == "v_prediction"
    assert given.config.beta_schedule == "scaled_linear"  # it may belong to another pipeline


def test_linear_scheduler_is_kept_whatever_its_class(tiny_components, caplog):
    given = EulerDiscreteScheduler(beta_schedule="linear", **NOISE_SCHEDULE)
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER):
        assert LandscapeVideoPipeline(**tiny_components(scheduler=given)).scheduler is given
    assert not said(caplog)


def test_scheduler_of_a_motion_unet_is_kept(tiny_components):
    components = tiny_components()
    given = DDIMScheduler(beta_schedule="scaled_linear", **NOISE_SCHEDULE)
    unet = UNetMotionModel.from_unet2d(components["unet"], components["motion_adapter"])
    pipe = LandscapeVideoPipeline(**components | {"unet": unet, "scheduler": given})
    assert pipe.scheduler is given


# At a call


@pytest.mark.parametrize(
    "scheduler",
    [
        EulerDiscreteScheduler(beta_schedule="scaled_linear"),
        DDIMScheduler(beta_schedule="squaredcos_cap_v2"),
    ],
)
def test_other_beta_schedules_are_warned_about(tiny_pipeline, caplog, scheduler):
    pipe = tiny_pipeline()
    pipe.scheduler = scheduler
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER):
        sample(pipe, interpolate=False)
    (message,) = said(caplog)
    assert scheduler.config.beta_schedule in message and "\n" not in message


def test_linear_betas_are_not_warned_about(tiny_pipeline, caplog):
    pipe = tiny_pipeline()
    pipe.scheduler = EulerDiscreteScheduler.from_config(build_scheduler().config)
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER):
        sample(pipe, interpolate=False)
    assert not said(caplog)


def test_the_most_steps_a_scheduler_has_are_allowed():
    offset_by_one, no_offset = build_scheduler(), DDIMScheduler(timestep_spacing="trailing")
    check_num_inference_steps(offset_by_one, 999)
    check_num_inference_steps(no_offset, 1000)
    check_num_inference_steps(FlowMatchEulerDiscreteScheduler(), 1000)  # its timesteps are not indices


def test_scheduler_without_betas_is_warned_about(tiny_pipeline, caplog):
    pipe = tiny_pipeline()
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    with caplog.at_level(logging.WARNING, PIPELINE_LOGGER), pytest.raises(AttributeError, match="init_noise_sigma"):
        sample(pipe)  # diffusers' own AnimateDiff cannot use it either
    assert "The betas of FlowMatchEulerDiscreteScheduler are None" in said(caplog)[0]


@pytest.mark.parametrize("steps", [3, 6, 12])  # whose first step is the root of -6e-8 without the pipeline's help
def test_an_eta_of_one_out_of_noise_alone_is_no_nan(tiny_pipeline, steps):
    scheduler = DDIMScheduler.from_pretrained(SHANSHUI_TINY / "scheduler")
    frames = sample(tiny_pipeline(scheduler=scheduler), eta=1, num_inference_steps=steps)
    assert torch.isfinite(frames).all()


@pytest.mark.parametrize(
    ("spacing", "num_inference_steps", "advice"),
    [
        ("trailing", 30, "use 25 or 40 steps, or leading spacing."),
        ("linspace", 25, "use leading spacing."),
        ("trailing", 25, None),
        ("leading", 30, None),
    ],
)
def test_steps_that_pndm_does_not_take_along_its_timesteps_are_warned_about(
    caplog, spacing, num_inference_steps, advice
):
    scheduler = PNDMScheduler(beta_schedule="linear", timestep_spacing=spacing, skip_prk_steps=True)
    check_num_inference_steps(scheduler, num_inference_steps)
    expected = f"PNDMScheduler leaves noise in clips with {spacing} spacing and {num_inference_steps} steps; {advice}"
    assert said(caplog) == ([] if advice is None else [expected])
