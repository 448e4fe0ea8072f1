"""
The noise schedule of motion modules: betas that rise linearly, as AnimateDiff and NADM train with, where Stable
Diffusion's rise as `scaled_linear`.
"""

import logging

from diffusers import DDIMScheduler, SchedulerMixin


logger = logging.getLogger(__name__)


def with_linear_betas(scheduler: SchedulerMixin | None) -> SchedulerMixin | None:
    """The scheduler itself, or DDIM with linear betas in the place of one whose betas are `scaled_linear`."""
    if scheduler is None or scheduler.config.get("beta_schedule") != "scaled_linear":
        return scheduler
    logger.warning(
        "%s with scaled_linear betas is replaced by DDIMScheduler with linear betas, as motion modules are trained;"
        " assign `pipe.scheduler` to use another.",
        type(scheduler).__name__,
    )
    return DDIMScheduler.from_config(
        scheduler.config, beta_schedule="linear", clip_sample=False, steps_offset=1, timestep_spacing="leading"
    )


def warn_about_betas(scheduler: SchedulerMixin) -> None:
    """Warn if the betas are not linear: a mismatch gives pale, flickering clips, and no error."""
    beta_schedule = scheduler.config.get("beta_schedule")
    if beta_schedule != "linear":
        logger.warning(
            "The betas of %s are %s, but motion modules are trained with linear ones: expect worse clips.",
            type(scheduler).__name__,
            beta_schedule,
        )


def check_num_inference_steps(scheduler: SchedulerMixin, num_inference_steps: int) -> None:
    """
    Raise a `ValueError` for more steps than `scheduler` has timesteps. diffusers finds that out after the prompt is
    encoded, and as an `IndexError` where only an offset leads past the last timestep.
    """
    limit = scheduler.config.num_train_timesteps
    too_many = num_inference_steps > limit
    if not too_many:
        scheduler.set_timesteps(num_inference_steps)
        timesteps = scheduler.timesteps  # whole numbers are indices of a table
        too_many = not timesteps.is_floating_point() and timesteps.max() >= limit
    if too_many:
        offset = scheduler.config.get("steps_offset", 0)
        raise ValueError(
            f"`num_inference_steps` is {num_inference_steps}, too many for {type(scheduler).__name__} with"
            f" {limit} timesteps and an offset of {offset}."
        )
