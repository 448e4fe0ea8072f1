"""Train a motion adapter on a frozen image model (NADM, Alg. 1): `accelerate launch training/train_motion.py`.

Only the motion modules and the noise adapter train. OUTPUT_DIR gets `motion_adapter/` (a plain `MotionAdapter`, with
--use_ema its averaged weights), `noise_adapter/`, `checkpoint-STEP/`, `log.jsonl`, `status.json` and the clips of
--validation_steps. `--resume_from_checkpoint latest` resumes a run that was stopped; on a CPU, the
final weights are bit-identical to those of a run without the stop.
"""

import sys

from landscape_video.training.data.batches import make_loader
from landscape_video.training.objectives.motion_models import build_motion_unet
from landscape_video.training.objectives.motion_recipe import MotionRecipe
from landscape_video.training.objectives.recipe import TrainingRecord
from landscape_video.training.objectives.training_inputs import TrainingInputs
from landscape_video.training.run.hub_publishing import push_adapter
from landscape_video.training.run.optimization import make_optimizer
from landscape_video.training.run.run_summary import count_longest_step
from landscape_video.training.run.signals import StopSignals
from landscape_video.training.run.training_loop import train
from landscape_video.training.run.training_run import TrainingRun, run_script
from landscape_video.training.run.validation import Validation
from landscape_video.training.settings.training import MotionTraining


def main(settings: MotionTraining, signals: StopSignals) -> int:
    """Train until done, out of time or told to stop, and return the exit code."""
    run = TrainingRun.start(settings, signals)
    accelerator, dtype = run.accelerator, run.frozen_dtype

    # 1. Load the clips and the frozen models
    inputs = TrainingInputs.load(settings, dtype, accelerator)

    # 2. Build what trains
    unet = build_motion_unet(settings, inputs.latent_shape, dtype, inputs.device)
    record = TrainingRecord(settings, len(inputs.clips), accelerator.num_processes)
    recipe = MotionRecipe(unet, inputs, settings.objective, record)
    cost = count_longest_step(settings, recipe)
    optimizer = make_optimizer(recipe.trainable().values(), settings.optimization)

    # 3. Encode the clips (slow, hence after all checks)
    clips = inputs.encode(settings, accelerator)
    loader = make_loader(settings, clips, inputs.noise_scheduler.config.num_train_timesteps, accelerator)

    # 4. Train
    validation = Validation(settings, recipe, accelerator) if run.validates else None
    return train(recipe, loader, optimizer, run, validation, push_adapter, cost)


def run(argv: list[str] | None = None) -> int:
    """Train with the settings of the command line, and return the exit code."""
    return run_script(main, MotionTraining, __doc__, argv)


if __name__ == "__main__":
    sys.exit(run())
