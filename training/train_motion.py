"""Train a motion adapter on top of a frozen image model (NADM, Alg. 1): `accelerate launch training/train_motion.py`.

Only the motion modules and the noise adapter learn. OUTPUT_DIR gets `motion_adapter/` (a plain `MotionAdapter`, the
averaged weights with --use_ema), `noise_adapter/`, `checkpoint-STEP/`, `log.jsonl` and `status.json`. A run that was
stopped goes on with `--resume_from_checkpoint latest` and ends with the weights it would have had without the stop.
"""

import argparse
import logging
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import UNetMotionModel
from diffusers.training_utils import EMAModel
from torch import nn
from tqdm import tqdm
from transformers import AutoTokenizer, CLIPTextModel

from checkpoints import (
    CheckpointError,
    list_checkpoints,
    newest_valid_checkpoint,
    verify_checkpoint,
    write_checkpoint,
    write_directory,
)
from motion_adapter.build import freeze_image_layers, remove_attentions, save_motion_modules
from motion_adapter.noise_adapter import NoiseAdapter
from motion_batches import load_clips, make_loader, prepare_batch
from motion_models import cast_frozen_layers, load_motion_unet, load_noise_scheduler
from motion_objective import motion_losses
from run_control import EXIT_FAILED, EXIT_STOPPED, StopSignals, TrainLog, explain, write_status
from text_states import TextStates
from train_motion_args import parse_args
from training_state import TrainingState


# How a run ends: the exit code and the word in `status.json`.
ENDS = {None: (0, "finished"), "time_over": (0, "time_over"), "stopped": (EXIT_STOPPED, "stopped")}

# What may differ between a run and the one it resumes without changing what a step computes.
FREE_TO_CHANGE = {
    "output_dir", "logging_steps", "checkpointing_steps", "checkpoints_total_limit", "resume_from_checkpoint",
    "max_train_minutes", "dataloader_num_workers", "gradient_checkpointing",
}  # fmt: skip

logger = logging.getLogger("train_motion")


def main(args: argparse.Namespace, signals: StopSignals) -> int:
    """Train as the flags say, until done, out of time or told to stop, and return the exit code."""
    deadline = time.monotonic() + 60 * (args.max_train_minutes or math.inf)
    accelerator = Accelerator(
        gradient_accumulation_steps=args.gradient_accumulation_steps, mixed_precision=args.mixed_precision
    )
    logging.getLogger().setLevel(logging.INFO if accelerator.is_main_process else logging.ERROR)
    set_seed(args.seed)  # for the new weights; whatever a step draws comes from (seed, step)
    checkpoint = find_checkpoint(args.output_dir, args.resume_from_checkpoint)
    model, revision = args.pretrained_model_name_or_path, args.revision
    frozen_dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}.get(accelerator.mixed_precision, torch.float32)

    # 1. The clips and the frozen models
    dataset, vae, latent_shape = load_clips(args, accelerator.device)
    noise_scheduler = load_noise_scheduler(model, revision)
    tokenizer = AutoTokenizer.from_pretrained(model, subfolder="tokenizer", revision=revision)
    text_encoder = CLIPTextModel.from_pretrained(
        model, subfolder="text_encoder", revision=revision, dtype=frozen_dtype
    )
    text_states = TextStates(tokenizer, text_encoder.requires_grad_(False).eval().to(accelerator.device))

    # 2. The motion UNet, what of it trains, and the noise adapter
    unet = load_motion_unet(
        model,
        revision,
        args.motion_adapter_name_or_path,
        args.sparse_causal_mode,
        args.motion_max_seq_length,
        args.use_motion_mid_block,
    )
    check_fit(unet, latent_shape, args)
    remove_attentions(unet, ["versatile"] * args.no_versatile + ["sparse_causal"] * args.no_sparse_causal)
    trainable = freeze_image_layers(unet)
    motion_parameters = [parameter for _, parameter in trainable]
    cast_frozen_layers(unet, frozen_dtype)
    if args.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    noise_adapter = None
    if args.contrastive_weight > 0:
        channels, height, width = latent_shape
        noise_adapter = NoiseAdapter(channels, pool_size=min(32, max(height, width)))
        trainable = trainable + [(f"noise_adapter.{name}", p) for name, p in noise_adapter.named_parameters()]
    describe(unet, trainable, len(dataset), args, accelerator.num_processes)

    # 3. The optimizer, the moving average, the processes
    parameters = [parameter for _, parameter in trainable]
    optimizer = torch.optim.AdamW(
        parameters,
        lr=args.learning_rate,
        betas=(args.adam_beta1, args.adam_beta2),
        weight_decay=args.adam_weight_decay,
        eps=args.adam_epsilon,
        fused=True,
    )
    models = [network.train() for network in (unet, noise_adapter) if network is not None]
    *prepared, prepared_optimizer = accelerator.prepare(*models, optimizer)
    prepared_unet, prepared_noise_adapter = prepared if noise_adapter is not None else (*prepared, None)
    ema = EMAModel(motion_parameters, decay=args.ema_decay, foreach=True) if args.use_ema else None
    state = TrainingState(trainable, optimizer, ema, accelerator.scaler)

    # 4. Where an earlier run stopped
    settings = {key: str(value) for key, value in vars(args).items() if key not in FREE_TO_CHANGE}
    settings |= {"num_processes": str(accelerator.num_processes), "num_clips": str(len(dataset))}
    step = 0 if checkpoint is None else resume(state, checkpoint, settings)
    loader = make_loader(args, dataset, noise_scheduler.config.num_train_timesteps, step, accelerator)
    log = TrainLog(args.output_dir, step, accelerator)
    if accelerator.is_main_process:
        write_status(args.output_dir, "running", step=step)

    # 5. Train
    stop = None
    progress = tqdm(total=args.max_train_steps, initial=step, unit="step", disable=not accelerator.is_main_process)
    for batch in loader:
        latents, noise, timesteps = prepare_batch(batch, vae, accelerator.device)
        torch.manual_seed(args.seed + step)  # for dropout, where an image model has any
        with accelerator.accumulate(*prepared):
            losses = motion_losses(
                prepared_unet,
                prepared_noise_adapter,
                noise_scheduler,
                latents,
                text_states([request.text for request in batch["requests"]]),
                noise,
                timesteps,
                args.contrastive_weight,
                args.contrastive_temperature,
                args.negative_threshold,
                args.negatives,
                args.positives,
                args.snr_gamma,
            )
            accelerator.backward(losses.total)
            grad_norm = None
            if accelerator.sync_gradients:
                grad_norm = accelerator.clip_grad_norm_(parameters, args.max_grad_norm)
                for group in optimizer.param_groups:
                    group["lr"] = learning_rate_at(step, args)
            prepared_optimizer.step()
            prepared_optimizer.zero_grad()
        log.add(losses, len(latents), None if accelerator.optimizer_step_was_skipped else grad_norm)
        if not accelerator.sync_gradients:
            continue
        step += 1
        progress.update()
        if ema is not None:
            ema.step(motion_parameters)

        stop = agree(accelerator, signals.received, time.monotonic() > deadline)
        ends = stop is not None or step == args.max_train_steps
        saves = ends or step % args.checkpointing_steps == 0
        if saves or step % args.logging_steps == 0:
            line = log.write(step, optimizer.param_groups[0]["lr"])  # raises when a loss is not finite: no save then
            progress.set_postfix(loss=f"{line['diffusion_loss']:.4f}", contrastive=f"{line['contrastive_loss']:.3f}")
        if saves and accelerator.is_main_process:
            with write_checkpoint(args.output_dir, step, args.checkpoints_total_limit) as directory:
                state.save(directory, step=step, settings=settings)
                with averaged(ema, motion_parameters):
                    save_motion_modules(unet, directory / "motion_adapter")
        if ends:
            break
    progress.close()

    # 6. What users load
    exit_code, status = ENDS[stop]
    if accelerator.is_main_process and exit_code == 0:
        with write_directory(args.output_dir / "motion_adapter") as directory, averaged(ema, motion_parameters):
            save_motion_modules(unet, directory)
        if noise_adapter is not None:
            with write_directory(args.output_dir / "noise_adapter") as directory:
                noise_adapter.save_pretrained(directory)
    if accelerator.is_main_process:
        write_status(args.output_dir, status, step=step, exit_code=exit_code, reason=signals.received)
        logger.info("%s at step %d of %d.", status.replace("_", " ").capitalize(), step, args.max_train_steps)
    accelerator.end_training()
    return exit_code


def find_checkpoint(output_dir: Path, resume_from_checkpoint: str | None) -> Path | None:
    """The checkpoint to go on from, None for a new run.

    Raises:
        CheckpointError: the given one, or every one there is, cannot be used.
        ValueError: a new run would mix its checkpoints with those of an earlier one.
    """
    present = list_checkpoints(output_dir)
    if resume_from_checkpoint is None:
        if present:
            raise ValueError(
                f"{output_dir} holds checkpoints of an earlier run: go on with --resume_from_checkpoint latest, or "
                "choose another --output_dir."
            )
        return None
    if resume_from_checkpoint != "latest":
        verify_checkpoint(resume_from_checkpoint)
        return Path(resume_from_checkpoint)
    newest = newest_valid_checkpoint(output_dir)
    if newest is None and present:
        raise CheckpointError(f"None of the {len(present)} checkpoints in {output_dir} can be used.")
    if newest is None:
        logger.info("No checkpoint in %s: starting from the beginning.", output_dir)
    return newest


def check_fit(unet: UNetMotionModel, latent_shape: tuple[int, int, int], args: argparse.Namespace) -> None:
    """Raise a ValueError where clips and UNet do not fit each other."""
    if latent_shape[0] != unet.config.in_channels:
        raise ValueError(f"The latents have {latent_shape[0]} channels, but the UNet takes {unet.config.in_channels}.")
    if args.num_frames_range[1] > unet.config.motion_max_seq_length:
        raise ValueError(
            f"--num_frames_range goes up to {args.num_frames_range[1]}, but the motion adapter has "
            f"{unet.config.motion_max_seq_length} positions."
        )


def resume(state: TrainingState, checkpoint: Path, settings: dict[str, str]) -> int:
    """Restore the state of a checkpoint, say which settings are no longer what they were, and return its step."""
    values = state.load(checkpoint)
    for key in sorted(settings.keys() | values["settings"].keys()):
        before, now = values["settings"].get(key), settings.get(key)
        if before != now:
            logger.warning("%s was %s when %s was saved, and is %s now.", key, before, checkpoint.name, now)
    logger.info("Resumed from %s.", checkpoint)
    return values["step"]


def describe(
    unet: UNetMotionModel,
    trainable: list[tuple[str, nn.Parameter]],
    num_clips: int,
    args: argparse.Namespace,
    num_processes: int,
) -> None:
    """Log what trains, what does not, and how long an epoch is."""
    clips_per_step = args.train_batch_size * args.gradient_accumulation_steps * num_processes
    sizes = {True: 0, False: 0}  # of the noise adapter; of the motion modules
    for name, parameter in trainable:
        sizes[name.startswith("noise_adapter.")] += parameter.numel()
    frozen = sum(parameter.numel() for parameter in unet.parameters()) - sizes[False]
    logger.info(
        "Training %.2f M parameters of the motion modules and %.2f M of the noise adapter; %.2f M stay frozen.",
        sizes[False] / 1e6, sizes[True] / 1e6, frozen / 1e6,
    )  # fmt: skip
    logger.info(
        "%d clips, %d a step: an epoch is %.1f steps. Attention is %s.",
        num_clips, clips_per_step, num_clips / clips_per_step, unet.config.sparse_causal_mode,
    )  # fmt: skip


def learning_rate_at(step: int, args: argparse.Namespace) -> float:
    """The learning rate of step number `step`, counted from 0."""
    if args.lr_scheduler == "constant":
        return args.learning_rate
    # 1) a linear rise
    if step < args.lr_warmup_steps:
        return args.learning_rate * (step + 1) / (args.lr_warmup_steps + 1)
    if args.lr_scheduler == "constant_with_warmup":
        return args.learning_rate
    # 2) down to zero at the end of training
    progress = (step - args.lr_warmup_steps) / max(1, args.max_train_steps - args.lr_warmup_steps)
    if args.lr_scheduler == "linear":
        return args.learning_rate * (1 - progress)
    return args.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def agree(accelerator: Accelerator, received: str | None, over: bool) -> str | None:
    """Whether to stop, and why; all processes get the same answer, or one would wait for the others for ever."""
    code = 2 if received else int(over)
    if accelerator.num_processes > 1:
        code = int(accelerator.gather(torch.tensor([code], device=accelerator.device)).max())
    return (None, "time_over", "stopped")[code]


@contextmanager
def averaged(ema: EMAModel | None, parameters: list[nn.Parameter]) -> Iterator[None]:
    """Within the block, the parameters hold their moving average, if there is one."""
    if ema is None:
        yield
        return
    ema.store(parameters)
    ema.copy_to(parameters)
    try:
        yield
    finally:
        ema.restore(parameters)


def run(argv: list[str] | None = None) -> int:
    """Parse the flags, train, and turn what goes wrong into one line, a status file and an exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s", stream=sys.stderr)
    args = parse_args(argv)
    try:
        with StopSignals() as signals:
            return main(args, signals)
    except Exception as error:
        reason = explain(error)
        write_status(args.output_dir, "failed", exit_code=EXIT_FAILED, reason=reason or repr(error))
        if reason is None:
            raise
        logger.error("%s", reason)
        return EXIT_FAILED


if __name__ == "__main__":
    sys.exit(run())
