"""Train an image retention branch (DreamVideo): `accelerate launch training/train_image_retention.py`.

The branch sees the first frame of each clip. It trains together with the motion modules unless --freeze_motion keeps
them as they are. OUTPUT_DIR gets `image_retention/` (an `ImageRetention`, with --use_ema its averaged weights),
`motion_adapter/` if that has trained, and the checkpoints, logs, status and validation clips of `train_motion.py`.
"""

import sys

from landscape_video.training.data.batches import encode_once, load_clips, make_loader
from landscape_video.training.data.first_frames import WithFirstFrames
from landscape_video.training.data.latents import load_vae
from landscape_video.training.data.prompt_embeds_cache import load_prompt_embeds_cache
from landscape_video.training.objectives.motion_models import build_noise_adapter, load_noise_scheduler
from landscape_video.training.objectives.retention_recipe import RetentionRecipe
from landscape_video.training.objectives.training_record import TrainingRecord
from landscape_video.training.objectives.unet_with_image_retention import build_unet_with_image_retention
from landscape_video.training.run.command_line import parse_settings
from landscape_video.training.run.hub_publishing import push_pipeline
from landscape_video.training.run.optimization import make_optimizer
from landscape_video.training.run.retention_validation import RetentionValidation, read_images
from landscape_video.training.run.signals import StopSignals
from landscape_video.training.run.step_cost import count_longest_step
from landscape_video.training.run.training_loop import train
from landscape_video.training.run.training_run import TrainingRun, run_script
from landscape_video.training.settings.training import RetentionTraining


def main(settings: RetentionTraining, signals: StopSignals) -> int:
    """Train until done, out of time or told to stop, and return the exit code."""
    run = TrainingRun.start(settings, signals)
    accelerator, device = run.accelerator, run.accelerator.device
    model, revision, images = settings.model.pretrained_model_name_or_path, settings.model.revision, settings.images

    # 1. Load the clips, each with its first frame, and the frozen models
    with accelerator.main_process_first():  # the others find its report and need not decode every video
        clips, vae, latent_shape = load_clips(settings, device)
    dataset = WithFirstFrames(clips, None if vae is None else clips, images.image_dropout_prob)
    validation_images = read_images(images.validation_images, dataset.image_size)
    noise_scheduler = load_noise_scheduler(model, revision)
    prompt_embeds = load_prompt_embeds_cache(model, revision, run.frozen_dtype, device)

    # 2. Build what trains
    unet = build_unet_with_image_retention(settings, latent_shape, dataset.image_size, run.frozen_dtype, device)
    noise_adapter = build_noise_adapter(settings.objective.contrastive_weight, latent_shape)
    record = TrainingRecord(settings, len(dataset), accelerator.num_processes)
    recipe = RetentionRecipe(
        unet, noise_adapter, noise_scheduler, prompt_embeds, vae, settings.objective, record,
        first_frame_weight=images.first_frame_weight,
    )  # fmt: skip
    cost = count_longest_step(settings, unet, noise_scheduler, prompt_embeds.text_encoder, latent_shape)
    optimizer = make_optimizer(recipe.trainable().values(), settings.optimization)

    # 3. Encode the clips (slow, hence after all checks)
    if vae is not None and not settings.data.no_cache:
        dataset.dataset, recipe.vae = (
            encode_once(settings.data.cache_dir, clips, vae, prompt_embeds, accelerator),
            None,
        )
    loader = make_loader(
        settings, dataset, noise_scheduler.config.num_train_timesteps, 0, accelerator, dataset.last_start
    )

    # 4. Train
    validation = None
    if run.validates:
        validation = RetentionValidation(
            validation_images, dataset, settings=settings, recipe=recipe, latent_shape=latent_shape,
            vae=recipe.vae or load_vae(model, revision, device), accelerator=accelerator,
        )  # fmt: skip
    return train(recipe, loader, optimizer, run, validation, push_pipeline, cost)


def parse_args(argv: list[str] | None = None) -> RetentionTraining:
    """Settings of the command line; wrong flags end the process with code 2 and one line."""
    return parse_settings(
        RetentionTraining,
        "Train an image retention branch (DreamVideo), with which a motion model animates an image, from clips whose "
        "first frame it sees. Most flags are those of train_motion.py.",
        "other defaults for all flags: paper (8 GPUs); fast (one GPU with 24 GB, bfloat16, 5000 steps of 4 clips); "
        "tiny (shanshui-tiny's branch on a CPU, with clips of 128 x 128 pixels; its text-to-video model stays as it "
        "is)",
        argv,
    )


def run(argv: list[str] | None = None) -> int:
    """Train with the settings of the command line, and return the exit code."""
    return run_script(main, parse_args, argv)


if __name__ == "__main__":
    sys.exit(run())
