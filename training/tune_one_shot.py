"""Tune a model on one clip, to edit it: `accelerate launch training/tune_one_shot.py --video clip.mp4 --prompt "..."`.

Query projections and temporal attention train (one-shot depth tuning). OUTPUT_DIR gets `tuned/tuned.safetensors` with
its card, which `landscape-video edit --tuned` takes, and `checkpoint-STEP/`, `log.jsonl` and `status.json`.
`--resume_from_checkpoint latest` resumes a run that was stopped.
"""

import sys

from landscape_video.training.objectives.one_shot_recipe import OneShotRecipe, TunedClip
from landscape_video.training.objectives.recipe import TrainingRecord
from landscape_video.training.run.one_shot_inputs import load_clip, load_models
from landscape_video.training.run.one_shot_tuning import make_clip_loader, report, tunable
from landscape_video.training.run.optimization import make_optimizer
from landscape_video.training.run.signals import StopSignals
from landscape_video.training.run.training_loop import train
from landscape_video.training.run.training_run import TrainingRun, run_script
from landscape_video.training.settings.one_shot import OneShotTraining


def main(settings: OneShotTraining, signals: StopSignals) -> int:
    """Tune until done, out of time or told to stop, and return the exit code."""
    run = TrainingRun.start(settings, signals)

    # 1. Load the frozen models and the clip
    models = load_models(settings, run.frozen_dtype, run.accelerator.device)
    frames, depth = load_clip(settings, models)
    clip = TunedClip.encode(models, frames, depth, settings.clip.prompt)

    # 2. Tune
    with tunable(models.unet, settings):
        record = TrainingRecord(settings, 1, run.accelerator.num_processes)
        tuning = settings.tuning
        recipe = OneShotRecipe(models, clip, record, tuning.temporal_weight, tuning.temporal_target)
        before = recipe.measure()
        optimizer = make_optimizer(recipe.trainable().values(), settings.optimization)
        exit_code = train(recipe, make_clip_loader(settings, recipe, run.accelerator), optimizer, run)
        report(before, recipe.measure())
    return exit_code


def run(argv: list[str] | None = None) -> int:
    """Tune with the settings of the command line, and return the exit code."""
    return run_script(main, OneShotTraining, __doc__, argv)


if __name__ == "__main__":
    sys.exit(run())
