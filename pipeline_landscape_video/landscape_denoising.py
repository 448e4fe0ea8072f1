"""Denoise latents step by step: the sampling loop of both pipelines.

The loop does not depend on a model. It calls `predict_noise(latents, timestep, step)`, so guidance, windows over a
long video, feature caches and guidance intervals are functions that take such a callable and return another one.
"""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from fractions import Fraction
from typing import Any

import torch
from diffusers import DDIMParallelScheduler, DDIMScheduler, DiffusionPipeline, SchedulerMixin
from diffusers.utils import BaseOutput, deprecate, is_torch_xla_available


NoisePredictor = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""`predict_noise(latents, timestep, step) -> noise_pred`. Steps count from 0 in each run of the loop."""

StepHook = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
"""`on_step(latents, timestep, step) -> latents`, called after the scheduler has taken the step."""

DDIM = (DDIMScheduler, DDIMParallelScheduler)


def denoise(
    scheduler: SchedulerMixin,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    predict_noise: NoisePredictor,
    step_kwargs: dict[str, Any] | Callable[[torch.Tensor], dict[str, Any]],
    on_step: StepHook,
    *,
    num_inference_steps: int,
    progress_bar: Callable[..., AbstractContextManager],
    is_interrupted: Callable[[], bool],
) -> torch.Tensor:
    """
    Denoise `latents` over `timesteps`.

    The callables read the state of a call when they run: a callback may replace embeddings or change the guidance
    scale in any step.

    Args:
        scheduler: Scheduler whose timesteps are set.
        latents: Noisy latents, `(batch, channels, num_frames, height, width)`.
        timesteps: Timesteps to visit, `(num_timesteps,)`.
        predict_noise: Noise predictor, see `NoisePredictor`.
        step_kwargs: Further arguments of `scheduler.step`, such as `eta` and `generator`; or a function from the
            latents to those of the next step.
        on_step: Hook that may change the latents after each step, see `StepHook`.
        num_inference_steps: Steps that the user asked for. A scheduler of order 2 visits more timesteps.
        progress_bar: Factory of a progress bar, such as `pipe.progress_bar`.
        is_interrupted: Function that returns True when the loop must end before its next step.

    Returns:
        Latents of the same shape, denoised.
    """
    xla = importlib.import_module("torch_xla.core.xla_model") if is_torch_xla_available() else None
    if isinstance(scheduler, DDIM) and timesteps[-1] < 0:
        # Rounding appends a timestep of -1, an index of pure noise, to some `trailing` lists, such as those of 61.
        scheduler.timesteps = scheduler.timesteps[:-1]
        timesteps = timesteps[:-1]
    completed = completed_steps(len(timesteps), num_inference_steps, scheduler.order)
    gaps = timestep_gaps(timesteps, scheduler.timesteps)
    with progress_bar(total=len(completed)) as bar:
        for step, timestep in enumerate(timesteps):
            if is_interrupted():
                break
            noise_pred = predict_noise(latents, timestep, step)
            kwargs = step_kwargs(latents) if callable(step_kwargs) else step_kwargs
            latents = take_step(scheduler, noise_pred, timestep, latents, gaps[step], kwargs).prev_sample
            latents = on_step(latents, timestep, step)
            if step in completed:
                bar.update()
            if xla is not None:
                xla.mark_step()
    return latents


def timestep_gaps(timesteps: torch.Tensor, schedule: torch.Tensor) -> list[float]:
    """
    Return the distance from each timestep to the next one, `(num_timesteps,)`.

    After the last of `timesteps` comes the next one of the `schedule`, or -1, clean latents, at its end.
    """
    visited = timesteps.tolist()
    after = max((timestep for timestep in schedule.tolist() if timestep < visited[-1]), default=-1)
    return [timestep - following for timestep, following in zip(visited, [*visited[1:], after], strict=True)]


def take_step(
    scheduler: SchedulerMixin,
    noise_pred: torch.Tensor,
    timestep: torch.Tensor,
    latents: torch.Tensor,
    gap: float,
    step_kwargs: dict[str, Any],
) -> BaseOutput:
    """
    Take a step of the scheduler to the timestep `gap` below, and return the scheduler's output.

    DDIM in diffusers always goes `num_train_timesteps // num_inference_steps` down, wherever its list of timesteps
    continues. In `trailing` lists of 30 steps the gaps are 33 and 34, so each step would start at a noise level other
    than that of its latents. A fraction as the number of steps makes the quotient exactly `gap`.
    """
    if not isinstance(scheduler, DDIM):
        return scheduler.step(noise_pred, timestep, latents, **step_kwargs)
    num_inference_steps = scheduler.num_inference_steps
    scheduler.num_inference_steps = Fraction(scheduler.config.num_train_timesteps, gap)
    try:
        return scheduler.step(noise_pred, timestep, latents, **step_kwargs)
    finally:
        scheduler.num_inference_steps = num_inference_steps


def completed_steps(num_timesteps: int, num_inference_steps: int, order: int) -> set[int]:
    """
    Return the indices of the timesteps that complete one of the steps that the user asked for.

    A scheduler of order k runs the model k times per step, and multistep schedulers may warm up first. This is
    the rule of diffusers' pipelines.
    """
    warmup = num_timesteps - num_inference_steps * order
    completed = {step for step in range(num_timesteps) if step + 1 > warmup and (step + 1) % order == 0}
    return completed | {num_timesteps - 1}


def call_on_step_end(
    pipe: DiffusionPipeline,
    callback: Callable[..., dict[str, torch.Tensor]] | None,
    tensor_inputs: list[str] | tuple[str, ...],
    embeds: dict[str, torch.Tensor | None],
) -> StepHook:
    """
    Return a hook that calls the user's `callback_on_step_end` and replaces tensors by those that it returns.

    Args:
        pipe: Pipeline that the callback receives.
        callback: Function `(pipe, step, timestep, tensors) -> tensors`. With `None`, the hook changes nothing.
        tensor_inputs: Names of the tensors that the callback receives: `"latents"` and the keys of `embeds`.
        embeds: Embeddings by name. Those that the callback returns are written into this dictionary, from which the
            noise predictor reads them.
    """

    def on_step(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        if callback is None:
            return latents
        tensors = {"latents": latents, **embeds}
        returned = callback(pipe, step, timestep, {name: tensors[name] for name in tensor_inputs})
        if not isinstance(returned, dict):
            raise TypeError(
                f"`callback_on_step_end` must return a dictionary of tensors, got {type(returned).__name__}; return"
                " an empty one to change nothing."
            )
        embeds.update({name: returned[name] for name in embeds if name in returned})
        return returned.get("latents", latents)

    return on_step


def call_deprecated_callback(
    pipe: DiffusionPipeline,
    num_inference_steps: int,
    on_step: StepHook,
    callback: Callable[[int, torch.Tensor, torch.Tensor], None] | None = None,
    callback_steps: int | None = None,
) -> StepHook:
    """
    Return a hook that calls `on_step`, then the `callback(step, timestep, latents)` that diffusers deprecates.

    Args:
        pipe: Pipeline with `num_timesteps` set.
        num_inference_steps: Steps that the user asked for.
        on_step: Hook to call first.
        callback: Function to call after completed steps. With `None`, the result is `on_step`.
        callback_steps: `callback` runs only at steps whose index is a multiple of this number; `None` means 1.
    """
    for name, value in (("callback", callback), ("callback_steps", callback_steps)):
        if value is not None:
            deprecate(name, "1.0.0", f"`{name}` is deprecated, use `callback_on_step_end` instead.")
    if callback is None:
        return on_step

    def on_step_and_callback(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        latents = on_step(latents, timestep, step)
        completed = completed_steps(pipe.num_timesteps, num_inference_steps, pipe.scheduler.order)
        if step in completed and step % (callback_steps or 1) == 0:
            callback(step, timestep, latents)
        return latents

    return on_step_and_callback
