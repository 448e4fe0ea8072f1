"""
Edit the latents of a clip: invert DDIM and sample with another prompt (OneShotDepth, section 3.4), or, without
inversion, follow the difference of two trajectories.

`DDIMInverseScheduler` of diffusers asks the model at the later of two timesteps for latents of the earlier one. With
v-prediction, this makes the model's answer wrong. Here, the model is asked at the timestep of the latents, and a
fixed-point iteration then solves for the latents whose DDIM step leads back.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from numbers import Integral, Real

import torch
from diffusers import DDIMParallelScheduler, DDIMScheduler, SchedulerMixin


NoisePredictor = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]  # as in landscape_denoising.py

StepHook = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]

PREDICTION_TYPES = ("epsilon", "v_prediction")


def check_invertible(scheduler: SchedulerMixin) -> None:
    """
    Check that each step of a scheduler can be undone.

    Raises:
        ValueError: It is not DDIM, predicts something else, or clips its predictions; the message names it.
    """
    name = type(scheduler).__name__
    if not isinstance(scheduler, DDIMScheduler | DDIMParallelScheduler):
        raise ValueError(
            f"`scheduler` must be DDIM for editing, got {name}; set `pipe.scheduler ="
            " DDIMScheduler.from_config(pipe.scheduler.config)`."
        )
    if scheduler.config.prediction_type not in PREDICTION_TYPES:
        allowed = " or ".join(PREDICTION_TYPES)
        raise ValueError(f"`scheduler` must predict {allowed}, got {scheduler.config.prediction_type}.")
    for option in ("clip_sample", "thresholding"):
        if scheduler.config[option]:
            raise ValueError(f"`scheduler` must not have `{option}`, which cannot be inverted, got True.")


def check_extent(strength: float, iterations: int) -> None:
    """
    Check how far an edit goes back to noise, and the iterations of its inversion.

    Raises:
        ValueError: One is out of its range.
    """
    if not isinstance(strength, Real) or not 0 < strength <= 1:
        raise ValueError(f"`strength` must be above 0 and at most 1, got {strength}.")
    if not isinstance(iterations, Integral) or iterations < 0:
        raise ValueError(f"`inversion_iterations` must be a whole number of at least 0, got {iterations}.")


def last_timesteps(scheduler: DDIMScheduler, strength: float) -> torch.Tensor:
    """Return the timesteps of a scheduler with at most `strength` of the noise, at least one."""
    timesteps = scheduler.timesteps[scheduler.timesteps >= 0]
    count = int((timesteps < strength * scheduler.config.num_train_timesteps).sum())
    return timesteps[-max(1, count) :]


def signal_and_spread(
    scheduler: DDIMScheduler, timestep: float, like: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return sqrt(alpha_bar) and sqrt(1 - alpha_bar), on the device of `like`; timestep -1 is clean."""
    timestep = int(timestep)
    alpha_bar = scheduler.alphas_cumprod[timestep] if timestep >= 0 else scheduler.final_alpha_cumprod
    alpha_bar = alpha_bar.to(like)
    return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def split_prediction(
    scheduler: DDIMScheduler, prediction: torch.Tensor, latents: torch.Tensor, timestep: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Consistency tuning Eq. 7: return the clean latents x_0 and the noise that a prediction implies.

    Args:
        scheduler: Noise schedule; its `prediction_type` is one of `PREDICTION_TYPES`.
        prediction: Output of the model.
        latents: Noisy latents, of the same shape.
        timestep: Timestep of the latents.
    """
    signal, spread = signal_and_spread(scheduler, timestep, latents)
    if scheduler.config.prediction_type == "v_prediction":
        return signal * latents - spread * prediction, signal * prediction + spread * latents
    return (latents - spread * prediction) / signal, prediction


def undo_step(
    scheduler: DDIMScheduler, prediction: torch.Tensor, latents: torch.Tensor, timestep: float, later: float
) -> torch.Tensor:
    """
    Return the latents at `later` from which a DDIM step with this prediction leads to `latents` at `timestep`.

    Args:
        scheduler: Noise schedule.
        prediction: Noise or v, taken for that of the later latents.
        latents: Latents at `timestep`, in float32.
        timestep: Timestep of `latents`; -1 for clean ones.
        later: Timestep to go to.
    """
    signal, spread = signal_and_spread(scheduler, timestep, latents)
    later_signal, later_spread = signal_and_spread(scheduler, later, latents)
    if scheduler.config.prediction_type == "v_prediction":
        # The step turns (x_0, noise) by the angle between both timesteps; v stands at a right angle to the latents.
        cosine = signal * later_signal + spread * later_spread
        sine = signal * later_spread - spread * later_signal
        return (latents + sine * prediction) / cosine
    return later_signal * (latents - spread * prediction) / signal + later_spread * prediction


def invert(
    scheduler: DDIMScheduler,
    latents: torch.Tensor,
    timesteps: torch.Tensor,
    predict_noise: NoisePredictor,
    iterations: int,
    on_step: Callable[[torch.Tensor, int], None],
    *,
    progress_bar: Callable[..., AbstractContextManager],
) -> torch.Tensor:
    """
    OneShotDepth, section 3.4: invert the DDIM steps that lead over `timesteps` to `latents`.

    Args:
        scheduler: DDIM scheduler.
        latents: Clean latents in float32, `(batch, channels, num_frames, height, width)`.
        timesteps: Timesteps as they are sampled, from the noisiest one down, `(num_timesteps,)`.
        predict_noise: Predictor; its steps count as in sampling, so windows are the same in both directions.
        iterations: Fixed-point iterations per step. With 0, epsilon models give what `DDIMInverseScheduler` gives.
        on_step: Called with the latents that sampling has before each step, and the step.
        progress_bar: Factory of a progress bar, such as `pipe.progress_bar`.

    Returns:
        Latents at `timesteps[0]`, in float32.
    """
    schedule = timesteps.tolist()
    is_v = scheduler.config.prediction_type == "v_prediction"
    with progress_bar(total=len(schedule)) as bar:
        for step in reversed(range(len(schedule))):
            later = schedule[step]
            timestep = schedule[step + 1] if step + 1 < len(schedule) else -1
            if is_v:
                # v at the latents' own timestep gives their clean latents and their noise.
                prediction = predict_noise(latents, timesteps.new_tensor(max(timestep, 0)), step)
                clean, noise = split_prediction(scheduler, prediction, latents, timestep)
                signal, spread = signal_and_spread(scheduler, later, latents)
                inverted = signal * clean + spread * noise
            else:
                prediction = predict_noise(latents, timesteps[step], step)
                inverted = undo_step(scheduler, prediction, latents, timestep, later)
            for _ in range(iterations):
                prediction = predict_noise(inverted, timesteps[step], step)
                inverted = undo_step(scheduler, prediction, latents, timestep, later)
            latents = inverted
            on_step(latents, step)
            bar.update()
    return latents


def edit_paired(
    scheduler: DDIMScheduler,
    source: torch.Tensor,
    draw_noise: Callable[[], torch.Tensor],
    timesteps: torch.Tensor,
    predict_source: NoisePredictor,
    predict_target: NoisePredictor,
    mask: torch.Tensor | None,
    on_step: StepHook,
    *,
    progress_bar: Callable[..., AbstractContextManager],
    is_interrupted: Callable[[], bool],
) -> torch.Tensor:
    """
    Edit a clip along two trajectories that share their noise, without inversion.

    The source's trajectory is the source with noise added. A DDIM step is linear in the latents and in the predicted
    clean latents: z' = (b' / b) z + (a' - a b' / b) x_0 with a = sqrt(alpha_bar) and b = sqrt(1 - alpha_bar). So it
    also holds for the difference of both trajectories, which begins at 0. If both predictors agree, it stays 0.
    FlowEdit does the same for rectified flow. As there, each step has new noise: with the same in all steps, edits
    keep less of the source.

    Args:
        scheduler: DDIM scheduler.
        source: Clean latents of the source in float32, `(batch, channels, num_frames, height, width)`.
        draw_noise: Function that returns new noise of both trajectories, which broadcasts to `source`.
        timesteps: Timesteps to visit, the noisiest one first.
        predict_source: Predictor with the source's prompt.
        predict_target: Predictor with the new prompt.
        mask: Share of each latent pixel that may change, which broadcasts to `source`; `None` for all.
        on_step: Hook that may change the target's latents after each step.
        progress_bar: Factory of a progress bar, such as `pipe.progress_bar`.
        is_interrupted: Function that returns True when the loop must end before its next step.

    Returns:
        Latents of the edited clip, in float32.
    """
    schedule = [*timesteps.tolist(), -1]
    difference = torch.zeros_like(source)
    with progress_bar(total=len(timesteps)) as bar:
        for step, timestep in enumerate(timesteps):
            if is_interrupted():
                break
            noise = draw_noise()
            signal, spread = signal_and_spread(scheduler, timestep, source)
            noisy = signal * source + spread * noise
            target = noisy + difference
            clean, _ = split_prediction(scheduler, predict_source(noisy, timestep, step), noisy, timestep)
            new, _ = split_prediction(scheduler, predict_target(target, timestep, step), target, timestep)
            next_signal, next_spread = signal_and_spread(scheduler, schedule[step + 1], source)
            ratio = next_spread / spread
            change = new - clean if mask is None else mask * (new - clean)
            difference = ratio * difference + (next_signal - ratio * signal) * change
            noisy = next_signal * source + next_spread * noise
            difference = on_step(noisy + difference, timestep, step) - noisy
            bar.update()
    return source + difference


def combine_regions(predictors: Sequence[NoisePredictor], regions: Sequence[torch.Tensor]) -> NoisePredictor:
    """
    Return a predictor in which each region follows its own prompt.

    Args:
        predictors: Predictor of each region.
        regions: Share of each latent pixel in the region, `(1, 1, num_frames or 1, height, width)`. Where regions
            overlap, their predictions are averaged; outside all of them, nothing may change.
    """
    if len(predictors) == 1:
        return predictors[0]
    shares = torch.stack(torch.broadcast_tensors(*regions)).clone()
    shares[0] += shares.sum(dim=0) == 0
    shares = shares / shares.sum(dim=0)

    def predict_noise(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        parts = zip(shares, predictors, strict=True)
        return sum(share * predict(latents, timestep, step) for share, predict in parts)

    return predict_noise


def keep_outside(
    changeable: torch.Tensor | None, trajectory: dict[int, torch.Tensor], source: torch.Tensor, on_step: StepHook
) -> StepHook:
    """Return a hook that puts the inverted clip back wherever nothing may change, before `on_step`."""
    if changeable is None:
        return on_step

    def blend(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
        kept = trajectory[step + 1].to(latents) if step + 1 in trajectory else source
        return on_step(changeable * latents + (1 - changeable) * kept, timestep, step)

    return blend
