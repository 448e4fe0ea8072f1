"""Tune a model on clips with masks (combined tuning of Consistency tuning), as a run and on a single clip."""

import json
import logging
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import DDPMScheduler

from landscape_video.files import hash_chunks, hash_json
from landscape_video.generation.settings import ModelSettings
from landscape_video.training.data.batches import make_loader
from landscape_video.training.data.masked_clips import WithBackgrounds, read_backgrounds, write_masked_latents
from landscape_video.training.objectives.consistency_recipe import (
    FUSION_WEIGHTS,
    LORA,
    ConsistencyRecipe,
    build_tuned_unet,
)
from landscape_video.training.objectives.recipe import TrainingRecord
from landscape_video.training.objectives.training_inputs import TrainingInputs
from landscape_video.training.run.checkpoints import CheckpointError, list_checkpoints
from landscape_video.training.run.hub_publishing import push_tuned
from landscape_video.training.run.optimization import make_optimizer
from landscape_video.training.run.run_summary import count_longest_step
from landscape_video.training.run.signals import STATUS, StoppedAtStart, StopSignals, TrainingFailed
from landscape_video.training.run.training_loop import train
from landscape_video.training.run.training_run import TrainingRun
from landscape_video.training.run.validation import Validation
from landscape_video.training.settings.consistency import ConsistencyTraining
from landscape_video.training.settings.inputs import MOTION_ADAPTER


def tune_consistency(settings: ConsistencyTraining, signals: StopSignals) -> int:
    """Train until done, out of time or told to stop, and return the exit code."""
    run = TrainingRun.start(settings, signals)
    accelerator, dtype, consistency = run.accelerator, run.frozen_dtype, settings.consistency

    # 1. Load the clips, each with its background, and the frozen models
    inputs = TrainingInputs.load(settings, dtype, accelerator)
    if consistency.beta_schedule is not None:
        config = inputs.noise_scheduler.config
        inputs.noise_scheduler = DDPMScheduler.from_config(config, beta_schedule=consistency.beta_schedule)
    masks_dir = consistency.masks_dir or Path(settings.data.train_data_dir or "", "masks")
    backgrounds = read_backgrounds(inputs.clips, masks_dir, consistency.objects, inputs.latent_shape[1:])

    # 2. Build what trains
    unet = build_tuned_unet(settings, inputs.latent_shape, dtype, inputs.device)
    record = TrainingRecord(settings, len(inputs.clips), accelerator.num_processes)
    recipe = ConsistencyRecipe(unet, inputs, settings, record)
    cost = count_longest_step(settings, recipe)
    optimizer = make_optimizer(recipe.trainable().values(), settings.optimization)

    # 3. Encode the clips (slow, hence after all checks)
    clips = WithBackgrounds(inputs.encode(settings, accelerator), backgrounds)
    loader = make_loader(settings, clips, inputs.noise_scheduler.config.num_train_timesteps, accelerator)

    # 4. Train
    validation = Validation(settings, recipe, accelerator) if run.validates else None
    return train(recipe, loader, optimizer, run, validation, push_tuned, cost)


@dataclass(frozen=True)
class Tuned:
    """Result of tuning on a clip.

    Args:
        folder: Folder with `lora/` or `motion_adapter/`.
        background_weight: Weight w_b of the fusion, 1 unless it was learned.
        foreground_weight: Weight w_f, likewise.
    """

    folder: Path
    background_weight: float = 1.0
    foreground_weight: float = 1.0

    @property
    def is_lora(self) -> bool:
        """Whether a LoRA was trained rather than motion modules."""
        return (self.folder / LORA).is_dir()

    def models(self, models: ModelSettings) -> dict[str, Any]:
        """Return the settings of the tuned model that differ from those of the given one."""
        if self.is_lora:
            return {"lora": [*(models.lora or []), str(self.folder / LORA)]}
        return {"motion_adapter": str(self.folder / MOTION_ADAPTER)}


def tune_on_clip(
    models: ModelSettings,
    latents: torch.Tensor,
    background: torch.Tensor,
    captions: dict[int, str],
    cache_dir: Path,
    **options: Any,
) -> Tuned:
    """Tune a model on the frames of one clip; the same clip and options are tuned once, and resumed if stopped.

    Args:
        models: Model to tune; its LoRA weights, if it has any, stay as they are and do not take part.
        latents: Frames, (num_frames, channels, height, width).
        background: Share of each pixel, (num_frames, 1, height, width); the rest is foreground.
        captions: Prompts by the frame at which they begin.
        cache_dir: Folder that keeps results.
        options: Options of `ConsistencyTraining` by name.

    Raises:
        ValueError: An option is out of its range, or the model does not fit.
        FloatingPointError: The loss is not finite.
        KeyboardInterrupt: A signal came. A checkpoint is saved, from which the next call resumes.
    """
    clip = [tensor.half().cpu().contiguous() for tensor in (latents, background)]
    options |= {"pretrained_model_name_or_path": models.model, "motion_adapter_name_or_path": models.motion_adapter}
    content = [json.dumps(captions).encode(), *(tensor.numpy() for tensor in clip)]
    folder = (
        cache_dir / "consistency" / hash_json([hash_chunks(content), {k: str(v) for k, v in options.items()}])[:32]
    )
    output_dir, data = folder / "run", folder / "clip"
    if not data.is_dir():
        write_masked_latents(data, *clip, captions)
    limit = min(16, *(stop - start for start, stop in pairwise([*captions, len(latents)])))
    options |= {"train_data_dir": data, "output_dir": output_dir, "num_frames_range": (limit, limit)}
    options["cache_dir"] = cache_dir
    if not _is_finished(output_dir):
        resumed = "latest" if list_checkpoints(output_dir) else None
        _tune(ConsistencyTraining.from_options(**options, resume_from_checkpoint=resumed))
    file = output_dir / FUSION_WEIGHTS
    weights = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return Tuned(output_dir, **weights)


def _is_finished(output_dir: Path) -> bool:
    status = output_dir / STATUS
    return status.is_file() and json.loads(status.read_text(encoding="utf-8"))["status"] == "finished"


def _tune(settings: ConsistencyTraining) -> None:
    root = logging.getLogger()
    level = root.level
    try:
        with StopSignals() as signals:
            exit_code = tune_consistency(settings, signals)
    except StoppedAtStart as stopped:
        raise KeyboardInterrupt from stopped
    except TrainingFailed as error:
        raise FloatingPointError(str(error)) from error
    except CheckpointError as error:
        raise ValueError(f"{settings.run.output_dir}: {error}; delete this folder.") from error
    finally:
        root.setLevel(level)
    if exit_code:
        raise KeyboardInterrupt
