"""Replace or check the noise schedule: motion modules are trained with linear betas (NADM, AnimateDiff)."""

import logging

from diffusers import DDIMScheduler, PNDMScheduler, SchedulerMixin


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
    Check that the scheduler has this many timesteps, and log a warning if PNDM does not step along them.

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
    warn_about_uneven_steps(scheduler, num_inference_steps)


def warn_about_uneven_steps(scheduler: SchedulerMixin, num_inference_steps: int) -> None:
    """
    Log a warning if PNDM does not step along its list of timesteps, which leaves noise in the clip.

    PNDM always goes `num_train_timesteps // num_inference_steps` down, as DDIM does in diffusers. The sampling loop
    corrects the steps of DDIM, but PNDM combines the predictions of several steps.
    """
    spacing, total = scheduler.config.get("timestep_spacing"), scheduler.config.num_train_timesteps
    if not isinstance(scheduler, PNDMScheduler) or spacing == "leading":
        return
    even = [number for number in range(1, total + 1) if total % number == 0] if spacing == "trailing" else []
    if num_inference_steps in even:
        return
    nearest = [n for n in even if n < num_inference_steps][-1:] + [n for n in even if n > num_inference_steps][:1]
    logger.warning(
        "PNDMScheduler leaves noise in clips with %s spacing and %d steps; use %sleading spacing.",
        spacing,
        num_inference_steps,
        f"{' or '.join(map(str, nearest))} steps, or " if nearest else "",
    )
