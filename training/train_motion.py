"""Train a motion adapter on top of a frozen image model (NADM, Alg. 1): `accelerate launch training/train_motion.py`.

Only the motion modules and the noise adapter learn. OUTPUT_DIR gets `motion_adapter/` (a plain `MotionAdapter`, the
averaged weights with --use_ema), `noise_adapter/`, `checkpoint-STEP/`, `log.jsonl`, `status.json` and the clips of
--validation_steps. A run that was stopped goes on with `--resume_from_checkpoint latest` and ends, on a CPU
to the bit, with the weights it would have had without the stop.
"""

import argparse
import logging
import math
import sys
import time
from contextlib import nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import (
    AutocastKwargs,
    DeepSpeedPlugin,
    FullyShardedDataParallelPlugin,
    InitProcessGroupKwargs,
    ProjectConfiguration,
    set_seed,
)
from diffusers import UNetMotionModel
from diffusers.training_utils import EMAModel

from landscape_video.files import write_directory
from landscape_video.training.data.batches import encode_once, load_clips, make_loader, prepare_batch
from landscape_video.training.data.latents import load_vae
from landscape_video.training.data.prompt_embeds_cache import load_prompt_embeds_cache
from landscape_video.training.objectives.motion_models import (
    build_motion_unet,
    build_noise_adapter,
    load_noise_scheduler,
)
from landscape_video.training.objectives.motion_objective import MotionLosses, MotionObjective
from landscape_video.training.run.checkpoints import write_checkpoint
from landscape_video.training.run.deepspeed import deepspeed_plugin, enable_deepspeed_on_cpu
from landscape_video.training.run.fsdp import enable_fsdp_on_cpu, fsdp_plugin, is_sharded, whole_model
from landscape_video.training.run.hub_publishing import check_hub_access, push_checkpoint, push_result, write_record
from landscape_video.training.run.optimization import averaged, launched_precision, make_optimizer
from landscape_video.training.run.resuming import find_checkpoint, resume, settings_of
from landscape_video.training.run.run_control import StopSignals, check_trackers
from landscape_video.training.run.run_summary import count_longest_step, describe
from landscape_video.training.run.train_motion_args import parse_args, settings_of_flags
from landscape_video.training.run.training_loop import begin_training, finish_training, run_script, train_steps
from landscape_video.training.run.training_state import TrainingState
from landscape_video.training.run.validation import Validation
from landscape_video.training.settings.training import MotionTraining
from motion_adapter.build import extract_motion_adapter
from motion_adapter.noise_adapter import NoiseAdapter


def main(args: argparse.Namespace, signals: StopSignals) -> int:
    """Train as the flags say, until done, out of time or told to stop, and return the exit code."""
    check_trackers(args.report_to)
    deadline = time.monotonic() + 60 * (args.max_train_minutes or math.inf)
    accelerator = make_accelerator(args, fsdp_plugin(args), deepspeed_plugin(args))
    device = accelerator.device
    set_seed(args.seed)  # for the new weights; whatever a step draws comes from (seed, step)
    if accelerator.is_main_process:
        check_hub_access(args)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    model, revision = args.pretrained_model_name_or_path, args.revision
    options = settings_of_flags(MotionTraining, args)
    frozen_dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(launched_precision(args), torch.float32)

    # 1. The clips and the frozen models
    with accelerator.main_process_first():  # the others find its report, and need not decode every video
        dataset, vae, latent_shape = load_clips(options, device)
    noise_scheduler = load_noise_scheduler(model, revision)
    text_states = load_prompt_embeds_cache(model, revision, frozen_dtype, device)

    # 2. What trains
    unet = build_motion_unet(args, latent_shape, frozen_dtype, device)
    noise_adapter = build_noise_adapter(args, latent_shape)
    objective = MotionObjective(unet, noise_adapter, noise_scheduler, **objective_settings(args)).to(device).train()
    cost = count_longest_step(args, unet, noise_scheduler, text_states.text_encoder, latent_shape)
    optimizer = make_optimizer([parameter for _, parameter in objective.trainable()], args)

    # 3. The clips as latents, which may take hours: by now, models and flags are known to fit. The processes
    if vae is not None and not args.no_cache:
        dataset, vae = encode_once(args.cache_dir, dataset, vae, text_states, accelerator), None
    prepared_objective, prepared_optimizer = accelerator.prepare(objective, optimizer)
    trainable = objective.trainable()  # with FSDP, other parameters than before
    motion_parameters = [parameter for name, parameter in trainable if not name.startswith("noise_adapter.")]
    sharded = is_sharded(accelerator)  # torch then lacks the fused kernels that `foreach` means
    ema = EMAModel(motion_parameters, decay=args.ema_decay, foreach=not sharded) if args.use_ema else None
    state = TrainingState(trainable, optimizer, ema, accelerator.scaler)

    # 4. Where an earlier run stopped
    settings = settings_of(args, accelerator.num_processes, len(dataset))
    step = 0 if checkpoint is None else resume(state, checkpoint, settings)
    loader = make_loader(options, dataset, noise_scheduler.config.num_train_timesteps, step, accelerator)

    # 5. What it will do, and cost
    validation = None
    frozen = [text_states.text_encoder, *([vae] if vae else [])]
    if args.validation_steps is not None and (accelerator.is_main_process or sharded):
        vae_to_see = vae or load_vae(model, revision, device)
        validation = Validation(
            args, unet, noise_scheduler, vae_to_see, text_states, dataset.captions[0][0], latent_shape, accelerator
        )
        frozen = [text_states.text_encoder, vae_to_see]
    if accelerator.is_main_process:
        describe(args, unet, [objective, *frozen], trainable, cost, dataset, step)

    # 6. Train: the loop is `training_loop.train_steps`, a step the pure function `motion_objective.motion_losses`
    def losses_of(batch: dict[str, Any]) -> MotionLosses:
        latents, noise, timesteps, pace = prepare_batch(batch, vae, device)
        text = text_states([request.text for request in batch["requests"]])
        return prepared_objective(latents, text, noise, timesteps, pace)

    def save(step: int, ends: bool) -> None:
        writing = write_checkpoint(args.output_dir, step, args.checkpoints_total_limit)
        with writing if accelerator.is_main_process else nullcontext() as directory:
            state.save(directory, step=step, settings=settings)
            with averaged(ema, motion_parameters):
                export(args, unet, directory and directory / "motion_adapter", len(dataset), accelerator)
        if accelerator.is_main_process and args.push_to_hub and args.hub_strategy == "every_save" and not ends:
            push_checkpoint(args, args.output_dir / f"checkpoint-{step}" / "motion_adapter")

    begin_training(args, accelerator, signals, checkpoint, step, settings, "motion_adapter")
    step, stop = train_steps(
        args, accelerator, loader, [prepared_objective], prepared_optimizer, state, step, losses_of, signals, deadline,
        save, validation,
    )  # fmt: skip

    # 7. What users load
    if stop != "stopped":
        with averaged(ema, motion_parameters):
            write_adapters(args, unet, noise_adapter, len(dataset), accelerator)
        if accelerator.is_main_process and args.push_to_hub:
            push_result(args, args.output_dir / "motion_adapter")
    return finish_training(args, accelerator, signals, step, stop)


def make_accelerator(
    args: argparse.Namespace,
    fsdp: FullyShardedDataParallelPlugin | None = None,
    deepspeed: DeepSpeedPlugin | None = None,
) -> Accelerator:
    """The processes of this run, as a launcher and the flags say."""
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        mixed_precision=args.mixed_precision,
        kwargs_handlers=[
            AutocastKwargs(enabled=False),  # `lower_precision` sees to it, layer by layer
            InitProcessGroupKwargs(timeout=timedelta(hours=6)),  # the others wait for what one does alone
        ],
        log_with=args.report_to or None,
        project_config=ProjectConfiguration(str(args.output_dir), logging_dir=str(args.output_dir / "logs")),
        fsdp_plugin=fsdp,
        deepspeed_plugin=deepspeed,
    )
    enable_fsdp_on_cpu(accelerator, fsdp)
    enable_deepspeed_on_cpu(accelerator, deepspeed)
    logging.getLogger().setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
    return accelerator


def objective_settings(args: argparse.Namespace) -> dict[str, Any]:
    """The keywords of `motion_losses` that flags set."""
    return {
        "contrastive_weight": args.contrastive_weight,
        "temperature": args.contrastive_temperature,
        "threshold": args.negative_threshold,
        "negatives": args.negatives,
        "positives": args.positives,
        "snr_gamma": args.snr_gamma,
    }


def write_adapters(
    args: argparse.Namespace,
    unet: UNetMotionModel,
    noise_adapter: NoiseAdapter | None,
    num_clips: int,
    accelerator: Accelerator,
) -> None:
    """Write `motion_adapter/` and `noise_adapter/`, each whole or not at all; all processes have to call this."""
    writing = write_directory(args.output_dir / "motion_adapter")
    with writing if accelerator.is_main_process else nullcontext() as directory:
        export(args, unet, directory, num_clips, accelerator)
    if noise_adapter is not None:
        noise_adapter = whole_model(noise_adapter)
        if accelerator.is_main_process:
            with write_directory(args.output_dir / "noise_adapter") as directory:
                noise_adapter.save_pretrained(directory)


def export(
    args: argparse.Namespace, unet: UNetMotionModel, directory: Path | None, num_clips: int, accelerator: Accelerator
) -> None:
    """Write the motion adapter and how it was made; all processes have to call this, the others with None."""
    adapter = extract_motion_adapter(unet)
    if directory is not None:
        adapter.save_pretrained(directory)
        write_record(directory, args, num_clips, accelerator.num_processes)


def run(argv: list[str] | None = None) -> int:
    """Train as the flags say; the exit code."""
    return run_script(main, parse_args, argv)


if __name__ == "__main__":
    sys.exit(run())
