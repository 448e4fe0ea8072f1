"""Run the published training scripts as stages of `train_tiny.py`: motion adapter and image retention.

Each script is a process with its minutes and its device.
"""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from landscape_video.files import read_json_lines
from landscape_video.training.run.signals import STATUS
from landscape_video.training.settings.run import LOG
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import HELD_OUT_SEED, SIZE
from shanshui.stages.family_run import FamilyRun, resumed_seconds, save_image_model
from shanshui.stages.training_data import draw_caption, encode_retention_clips


SCRIPTS = Path(__file__).resolve().parents[2]
# Minutes that a script may take before its first step. They count as its own, but do not appear in its log.
SET_UP = 5.0

logger = logging.getLogger("train_tiny")

# Flags of `train_motion.py`, also used by the rows of `benchmarks/miniature_training.py` (without `SLOW_MOTION`).
MOTION_FLAGS = (
    "--num_frames_range", "16", "--optimizer", "muon", "--learning_rate", "2e-3", "--lr_scheduler", "cosine",
    "--timestep_bias_strategy", "later", "--timestep_bias_portion", "0.15", "--timestep_bias_multiplier", "3",
    "--use_ema", "--ema_decay", "0.998",
)  # fmt: skip
# In sampling, a clip starts without motion and otherwise often stays still, whatever its prompt says of the camera.
SLOW_MOTION = ("--slow_motion_prob", "0.6")
VALIDATION_IMAGES = 3
OPTIMIZER = ("--optimizer", "muon", "--learning_rate", "1e-3")
# Like `SLOW_MOTION` of the motion adapter, and more so: the image shows a scene at rest from the first step on.
FROZEN_MOTION = ("--slow_motion_prob", "0.7", "--standstill_prob", "0.5")
# What is seen is decided at timesteps with more noise than signal, its details at those with less.
NOISY_TIMESTEPS = (
    "--timestep_bias_strategy", "later", "--timestep_bias_portion", "0.5", "--timestep_bias_multiplier", "3",
)  # fmt: skip


def train_with_script(run: FamilyRun, stage: str, script: str, *flags: str) -> None:
    """Train a stage with a script of the training folder, on the image model in `RUN_DIR/base`."""
    command = [
        sys.executable, str(SCRIPTS / script), "--pretrained_model_name_or_path", str(run.run_dir / "base"),
        "--output_dir", str(run.run_dir / stage), "--checkpointing_steps", "100", "--checkpoints_total_limit", "2",
        "--mixed_precision", run.mixed_precision, *flags, *(["--torch_compile"] if run.compile else []),
    ]  # fmt: skip
    run_script(command, run.run_dir / stage, run.minutes[stage], run.device)


def run_script(command: list[str], output: Path, minutes: float, device: torch.device) -> None:
    """Run a training script until it has had its minutes, resuming from its last checkpoint in `output`.

    If this process is stopped, the script receives one SIGTERM and saves a checkpoint. It has a session of its own:
    otherwise Ctrl-C would reach it too, and a second signal makes it stop without saving.

    Raises:
        SystemExit: The script failed, with its exit code, or was killed by a signal.
    """
    log, status = output / LOG, output / STATUS
    if log.exists():
        minutes -= resumed_seconds(read_json_lines(log)) / 60
    if minutes <= SET_UP and status.exists() and json.loads(status.read_text())["status"] == "time_over":
        logger.info("%s has had its minutes", output)
        return
    command = [*command, "--max_train_minutes", str(max(minutes, 0.01))]
    if any(output.glob("checkpoint-*")):
        command += ["--resume_from_checkpoint", "latest"]
    process = subprocess.Popen(command, env=os.environ | environment_for(device), start_new_session=True)
    try:
        code = process.wait()
    finally:
        process.terminate()
        process.wait()
    if code < 0:
        raise SystemExit(
            f"train_tiny: {Path(command[1]).name} was killed by signal {-code}; it may have run out of memory."
        )
    if code != 0:
        raise SystemExit(code)  # the script has printed the reason


def environment_for(device: torch.device) -> dict[str, str]:
    """Return the environment variables that make accelerate use a device."""
    if device.type == "cpu":
        return {"ACCELERATE_USE_CPU": "true"}
    if device.index is None:
        return {}
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[device.index] if visible else str(device.index)}


def train_motion_adapter(run: FamilyRun) -> None:
    """Train the adapter on the frozen image model."""
    save_image_model(run)
    train_with_script(
        run, "motion", "train_motion.py", "--train_data_dir", str(run.run_dir / "latents"),
        *MOTION_FLAGS, *SLOW_MOTION, "--train_batch_size", str(run.batch_scale * 4), "--lr_warmup_steps", "100",
        "--max_train_steps", str(run.motion_steps),
    )  # fmt: skip


def train_on_frames(run: FamilyRun) -> None:
    """Teach the branch to reproduce an image, on single frames.

    With as many clips in a batch as frames, the branch learns it in minutes. 800 steps of whole clips did not teach
    it: a step of those contains only 4 clips, and noise at as many timesteps.
    """
    save_image_model(run)
    _train_branch(
        run, "pictures", "--num_frames_range", "1", "--train_batch_size", str(run.batch_scale * 32),
        "--lr_scheduler", "constant_with_warmup", "--lr_warmup_steps", "50", *NOISY_TIMESTEPS,
        "--max_train_steps", str(run.picture_steps),
    )  # fmt: skip


def train_on_clips(run: FamilyRun) -> None:
    """Train the branch further on whole clips, whose later frames depart from the image."""
    images, prompts = _validation_images(run.run_dir / "retention" / "held_out")
    _train_branch(
        run, "retention",
        "--image_retention_name_or_path", str(run.run_dir / "pictures" / "image_retention"),
        "--num_frames_range", "16", "--train_batch_size", str(run.batch_scale * 4),
        "--gradient_accumulation_steps", "2", "--first_frame_weight", "8", *FROZEN_MOTION, *NOISY_TIMESTEPS,
        "--lr_scheduler", "cosine", "--lr_warmup_steps", "50", "--use_ema", "--ema_decay", "0.998",
        "--max_train_steps", str(run.retention_steps),
        "--validation_steps", "500", "--validation_images", *images, "--validation_prompts", *prompts,
    )  # fmt: skip


def _train_branch(run: FamilyRun, stage: str, *flags: str) -> None:
    """Train the branch only; the text-to-video model does not change."""
    train_with_script(
        run, stage, "train_image_retention.py", "--train_data_dir", str(encode_retention_clips(run)), *OPTIMIZER,
        "--motion_adapter_name_or_path", str(run.run_dir / "motion" / "motion_adapter"), "--freeze_motion", *flags,
    )  # fmt: skip


def _validation_images(folder: Path) -> tuple[list[str], list[str]]:
    """Write first frames of held-out scenes; returns their paths and a caption of each."""
    folder.mkdir(parents=True, exist_ok=True)
    scenes = [scene_of(index, HELD_OUT_SEED, fine_motifs=False) for index in range(VALIDATION_IMAGES)]
    for index, scene in enumerate(scenes):
        Image.fromarray(render_clip(scene, [0.0], SIZE, SIZE)[0]).save(folder / f"{index}.png")
    prompts = [draw_caption(scene, np.random.default_rng(HELD_OUT_SEED), "en")[0] for scene in scenes]
    return [str(folder / f"{index}.png") for index in range(len(scenes))], prompts
