"""Train an image retention branch (DreamVideo): `accelerate launch training/train_image_retention.py`.

A clip's first frame is the picture that the branch sees. The branch learns, and the motion modules with it unless
--freeze_motion keeps them as they are. OUTPUT_DIR gets `image_retention/` (an `ImageRetention`, the averaged weights
with --use_ema), `motion_adapter/` where that has learnt, and all else as from `train_motion.py`: checkpoints, log,
status, validation clips. A run that was stopped goes on with `--resume_from_checkpoint latest`.
"""

import argparse
import logging
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed
from diffusers.training_utils import EMAModel
from torch import nn

from landscape_video.files import write_directory
from landscape_video.training.data.batches import encode_once, load_clips, make_loader, prepare_batch
from landscape_video.training.data.first_frames import WithFirstFrames
from landscape_video.training.data.latents import load_vae
from landscape_video.training.data.prompt_embeds_cache import load_prompt_embeds_cache
from landscape_video.training.objectives.motion_models import build_noise_adapter, load_noise_scheduler
from landscape_video.training.objectives.motion_objective import MotionLosses, motion_losses
from landscape_video.training.objectives.unet_with_image_retention import RetainingUNet, build_retaining_unet
from landscape_video.training.run.checkpoints import write_checkpoint
from landscape_video.training.run.hub_publishing import check_hub_access, write_record
from landscape_video.training.run.optimization import averaged, make_optimizer, moment_bytes
from landscape_video.training.run.resuming import find_checkpoint, resume, settings_of
from landscape_video.training.run.retention_publishing import push_model
from landscape_video.training.run.retention_validation import RetentionValidation, read_pictures
from landscape_video.training.run.run_control import StopSignals, check_trackers
from landscape_video.training.run.run_summary import (
    count_groups,
    count_longest_step,
    describe_epochs,
    describe_memory,
    millions,
)
from landscape_video.training.run.step_cost import StepCost
from landscape_video.training.run.train_image_retention_args import ADAPTER, parse_args
from landscape_video.training.run.train_motion_args import settings_of_flags
from landscape_video.training.run.training_loop import begin_training, finish_training, run_script, train_steps
from landscape_video.training.run.training_state import TrainingState
from landscape_video.training.settings.training import RetentionTraining
from motion_adapter.build import save_motion_modules
from motion_adapter.code_files import BRANCH
from train_motion import make_accelerator, objective_settings


logger = logging.getLogger("train_image_retention")


def main(args: argparse.Namespace, signals: StopSignals) -> int:
    """Train as the flags say, until done, out of time or told to stop, and return the exit code."""
    check_trackers(args.report_to)
    deadline = time.monotonic() + 60 * (args.max_train_minutes or math.inf)
    accelerator = make_accelerator(args)
    device = accelerator.device
    set_seed(args.seed)  # for the new weights; whatever a step draws comes from (seed, step)
    if accelerator.is_main_process:
        check_hub_access(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    model, revision = args.pretrained_model_name_or_path, args.revision
    options = settings_of_flags(RetentionTraining, args)
    frozen_dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision, torch.float32)

    # 1. The clips, each with the picture that it begins with, and the frozen models
    with accelerator.main_process_first():  # the others find its report, and need not decode every video
        dataset, vae, latent_shape = load_clips(options, device)
    videos = None if vae is None else dataset
    noise_scheduler = load_noise_scheduler(model, revision)
    text_states = load_prompt_embeds_cache(model, revision, frozen_dtype, device)
    dataset = WithFirstFrames(dataset, videos, args.image_dropout_prob)
    validation_pictures = read_pictures(args.validation_images, dataset.image_size)

    # 2. What trains
    retaining_unet, trainable = build_retaining_unet(args, latent_shape, dataset.image_size, frozen_dtype, device)
    averaged_parameters = [parameter for _, parameter in trainable]
    noise_adapter = build_noise_adapter(args, latent_shape)
    if noise_adapter is not None:
        trainable = trainable + [(f"noise_adapter.{name}", p) for name, p in noise_adapter.named_parameters()]
    cost = count_longest_step(args, retaining_unet, noise_scheduler, text_states.text_encoder, latent_shape)
    optimizer = make_optimizer([parameter for _, parameter in trainable], args)

    # 3. The clips as latents, which may take hours: by now, models and flags are known to fit. The processes
    if vae is not None and not args.no_cache:
        dataset.dataset, vae = encode_once(args.cache_dir, dataset.dataset, vae, text_states, accelerator), None
    networks = [network.train() for network in (retaining_unet, noise_adapter) if network is not None]
    *prepared, prepared_optimizer = accelerator.prepare(*networks, optimizer)
    prepared_unet, prepared_noise_adapter = prepared if noise_adapter is not None else (*prepared, None)
    ema = EMAModel(averaged_parameters, decay=args.ema_decay, foreach=True) if args.use_ema else None
    state = TrainingState(trainable, optimizer, ema, accelerator.scaler)

    # 4. Where an earlier run stopped
    settings = settings_of(args, accelerator.num_processes, len(dataset))
    step = 0 if checkpoint is None else resume(state, checkpoint, settings)
    num_train_timesteps = noise_scheduler.config.num_train_timesteps
    loader = make_loader(options, dataset, num_train_timesteps, step, accelerator, dataset.last_start)

    # 5. What it will do, and cost
    validation = None
    if accelerator.is_main_process:
        frozen = [text_states.text_encoder, *([vae] if vae else [])]
        if args.validation_steps is not None:
            vae_to_see = vae or load_vae(model, revision, device)
            validation = RetentionValidation(
                args, retaining_unet, noise_scheduler, vae_to_see, text_states, dataset, latent_shape, accelerator,
                validation_pictures,
            )  # fmt: skip
            frozen = [text_states.text_encoder, vae_to_see]
        describe(args, networks, frozen, trainable, cost)
        clips_per_step = args.train_batch_size * args.gradient_accumulation_steps * accelerator.num_processes
        logger.info("%s", describe_epochs(len(dataset), clips_per_step, args.max_train_steps, step))

    # 6. Train: the loop is `training_loop.train_steps`
    def losses_of(batch: dict[str, Any]) -> MotionLosses:
        latents, noise, timesteps, pace = prepare_batch(batch, vae, device)
        text = text_states([request.text for request in batch["requests"]])
        # The objective is that of `train_motion.py`, of a UNet that sees a picture.
        unet = partial(prepared_unet, image=batch["image"].to(device))
        return motion_losses(
            unet, prepared_noise_adapter, noise_scheduler, latents, text, noise, timesteps, **objective_settings(args),
            first_frame_weight=args.first_frame_weight, pace=pace, pace_anchor=0.0,
        )  # fmt: skip

    def write_result(directory: Path) -> None:
        with averaged(ema, averaged_parameters):
            write_models(args, retaining_unet, directory, len(dataset), accelerator.num_processes)

    def save(step: int, ends: bool) -> None:
        if not accelerator.is_main_process:
            return
        with write_checkpoint(args.output_dir, step, args.checkpoints_total_limit) as directory:
            state.save(directory, step=step, settings=settings)
            write_result(directory)
        if args.push_to_hub and args.hub_strategy == "every_save" and not ends:
            push_model(args, args.output_dir / f"checkpoint-{step}", must_succeed=False)

    begin_training(args, accelerator, signals, checkpoint, step, settings, BRANCH)
    step, stop = train_steps(
        args, accelerator, loader, prepared, prepared_optimizer, state, step, losses_of, signals, deadline, save,
        validation,
    )  # fmt: skip

    # 7. What users load
    if accelerator.is_main_process and stop != "stopped":
        write_result(args.output_dir)
        if args.push_to_hub:
            push_model(args, args.output_dir)
    return finish_training(args, accelerator, signals, step, stop)


def describe(
    args: argparse.Namespace,
    networks: list[nn.Module],
    frozen: list[nn.Module],
    trainable: list[tuple[str, nn.Parameter]],
    cost: StepCost,
) -> None:
    """Log what trains and the memory that it takes; the first of `networks` is the UNet with its branch."""
    sizes = ", ".join(f"{part} {millions(size)}" for part, size in count_groups(trainable).items())
    idle = sum(parameter.numel() for parameter in networks[0].parameters() if not parameter.requires_grad)
    logger.info("Trains: %s. Frozen: %s.", sizes, millions(idle))
    models = [*networks, *frozen]
    logger.info("%s", describe_memory(models, trainable, cost, moment_bytes(args), args.use_ema))


def write_models(
    args: argparse.Namespace, retaining_unet: RetainingUNet, directory: Path, num_clips: int, num_processes: int
) -> None:
    """Write `image_retention/`, and `motion_adapter/` if that has learnt, each whole or not at all."""
    with write_directory(directory / BRANCH) as folder:
        retaining_unet.image_retention.save_pretrained(folder)
        write_record(folder, args, num_clips, num_processes)
    if not args.freeze_motion:
        with write_directory(directory / ADAPTER) as folder:
            save_motion_modules(retaining_unet.unet, folder)
            write_record(folder, args, num_clips, num_processes)


def run(argv: list[str] | None = None) -> int:
    """Train as the flags say; the exit code."""
    return run_script(main, parse_args, argv)


if __name__ == "__main__":
    sys.exit(run())
