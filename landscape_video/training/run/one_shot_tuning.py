"""Tune a pipeline on one clip (one-shot depth tuning), and keep the tuned weights in a cache."""

import logging
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import AutocastKwargs
from torch import nn
from torch.utils.data import DataLoader

from landscape_video.files import hash_chunks, hash_json
from landscape_video.training.data.batches import collate
from landscape_video.training.data.clip_sampling import ClipBatchSampler
from landscape_video.training.objectives.motion_models import checkpoint_layers, compile_unet
from landscape_video.training.objectives.one_shot_recipe import (
    TUNED,
    TUNED_FILE,
    OneShotRecipe,
    TunedClip,
    TuningModels,
)
from landscape_video.training.objectives.recipe import TrainingRecord
from landscape_video.training.run.checkpoints import find_checkpoint, list_checkpoints
from landscape_video.training.run.optimization import make_optimizer
from landscape_video.training.run.signals import StopSignals
from landscape_video.training.run.training_loop import train
from landscape_video.training.run.training_run import TrainingRun
from landscape_video.training.settings.inputs import default_cache_dir
from landscape_video.training.settings.one_shot import MAX_WINDOW, OneShotTuning
from pipeline_landscape_video.landscape_source_clip import SourceClip
from pipeline_landscape_video.landscape_spatio_temporal_attention import (
    has_spatio_temporal_attention,
    install_spatio_temporal_attention,
    remove_spatio_temporal_attention,
)


SMALL_MODEL = 100e6  # parameters; a smaller UNet takes the settings of shanshui-tiny
PREVIEW_STEPS = 50
SAMPLED = 256  # values of each weight that tell models apart

# Receives the number of finished steps, the number of all steps and the loss; True stops tuning.
Callback = Callable[[int, int, float], bool | None]

logger = logging.getLogger("training")


def tune_one_shot(
    pipe: Any,
    video: np.ndarray,
    prompt: str,
    depth: torch.Tensor | None = None,
    callback: Callback | None = None,
    on_preview: Callable[[np.ndarray], None] | None = None,
    cache_dir: str | Path | None = None,
    preset: str | None = None,
    **options: Any,
) -> Path:
    """Tune the queries and the temporal attention of a pipeline's UNet on one clip.

    The pipeline itself does not change; `load_tuned(pipe.unet, path)` installs the result. The file is cached by clip,
    model and settings, so the same call returns at once. A call that was stopped resumes.

    Args:
        pipe: Pipeline with a motion UNet, whose device and dtype are used.
        video: Frames, uint8 (num_frames, height, width, 3); `num_frames` of them, evenly spaced, are tuned on.
        prompt: What the clip shows.
        depth: Depth of all frames in [-1, 1], (num_frames, 1, height, width), for a model that reads it.
        callback: Called after every step with the finished steps, all steps and the loss. If it returns True, tuning
            stops, and what was learned is kept.
        on_preview: Called every `PREVIEW_STEPS` steps with the clip as the model predicts it from noise, uint8
            (num_frames, height, width, 3).
        cache_dir: Folder of the cache; $LANDSCAPE_VIDEO_CACHE or ~/.cache/landscape-video by default.
        preset: "paper" or "tiny"; by default, "tiny" for small models.
        options: Settings of `OneShotTuning`, such as `max_train_steps`.

    Returns:
        The tuned file. `README.md` beside it is its card.

    Raises:
        ValueError: The clip is too short, the depth does not fit, or a setting is wrong.
    """
    models = TuningModels.of(pipe)
    if preset is None:
        preset = "tiny" if sum(weight.numel() for weight in models.unet.parameters()) < SMALL_MODEL else "paper"
    settings = OneShotTuning.from_options(preset, **options)
    frames, depth = prepare_clip(models, video, depth, settings.tuning.num_frames)
    folder = cache_folder(cache_dir, models, frames, prompt, depth, settings)
    settings.run.output_dir = folder
    tuned = folder / TUNED / TUNED_FILE
    if tuned.is_file() and not list_checkpoints(folder):
        logger.info("%s was tuned before.", tuned)
        return tuned
    clip = TunedClip.encode(models, frames, depth, prompt)
    run = start_run(settings, models.unet.device, models.unet.dtype)
    with tunable(models.unet, settings):
        recipe = OneShotRecipe(
            models,
            clip,
            TrainingRecord(settings, 1, 1),
            settings.tuning.temporal_weight,
            settings.tuning.temporal_target,
        )
        before = recipe.measure()
        optimizer = make_optimizer(recipe.trainable().values(), settings.optimization)
        on_step = call_back(run, recipe, callback, on_preview) if callback or on_preview else None
        train(recipe, make_clip_loader(settings, recipe, run.accelerator), optimizer, run, on_step=on_step)
        report(before, recipe.measure())
        if run.signals.received:
            recipe.export(folder)
        else:
            for checkpoint in list_checkpoints(folder):
                shutil.rmtree(checkpoint)
    return tuned


def prepare_clip(
    models: TuningModels, video: np.ndarray, depth: torch.Tensor | None, num_frames: int
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Take frames and depth to tune on, evenly spaced, padded to whole latents.

    Returns:
        Frames in [-1, 1], (num_frames, 3, height, width), and their depth.

    Raises:
        ValueError: The clip is too short, or the depth does not fit.
    """
    if video.ndim != 4 or video.shape[-1] != 3 or video.dtype != np.uint8:
        raise ValueError(
            f"`video` must be uint8 frames (num_frames, height, width, 3), got {video.dtype} {video.shape}."
        )
    if len(video) < 2:
        raise ValueError("`video` must have at least 2 frames to tune on, got 1; edit it without tuning.")
    if models.reads_depth and depth is None:
        raise ValueError("`depth` must be given: this model reads depth.")
    if not models.reads_depth and depth is not None:
        raise ValueError("`depth` must be None: this model does not read depth.")
    if depth is not None and tuple(depth.shape) != (len(video), 1, *video.shape[1:3]):
        expected = (len(video), 1, *video.shape[1:3])
        raise ValueError(f"`depth` must have the shape {expected}, as the video, got {tuple(depth.shape)}.")
    chosen = np.linspace(0, len(video) - 1, min(num_frames, len(video))).round().astype(int)
    frames = torch.from_numpy(video[chosen]).permute(0, 3, 1, 2).float() / 127.5 - 1
    factor = 2 ** (len(models.vae.config.block_out_channels) - 1)
    clip = SourceClip(frames, factor, None if depth is None else depth[torch.from_numpy(chosen)].float())
    return clip.padded, clip.depth


def cache_folder(
    cache_dir: str | Path | None,
    models: TuningModels,
    frames: torch.Tensor,
    prompt: str,
    depth: torch.Tensor | None,
    settings: OneShotTuning,
) -> Path:
    """Return the folder of a tuned clip, named after everything that its weights depend on."""
    weights = [weight.detach().flatten()[:SAMPLED].float().cpu() for weight in models.unet.parameters()]
    tensors = [frames, *([] if depth is None else [depth]), *weights]
    content = hash_chunks(tensor.contiguous().numpy().tobytes() for tensor in tensors)
    key = hash_json([content, prompt, settings.comparable(), dict(models.scheduler.config)])
    return Path(cache_dir or default_cache_dir()) / "tuned" / key[:32]


def start_run(settings: OneShotTuning, device: torch.device, dtype: torch.dtype) -> TrainingRun:
    """Start or resume a run in this process, on the device of the pipeline; float16 needs a loss scaler."""
    accelerator = Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="fp16" if dtype == torch.float16 else "no",
        gradient_accumulation_steps=settings.optimization.gradient_accumulation_steps,
        kwargs_handlers=[AutocastKwargs(enabled=False)],
    )
    checkpoint = find_checkpoint(settings.run.output_dir, "latest")
    return TrainingRun(settings, accelerator, StopSignals(), math.inf, checkpoint)


def call_back(
    run: TrainingRun,
    recipe: OneShotRecipe,
    callback: Callback | None,
    on_preview: Callable[[np.ndarray], None] | None,
) -> Callable[[int, dict[str, torch.Tensor]], None]:
    """Return a function for the training loop that calls both; the run stops if `callback` returns True."""

    def on_step(step: int, losses: dict[str, torch.Tensor]) -> None:
        if on_preview is not None and step % PREVIEW_STEPS == 0:
            on_preview(recipe.preview())
        if callback is not None:
            total = run.settings.optimization.max_train_steps
            if callback(step, total, losses["total"].item()):
                run.signals.received = "cancel"

    return on_step


@contextmanager
def tunable(unet: nn.Module, settings: OneShotTuning) -> Iterator[None]:
    """Within the block, `unet` has sparse spatio-temporal attention and trains; then it is as before.

    Raises:
        ValueError: `unet` has tuned weights already.
    """
    if has_spatio_temporal_attention(unet):
        raise ValueError(
            "`unet` must not have tuned weights yet; call `remove_spatio_temporal_attention` before tuning."
        )
    requires_grad = {name: weight.requires_grad for name, weight in unet.named_parameters()}
    training, optimization = unet.training, settings.optimization
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.run.seed)  # for the weights of the new temporal attention
        install_spatio_temporal_attention(unet, settings.tuning.temporal_attention)
    if optimization.gradient_checkpointing is not None:
        checkpoint_layers(unet, optimization.gradient_checkpointing)
    if optimization.torch_compile:
        compile_unet(unet)
    try:
        yield
    finally:
        for module in unet.modules():
            module.__dict__.pop("forward", None)
        remove_spatio_temporal_attention(unet)
        for name, weight in unet.named_parameters():
            weight.requires_grad_(requires_grad[name])
            weight.grad = None
        unet.train(training)


def make_clip_loader(settings: OneShotTuning, recipe: OneShotRecipe, accelerator: Accelerator) -> DataLoader:
    """Return this process's batches of the one clip, in windows if it is long."""
    optimization, frames = settings.optimization, min(recipe.clip.lengths[0], MAX_WINDOW)
    sampler = ClipBatchSampler(
        recipe.clip,
        seed=settings.run.seed,
        batch_size=optimization.train_batch_size,
        num_frames_range=(frames, frames),
        stride_range=recipe.clip.default_stride,
        caption_dropout_prob=0.0,
        num_train_timesteps=recipe.scheduler.config.num_train_timesteps,
        first_step=0,
        last_step=optimization.max_train_steps,
        accumulation_steps=optimization.gradient_accumulation_steps,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
    )
    return DataLoader(recipe.clip, batch_sampler=sampler, collate_fn=collate)


def report(before: dict[str, float], after: dict[str, float]) -> None:
    """Log what tuning has changed."""
    logger.info(
        "Tuned: error %.4f (%.4f before), motion %.2f of the source (%.2f before).",
        after["error"], before["error"], after["motion"], before["motion"],
    )  # fmt: skip
