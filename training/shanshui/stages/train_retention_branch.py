"""Train the image retention branch of shanshui-tiny with the published script: on single frames, then on clips."""

from pathlib import Path

import numpy as np
from PIL import Image

from shanshui.renderer.constants import HELD_OUT_SEED, SIZE
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.rendering import render_clip
from shanshui.stages.family_models import save_image_model
from shanshui.stages.family_run import FamilyRun
from shanshui.stages.stage_scripts import train_with_script
from shanshui.stages.training_data import draw_caption, encode_retention_clips


VALIDATION_IMAGES = 3
OPTIMIZER = ("--optimizer", "muon", "--learning_rate", "1e-3")
# Like `SLOW_MOTION` of the motion adapter, and more so: the image shows a scene at rest from the first step on.
FROZEN_MOTION = ("--slow_motion_prob", "0.7", "--standstill_prob", "0.5")
# What is seen is decided at timesteps with more noise than signal, its details at those with less.
NOISY_TIMESTEPS = (
    "--timestep_bias_strategy", "later", "--timestep_bias_portion", "0.5", "--timestep_bias_multiplier", "3",
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
