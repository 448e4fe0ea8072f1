"""Kill a process with -9 at random moments while it saves checkpoints, and check what a resume finds.

    python benchmarks/crash_saves.py --kills 50

The state is a real one: motion modules, moments and average of shanshui-tiny's adapter, with one checkpoint kept.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from diffusers import MotionAdapter, UNet2DConditionModel

from landscape_video.training.run.checkpoints import TrainingState, newest_valid_checkpoint, write_checkpoint
from landscape_video.training.run.optimization import WeightAverage
from motion_adapter.build import (
    attach_motion_adapter,
    freeze_image_layers,
    save_motion_modules,
    warm_start_motion_adapter,
)
from pipeline_landscape_video import SHANSHUI_TINY


def build_state() -> tuple[torch.nn.Module, TrainingState]:
    """Build a UNet and its training state with moments and average."""
    image_unet = UNet2DConditionModel.from_pretrained(SHANSHUI_TINY / "unet")
    adapter = MotionAdapter.from_pretrained(SHANSHUI_TINY / "motion_adapter")
    unet = attach_motion_adapter(image_unet, warm_start_motion_adapter(image_unet, adapter))
    trainable = dict(freeze_image_layers(unet))
    parameters = list(trainable.values())
    optimizer = torch.optim.AdamW(parameters, fused=True)
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    optimizer.zero_grad()
    return unet, TrainingState(trainable, optimizer, WeightAverage(trainable))


def save_for_ever(directory: Path, unet: torch.nn.Module, state: TrainingState, step: int, pipe: Connection) -> None:
    """Save step after step. Every weight of the state is the number of the step."""
    while True:
        step += 1
        fill(state, step)
        started = time.monotonic()
        with write_checkpoint(directory, step, total_limit=1) as checkpoint:
            state.save(checkpoint, step=step, settings={})
            save_motion_modules(unet, checkpoint / "motion_adapter")
        pipe.send(time.monotonic() - started)


@torch.no_grad()
def fill(state: TrainingState, value: float) -> None:
    """Set every weight to a value."""
    for parameter in state.parameters.values():
        parameter.fill_(value)


def is_usable(directory: Path, state: TrainingState) -> int | None:
    """The step that a resume would continue from, None if it could not."""
    checkpoint = newest_valid_checkpoint(directory)
    if checkpoint is None:
        return None
    fill(state, -1)
    step = state.load(checkpoint)["step"]
    whole = all(torch.equal(parameter, torch.full_like(parameter, step)) for parameter in state.parameters.values())
    return step if whole and checkpoint.name == f"checkpoint-{step}" else None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how often to kill the process (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    args = parser.parse_args()
    torch.set_num_threads(1)  # a process with several threads must not be forked
    context, moments = get_context("fork"), random.Random(args.seed)
    unet, state = build_state()
    unusable = unfinished = lost = step = size = 0
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        for kill in range(1, args.kills + 1):
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(target=save_for_ever, args=(directory, unet, state, step, sender))
            process.start()
            seconds = receiver.recv()  # the first save is over, and the second begins
            time.sleep(moments.uniform(0, 2 * seconds))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            saved = step + 1
            while receiver.poll():
                receiver.recv()
                saved += 1
            unfinished += any(path.name.endswith((".incomplete", ".replaced")) for path in directory.iterdir())
            found = is_usable(directory, state)
            if found is None:
                unusable += 1
                break
            lost = max(lost, saved - found)
            step = found
            size = sum(file.stat().st_size for file in (directory / f"checkpoint-{step}").rglob("*"))
            print(f"kill {kill}: resumes from step {step}", file=sys.stderr)
    print(
        f"{kill} kills (seed {args.seed}) while saving {size / 2**20:.1f} MiB with one checkpoint kept: {unfinished} "
        f"left an unfinished save behind, {lost} finished saves were lost at most, {unusable} states were unusable."
    )
    return int(unusable > 0)


if __name__ == "__main__":
    sys.exit(main())
