"""Warnings from losses and gradients of a run that goes wrong, and none for a run that goes well."""

import re

import numpy as np
import pytest
import torch
from accelerate import Accelerator

from landscape_video.training.run.train_log import IDLE_STEPS, LossWatch, TrainLog
from landscape_video.training.settings.run import RunSettings


def warnings_of(losses: np.ndarray, batches_a_step: int = 1) -> list[str]:
    """Warnings of a run that logs every ten steps and has gradients."""
    watch, said = LossWatch(0), []
    size = 10 * batches_a_step
    for number, first in enumerate(range(0, len(losses), size), start=1):
        said += watch.look(10 * number, "diffusion", losses[first : first + size].tolist(), [1.0] * 10)
    return said


def test_a_healthy_run_is_left_alone_however_noisy_its_losses_are():
    # Losses of single clips are spread about as widely as exponential ones: most of it is the timestep.
    draw = np.random.default_rng(0)
    for _ in range(5):
        falling = 0.12 + 0.2 * np.exp(-np.arange(40_000) / 5000)
        assert warnings_of(draw.exponential(falling)) == []


@pytest.mark.parametrize("batches_a_step", [1, 4])
def test_a_diverging_loss_is_warned_of_once(batches_a_step):
    draw = np.random.default_rng(0)
    losses = np.concatenate([draw.gamma(4, 0.15 / 4, 1000), draw.gamma(4, 0.3 / 4, 1000)])
    (said,) = warnings_of(losses, batches_a_step)
    assert (
        re.match(r"the diffusion loss is 0\.\d+ on average, (1\.[5-9]|2\.\d) times its lowest", said)
        and "so far: it diverges" in said
        and "--learning_rate" in said
    )


def test_a_run_without_gradients_is_warned_of_once():
    watch = LossWatch(first_step=1000)
    said = [watch.look(step, "diffusion", [0.2] * 10, []) for step in range(1010, 1400, 10)]
    (when,) = (number for number, warnings in enumerate(said) if warnings)
    assert when == IDLE_STEPS // 10 - 1 and "in 100 steps: nothing is learned" in said[when][0]
    assert not any(LossWatch(0).look(step, "diffusion", [0.2] * 10, [0.0] * 9 + [1e-9]) for step in range(10, 400, 10))


def test_warnings_are_logged_with_their_step(tmp_path, caplog):
    log = TrainLog(RunSettings(output_dir=tmp_path), 0, Accelerator(cpu=True))
    draw = torch.Generator().manual_seed(0)
    for step in range(1, 301):
        loss = (0.2 if step <= 100 else 0.6) * torch.rand((), generator=draw)
        log.add({"total": loss, "diffusion": loss}, 1, None)  # as where the loss scaler of float16 skips every step
        if step % 10 == 0:
            log.write(step, 1e-5)
    idle, diverges = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert idle == (
        "Step 100: no gradient has reached the weights in 100 steps: nothing is learned, and clips stay as they are. "
        "With --mixed_precision fp16, use bf16 or no instead."
    )
    assert diverges.startswith("Step 200: the diffusion loss is ")


def test_a_run_without_validation_says_that_losses_do_not_show_motion(train, caplog):
    train("run", "--max_train_steps", "1")
    assert "Losses do not show whether clips move: set --validation_steps" in caplog.text
