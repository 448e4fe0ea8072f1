"""Train the motion adapter of shanshui-tiny with the published script, on the cached latents."""

from shanshui.stages.family_models import save_image_model
from shanshui.stages.family_run import FamilyRun
from shanshui.stages.stage_scripts import train_with_script


# Flags of `train_motion.py`, also used by the rows of `benchmarks/miniature_training.py` (without `SLOW_MOTION`).
MOTION_FLAGS = (
    "--num_frames_range", "16", "--optimizer", "muon", "--learning_rate", "2e-3", "--lr_scheduler", "cosine",
    "--timestep_bias_strategy", "later", "--timestep_bias_portion", "0.15", "--timestep_bias_multiplier", "3",
    "--use_ema", "--ema_decay", "0.998",
)  # fmt: skip
# In sampling, a clip starts without motion and otherwise often stays still, whatever its prompt says of the camera.
SLOW_MOTION = ("--slow_motion_prob", "0.6")


def train_motion_adapter(run: FamilyRun) -> None:
    """Train the adapter on the frozen image model."""
    save_image_model(run)
    train_with_script(
        run, "motion", "train_motion.py", "--train_data_dir", str(run.run_dir / "latents"),
        *MOTION_FLAGS, *SLOW_MOTION, "--train_batch_size", str(run.batch_scale * 4), "--lr_warmup_steps", "100",
        "--max_train_steps", str(run.motion_steps),
    )  # fmt: skip
