"""Tune a model on clips with masks (Consistency tuning): `accelerate launch training/tune_consistency.py`.

LoRA layers of all attention train, or with --tuned_layers temporal the motion modules. The losses of foreground and
background are weighted by themselves. OUTPUT_DIR gets `lora/` or `motion_adapter/`, and the checkpoints, logs, status
and validation clips of `train_motion.py`. `landscape-video consistent` does all this for one clip.
"""

import sys

from landscape_video.training.run.consistency_tuning import tune_consistency
from landscape_video.training.run.training_run import run_script
from landscape_video.training.settings.consistency import ConsistencyTraining


def run(argv: list[str] | None = None) -> int:
    """Train with the settings of the command line, and return the exit code."""
    return run_script(tune_consistency, ConsistencyTraining, __doc__, argv)


if __name__ == "__main__":
    sys.exit(run())
