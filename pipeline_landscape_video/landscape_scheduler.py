"""Replace or check the noise schedule: motion modules are trained with linear betas (NADM, AnimateDiff)."""

import logging

from diffusers import DDIMScheduler, SchedulerMixin


logger = logging.getLogger(__name__)


def with_linear_betas(scheduler: SchedulerMixin | None) -> SchedulerMixin | None:
    """Return `scheduler`, or DDIM with linear betas if its betas are `scaled_linear`, as in Stable Diffusion."""
    if scheduler is None or scheduler.config.get("beta_schedule") != "scaled_linear":
        return scheduler
    logger.warning(
        "%s with scaled_linear betas is replaced by DDIMScheduler with linear betas, with which motion modules are"
        " trained; assign `pipe.scheduler` to use another one.",
        type(scheduler).__name__,
    )
    return DDIMScheduler.from_config(
        scheduler.config, beta_schedule="linear", clip_sample=False, steps_offset=1, timestep_spacing="leading"
    )


def warn_about_betas(scheduler: SchedulerMixin) -> None:
    """Log a warning if the betas are not linear. Such clips are pale and flicker, without any error."""
    beta_schedule = scheduler.config.get("beta_schedule")
    if beta_schedule != "linear":
        logger.warning(
            "The betas of %s are %s, but motion modules are trained with linear ones: expect worse clips.",
            type(scheduler).__name__,
            beta_schedule,
        )


def check_num_inference_steps(scheduler: SchedulerMixin, num_inference_steps: int) -> None:
    """
    Check that the scheduler has this many timesteps.

    diffusers finds out after it has encoded the prompt. If only an offset exceeds the last timestep, the error is an
    `IndexError` without explanation.

    Raises:
        ValueError: There are too many steps.
    """
    limit = scheduler.config.num_train_timesteps
    too_many = num_inference_steps > limit
    if not too_many:
        scheduler.set_timesteps(num_inference_steps)
        timesteps = scheduler.timesteps  # integer timesteps are indices of a table
        too_many = not timesteps.is_floating_point() and timesteps.max() >= limit
    if too_many:
        raise ValueError(
            f"`num_inference_steps` must be smaller for {type(scheduler).__name__} with {limit} timesteps and an"
            f" offset of {scheduler.config.get('steps_offset', 0)}, got {num_inference_steps}."
        )
