"""Distill a model into a few-step adapter: `accelerate launch training/distill_few_steps.py`.

The adapter is LoRA weights for UNet and motion modules, with which the model samples in 4 steps without guidance what
it samples in 24 steps with guidance. Only the captions of the clips are used, so a latent cache or any captioned
videos will do. OUTPUT_DIR gets `few_steps/` and the checkpoints, logs, status and validation clips of
`train_motion.py`. Copied into the folder of the model, `few_steps/` is what `generate --preset draft` uses.
"""

import sys

from landscape_video.generation.few_steps import FewStepFacts, base_hashes
from landscape_video.generation.models import find_weights
from landscape_video.training.data.batches import make_loader
from landscape_video.training.objectives.few_step_recipe import FewStepRecipe, build_few_step_objective
from landscape_video.training.objectives.recipe import TrainingRecord
from landscape_video.training.objectives.training_inputs import TrainingInputs
from landscape_video.training.run.optimization import make_optimizer
from landscape_video.training.run.signals import StopSignals
from landscape_video.training.run.training_loop import train
from landscape_video.training.run.training_run import TrainingRun, run_script
from landscape_video.training.run.validation import FewStepValidation
from landscape_video.training.settings.training import FewStepTraining
from pipeline_landscape_video import resolve_sampling


def main(settings: FewStepTraining, signals: StopSignals) -> int:
    """Train until done, out of time or told to stop, and return the exit code."""
    run = TrainingRun.start(settings, signals)
    accelerator, dtype, distillation = run.accelerator, run.frozen_dtype, settings.objective

    # 1. Load the captions and the frozen models
    inputs = TrainingInputs.load(settings, dtype, accelerator)
    sources = settings.model.pretrained_model_name_or_path, settings.model.motion_adapter_name_or_path
    base = base_hashes(*(find_weights(source) for source in sources))

    # 2. Build what trains
    given = {"guidance_scale": distillation.teacher_guidance_scale}
    guidance_scale = resolve_sampling(inputs.noise_scheduler.config, "text", **given)["guidance_scale"]
    objective, lora = build_few_step_objective(settings, inputs, guidance_scale, dtype)
    facts = FewStepFacts(distillation.student_steps, guidance_scale, base)
    record = TrainingRecord(settings, len(inputs.clips), accelerator.num_processes)
    recipe = FewStepRecipe(objective, inputs, lora, facts, record)
    optimizer = make_optimizer(recipe.trainable().values(), settings.optimization)
    loader = make_loader(settings, inputs.clips, inputs.noise_scheduler.config.num_train_timesteps, accelerator)

    # 3. Train
    validation = FewStepValidation(settings, recipe, accelerator) if run.validates else None
    return train(recipe, loader, optimizer, run, validation)


def run(argv: list[str] | None = None) -> int:
    """Train with the settings of the command line, and return the exit code."""
    return run_script(main, FewStepTraining, __doc__, argv)


if __name__ == "__main__":
    sys.exit(run())
