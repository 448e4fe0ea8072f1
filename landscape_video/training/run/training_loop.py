"""Train a recipe: the one loop of all training scripts."""

import logging
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from torch.utils.data import DataLoader
from tqdm import tqdm

from landscape_video.training.objectives.recipe import Recipe
from landscape_video.training.run.checkpoints import TrainingState, resume, set_aside_checkpoints, write_checkpoint
from landscape_video.training.run.optimization import WeightAverage, ema_weights, learning_rate_at
from landscape_video.training.run.run_summary import StepCost, StepTimer, describe_run
from landscape_video.training.run.sharding import is_sharded
from landscape_video.training.run.signals import EXIT_STOPPED, write_status
from landscape_video.training.run.train_log import TrainLog, drop_lines_after
from landscape_video.training.run.training_run import TrainingRun
from landscape_video.training.run.validation import VALIDATIONS, Validation
from landscape_video.training.settings.training import TrainingSettings


# Exit code, and status in `status.json`, by the reason to stop; the strongest reason comes last.
ENDS = {None: (0, "finished"), "time_over": (0, "time_over"), "stopped": (EXIT_STOPPED, "stopped")}

Push = Callable[[TrainingSettings, Path, bool], None]
OnStep = Callable[[int, dict[str, torch.Tensor]], None]  # receives the number of finished steps, and the losses

logger = logging.getLogger("training")


def train(
    recipe: Recipe,
    loader: DataLoader,
    optimizer: torch.optim.Optimizer,
    run: TrainingRun,
    validation: Validation | None = None,
    push: Push | None = None,
    cost: StepCost | None = None,
    on_step: OnStep | None = None,
) -> int:
    """Train a recipe until the last step, or until there is a reason to stop, and export it.

    Args:
        recipe: What trains.
        loader: This process's batches; a resumed run sets the `first_step` of its batch sampler.
        optimizer: Optimizer of `recipe.trainable()`, with one parameter group.
        run: Settings, processes and checkpoint.
        validation: Validation of the exported weights; None in processes that do not take part in it.
        push: Function that publishes an exported folder; its last argument says whether an error ends the run.
        cost: Cost of the longest batch, for the estimate of memory.
        on_step: Called after every step, in place of a progress bar.

    Returns:
        The exit code.
    """
    settings, accelerator = run.settings, run.accelerator
    recipe.model, optimizer = accelerator.prepare(recipe.model, optimizer)
    average = None
    if settings.optimization.use_ema:
        decay = settings.optimization.ema_decay
        average = WeightAverage(recipe.averaged(), decay, foreach=not is_sharded(accelerator))
    state = TrainingState(recipe.trainable(), optimizer, average, accelerator.scaler)

    num_clips, num_processes = len(loader.dataset), accelerator.num_processes
    recorded = settings.comparable() | {"num_processes": str(num_processes), "num_clips": str(num_clips)}
    step = 0 if run.checkpoint is None else resume(state, run.checkpoint, recorded)
    loader.batch_sampler.first_step = step
    if accelerator.is_main_process:
        # A dict, because the VAE of validation may be that of the recipe.
        models = dict.fromkeys([recipe.model, *recipe.frozen, *([validation.vae] if validation else [])])
        describe_run(settings, recipe, models, cost, num_clips, num_processes, step)

    begin(run, step, recorded)
    save = partial(save_checkpoint, recipe, state, run, recorded, push)
    step, stop = train_steps(recipe, loader, run, state, step, save, validation, on_step)
    if stop != "stopped":
        with ema_weights(average):
            recipe.export(settings.run.output_dir if accelerator.is_main_process else None, final=True)
        if accelerator.is_main_process and settings.hub.push_to_hub:
            push(settings, settings.run.output_dir, True)
    return finish(run, step, stop)


def train_steps(
    recipe: Recipe,
    loader: DataLoader,
    run: TrainingRun,
    state: TrainingState,
    step: int,
    save: Callable[[int, bool], None],
    validation: Validation | None,
    on_step: OnStep | None = None,
) -> tuple[int, str | None]:
    """Train from `step` to the last step, or until there is a reason to stop.

    Returns:
        The number of finished steps, and the reason to stop, None after the last step.
    """
    accelerator, optimizer = run.accelerator, state.optimizer
    settings, optimization = run.settings.run, run.settings.optimization
    log = TrainLog(settings, step, accelerator)
    timer = StepTimer(accelerator.device, step, optimization.max_train_steps)
    stop = None
    hides_bar = on_step is not None or not accelerator.is_main_process
    progress = tqdm(total=optimization.max_train_steps, initial=step, unit="step", disable=hides_bar)
    for batch in loader:
        torch.manual_seed(settings.seed + step)  # for dropout, if the image model has any
        for group in optimizer.param_groups:
            group["lr"] = learning_rate_at(step, optimization)
        grad_norm = None
        with accelerator.accumulate(recipe.model):
            losses = recipe.compute_losses(batch)
            accelerator.backward(losses["total"])
            if accelerator.sync_gradients:
                grad_norm = accelerator.clip_grad_norm_(state.parameters.values(), optimization.max_grad_norm)
            optimizer.step()
            optimizer.zero_grad()
        log.add(losses, optimization.train_batch_size, None if optimizer.step_was_skipped else grad_norm)
        if validation is not None:
            validation.add(losses)
        if not accelerator.sync_gradients:
            continue

        step += 1
        progress.update()
        timer.after(step)
        if state.average is not None:
            state.average.step()
        if on_step is not None:
            on_step(step, losses)
        stop = sync_stop_reason(run)
        ends = stop is not None or step == optimization.max_train_steps
        saves = ends or step % settings.checkpointing_steps == 0
        if saves or step % settings.logging_steps == 0:
            means = log.write(step, learning_rate_at(step - 1, optimization))  # raises on NaN, so before the save
            progress.set_postfix({name: f"{value:.4f}" for name, value in means.items()})
        if saves:
            save(step, ends)
        if validation is not None and step % run.settings.validation.validation_steps == 0:
            with ema_weights(state.average):
                validation.run(step)
        if ends:
            break
    progress.close()
    return step, stop


def begin(run: TrainingRun, step: int, recorded: dict[str, str]) -> None:
    """Set aside everything after `step` in the output folder, and start the status file and the trackers."""
    run.signals.training = True
    settings, accelerator = run.settings.run, run.accelerator
    if accelerator.is_main_process:
        if run.checkpoint is not None:
            set_aside_checkpoints(settings.output_dir, run.checkpoint, step)
        drop_lines_after(settings.output_dir / VALIDATIONS, step)
        write_status(settings.output_dir, "running", step=step)
    if settings.report_to:
        accelerator.init_trackers(run.settings.TRACKED_AS, config=recorded)


def save_checkpoint(
    recipe: Recipe,
    state: TrainingState,
    run: TrainingRun,
    recorded: dict[str, str],
    push: Push | None,
    step: int,
    ends: bool,
) -> None:
    """Write a checkpoint with the state of the run and the recipe's export; all processes must call this.

    Args:
        recorded: Settings that a resumed run is compared with.
        step: Number of finished steps.
        ends: Whether this is the run's last checkpoint, whose export is published later.
    """
    settings, is_main = run.settings, run.accelerator.is_main_process
    output_dir, hub = settings.run.output_dir, settings.hub
    writing = write_checkpoint(output_dir, step, settings.run.checkpoints_total_limit) if is_main else nullcontext()
    with writing as directory:
        state.save(directory, step=step, settings=recorded)
        with ema_weights(state.average):
            recipe.export(directory)
    if is_main and hub.push_to_hub and hub.hub_strategy == "every_save" and not ends:
        push(settings, output_dir / f"checkpoint-{step}", False)


def sync_stop_reason(run: TrainingRun) -> str | None:
    """Return the strongest reason to stop of any process. All must agree, or one would wait for others forever."""
    reasons = list(ENDS)
    strongest = reasons.index("stopped") if run.signals.received else int(time.monotonic() > run.deadline)
    if run.accelerator.num_processes > 1:
        strongest = int(run.accelerator.gather(torch.tensor([strongest], device=run.accelerator.device)).max())
    return reasons[strongest]


def finish(run: TrainingRun, step: int, stop: str | None) -> int:
    """Record and log how the run ended, and return its exit code."""
    exit_code, status = ENDS[stop]
    if run.accelerator.is_main_process:
        reason, max_steps = run.signals.received, run.settings.optimization.max_train_steps
        write_status(run.settings.run.output_dir, status, step=step, exit_code=exit_code, reason=reason)
        logger.info("%s at step %d of %d.", status.replace("_", " ").capitalize(), step, max_steps)
    run.accelerator.wait_for_everyone()  # a launcher kills the others as soon as one process exits with a code
    run.accelerator.end_training()
    return exit_code
