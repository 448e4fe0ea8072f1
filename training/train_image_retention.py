"""Train an image retention branch (DreamVideo): `accelerate launch training/train_image_retention.py`.

The branch sees the first frame of each clip. It trains together with the motion modules unless --freeze_motion keeps
them as they are. OUTPUT_DIR gets `image_retention/` (an `ImageRetention`, with --use_ema its averaged weights),
`motion_adapter/` if that has trained, and the checkpoints, logs, status and validation clips of `train_motion.py`.
"""

import sys

from landscape_video.training.data.batches import make_loader
from landscape_video.training.data.first_frames import WithFirstFrames
from landscape_video.training.objectives.recipe import TrainingRecord
from landscape_video.training.objectives.retention_recipe import RetentionRecipe, build_unet_with_image_retention
from landscape_video.training.objectives.training_inputs import TrainingInputs
from landscape_video.training.run.hub_publishing import push_pipeline
from landscape_video.training.run.optimization import make_optimizer
from landscape_video.training.run.run_summary import count_longest_step
from landscape_video.training.run.signals import StopSignals
from landscape_video.training.run.training_loop import train
from landscape_video.training.run.training_run import TrainingRun, run_script
from landscape_video.training.run.validation import RetentionValidation, read_images
from landscape_video.training.settings.training import RetentionTraining


def main(settings: RetentionTraining, signals: StopSignals) -> int:
    """Train until done, out of time or told to stop, and return the exit code."""
    run = TrainingRun.start(settings, signals)
    accelerator, dtype, images = run.accelerator, run.frozen_dtype, settings.images

    # 1. Load the clips, each with its first frame, and the frozen models
    inputs = TrainingInputs.load(settings, dtype, accelerator)
    videos = inputs.clips if inputs.vae is not None else None
    clips = WithFirstFrames(inputs.clips, videos, images.image_dropout_prob)
    validation_images = read_images(images.validation_images, clips.image_size)

    # 2. Build what trains
    unet = build_unet_with_image_retention(settings, inputs.latent_shape, clips.image_size, dtype, inputs.device)
    record = TrainingRecord(settings, len(clips), accelerator.num_processes)
    weight = images.first_frame_weight
    recipe = RetentionRecipe(unet, inputs, settings.objective, record, first_frame_weight=weight)
    cost = count_longest_step(settings, recipe)
    optimizer = make_optimizer(recipe.trainable().values(), settings.optimization)

    # 3. Encode the clips (slow, hence after all checks)
    clips.dataset = inputs.encode(settings, accelerator)
    num_timesteps = inputs.noise_scheduler.config.num_train_timesteps
    loader = make_loader(settings, clips, num_timesteps, accelerator, clips.last_start)

    # 4. Train
    validation = None
    if run.validates:
        validation = RetentionValidation(settings, recipe, accelerator, images=validation_images, dataset=clips)
    return train(recipe, loader, optimizer, run, validation, push_pipeline, cost)


def run(argv: list[str] | None = None) -> int:
    """Train with the settings of the command line, and return the exit code."""
    return run_script(main, RetentionTraining, __doc__, argv)


if __name__ == "__main__":
    sys.exit(run())
