"""What the training scripts do alike once all is set up: begin, the loop over batches and steps, the end."""

import argparse
import logging
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch import nn
from tqdm import tqdm

from landscape_video.training.objectives.motion_objective import MotionLosses
from landscape_video.training.run.checkpoints import set_aside_checkpoints
from landscape_video.training.run.fsdp import whole
from landscape_video.training.run.optimization import averaged, learning_rate_at
from landscape_video.training.run.run_control import (
    EXIT_STOPPED,
    StoppedAtStart,
    StopSignals,
    TrainLog,
    forget_after,
    report_end,
    write_status,
)
from landscape_video.training.run.run_summary import StepTimer
from landscape_video.training.run.training_state import TrainingState
from landscape_video.training.run.validation import VALIDATIONS, Validation


# How a run ends: the exit code and the word in `status.json`.
ENDS = {None: (0, "finished"), "time_over": (0, "time_over"), "stopped": (EXIT_STOPPED, "stopped")}

logger = logging.getLogger("train_motion")


def begin_training(
    args: argparse.Namespace,
    accelerator: Accelerator,
    signals: StopSignals,
    checkpoint: Path | None,
    step: int,
    settings: dict[str, str],
    name: str,
) -> None:
    """Clear what lies beyond `step` in the output folder, and start the status file and the trackers of `name`."""
    signals.training = True
    if accelerator.is_main_process:
        if checkpoint is not None:
            set_aside_checkpoints(args.output_dir, checkpoint, step)
        forget_after(args.output_dir / VALIDATIONS, step)
        write_status(args.output_dir, "running", step=step)
    if args.report_to:
        accelerator.init_trackers(name, config=settings)


def train_steps(
    args: argparse.Namespace,
    accelerator: Accelerator,
    loader: Iterable[dict[str, Any]],
    networks: list[nn.Module],
    optimizer: AcceleratedOptimizer,
    state: TrainingState,
    step: int,
    losses_of: Callable[[dict[str, Any]], MotionLosses],
    signals: StopSignals,
    deadline: float,
    save: Callable[[int, bool], None],
    validation: Validation | None,
) -> tuple[int, str | None]:
    """Train from `step` to the last step, or until there is a reason to stop.

    Args:
        args: the flags of `train_motion_args.add_training_flags`.
        loader: one batch after the other; what `collate` makes.
        networks: all that trains, as the accelerator has prepared it.
        optimizer: as the accelerator has prepared it.
        state: what trains, in which order, and the moving average.
        losses_of: the losses of a batch.
        signals, deadline: what ends the run early, a signal to any process or the time (of `time.monotonic`).
        save: called by all processes with the step, and whether it is the last, when a checkpoint is due.
        validation: of the processes that take part in it.

    Returns:
        The number of finished steps, and the reason to stop, None after the last of --max_train_steps.
    """
    parameters = [parameter for _, parameter in state.parameters]
    averaged_parameters = [] if state.ema is None else parameters[: len(state.ema.shadow_params)]
    log = TrainLog(args.output_dir, step, accelerator)
    timer = StepTimer(accelerator.device, step, args.max_train_steps)
    stop = None
    progress = tqdm(total=args.max_train_steps, initial=step, unit="step", disable=not accelerator.is_main_process)
    for batch in loader:
        torch.manual_seed(args.seed + step)  # for dropout, where an image model has any
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate_at(step, args)
        with accelerator.accumulate(*networks):
            losses = losses_of(batch)
            accelerator.backward(losses.total)
            grad_norm = None
            if accelerator.sync_gradients:
                grad_norm = whole(torch.as_tensor(accelerator.clip_grad_norm_(parameters, args.max_grad_norm)))
            optimizer.step()
            optimizer.zero_grad()
        log.add(losses, len(batch["requests"]), None if accelerator.optimizer_step_was_skipped else grad_norm)
        if validation is not None:
            validation.add(losses.diffusion)
        if not accelerator.sync_gradients:
            continue
        step += 1
        progress.update()
        timer.after(step)
        if state.ema is not None:
            state.ema.step(averaged_parameters)

        stop = agree(accelerator, signals.received, time.monotonic() > deadline)
        ends = stop is not None or step == args.max_train_steps
        saves = ends or step % args.checkpointing_steps == 0
        if saves or step % args.logging_steps == 0:
            line = log.write(step, learning_rate_at(step - 1, args))  # raises when a loss is not finite: no save then
            progress.set_postfix(loss=f"{line['diffusion_loss']:.4f}", contrastive=f"{line['contrastive_loss']:.3f}")
        if saves:
            save(step, ends)
        if validation is not None and step % args.validation_steps == 0:
            with averaged(state.ema, averaged_parameters):
                validation.run(step)
        if ends:
            break
    progress.close()
    return step, stop


def agree(accelerator: Accelerator, received: str | None, over: bool) -> str | None:
    """Whether to stop, and why; all processes get the same answer, or one would wait for the others for ever."""
    code = 2 if received else int(over)
    if accelerator.num_processes > 1:
        code = int(accelerator.gather(torch.tensor([code], device=accelerator.device)).max())
    return (None, "time_over", "stopped")[code]


def finish_training(
    args: argparse.Namespace, accelerator: Accelerator, signals: StopSignals, step: int, stop: str | None
) -> int:
    """Say how the run has ended, and return its exit code."""
    exit_code, status = ENDS[stop]
    if accelerator.is_main_process:
        write_status(args.output_dir, status, step=step, exit_code=exit_code, reason=signals.received)
        logger.info("%s at step %d of %d.", status.replace("_", " ").capitalize(), step, args.max_train_steps)
    accelerator.wait_for_everyone()  # a launcher ends the others as soon as one process has left with a code
    accelerator.end_training()
    return exit_code


def run_script(
    main: Callable[[argparse.Namespace, StopSignals], int],
    parse_args: Callable[[list[str] | None], argparse.Namespace],
    argv: list[str] | None = None,
) -> int:
    """Parse the flags, train, and turn what goes wrong into one line, a status file and an exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    args = parse_args(argv)
    signals = StopSignals()
    try:
        with signals:
            return main(args, signals)
    except (Exception, StoppedAtStart) as error:
        exit_code = report_end(args.output_dir, signals, error)
        if exit_code is None:
            raise
        return exit_code
