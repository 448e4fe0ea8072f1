"""Edit a clip by words, with metadata that reproduces it."""

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from landscape_video.generation.edit_settings import EditSettings
from landscape_video.generation.generate_clip import Clip, OnStep, describe_environment, step_callback
from landscape_video.generation.setting_fields import argument_name, pipeline_arguments


if TYPE_CHECKING:
    from pipeline_landscape_video import LandscapeVideoEditingPipeline


def edit_clip(
    pipe: "LandscapeVideoEditingPipeline",
    frames: np.ndarray,
    source_prompt: str,
    prompts: Sequence[str],
    settings: EditSettings,
    masks: np.ndarray | None = None,
    depth: torch.Tensor | None = None,
    fps: float = 8.0,
    on_step: OnStep | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> list[Clip]:
    """Edit a clip, once for each prompt, or with as many masks as prompts once in all.

    Args:
        pipe: A loaded pipeline, see `load_pipeline`.
        frames: uint8 (num_frames, height, width, 3).
        source_prompt: What the clip shows.
        prompts: What it should show.
        settings: How to edit it; a seed is drawn if they have none.
        masks: What may change, (masks, num_frames, height, width) in [0, 1].
        depth: Depth of the frames, (num_frames, 1, height, width) in [-1, 1], for models that read it.
        fps: Frames per second.
        on_step: Called after each denoising step.
        is_cancelled: Asked after each denoising step whether to stop.

    Returns:
        The edited clips, whose frames have the aspect ratio of the given ones.

    Raises:
        ValueError: A setting does not suit the model or the clip; the message begins with its name in backticks.
        FloatingPointError: The model computed NaN or infinity.
        GenerationCancelled: `is_cancelled` returned True.
    """
    settings = settings.with_seed()
    size = sampled_size(pipe, *frames.shape[1:3], settings.resize)
    pixels = resize_frames(torch.from_numpy(frames).movedim(-1, 1).float() / 255, size)
    arguments = pipeline_arguments(settings)
    if masks is not None:
        arguments["mask"] = [resize_frames(torch.from_numpy(mask)[:, None], size)[:, 0] for mask in masks]
    if depth is not None:
        arguments["depth"] = resize_frames(depth, size)
    if on_step is not None or is_cancelled is not None:
        arguments["callback_on_step_end"] = step_callback(on_step, is_cancelled)
    generator = torch.Generator("cpu").manual_seed(settings.seed)
    try:
        edited = pipe(pixels, source_prompt, list(prompts), generator=generator, output_type="np", **arguments).frames
    except ValueError as error:
        message = str(error)
        for each in fields(settings):  # the pipeline may have another name for a setting
            message = message.replace(f"`{argument_name(each)}`", f"`{each.name}`")
        raise ValueError(message) from error
    if not np.isfinite(edited).all():
        raise FloatingPointError(f"the model computed NaN in {pipe.unet.dtype}; set `dtype` to float32.")
    described = {
        "source_prompt": source_prompt,
        **settings.as_metadata(),
        **describe_environment(pipe._execution_device),
    }
    texts = prompts if len(edited) == len(prompts) else [" | ".join(prompts)]
    return [Clip(clip, fps, {"edit": text, **described}) for clip, text in zip(edited, texts, strict=True)]


def sampled_size(
    pipe: "LandscapeVideoEditingPipeline", height: int, width: int, resize: int | None = None
) -> tuple[int, int]:
    """Return height and width at which a clip is edited: its aspect ratio, with the model's own shorter side.

    Args:
        resize: Shorter side of the frames that are written; a decoder may enlarge what is sampled.
    """
    enlargement = getattr(pipe.frame_decoder, "enlargement", 1)
    side = min(pipe.clip_size()) if resize is None else max(8, resize // enlargement)
    scale = side / min(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def resize_frames(values: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize (num_frames, channels, height, width) in float32, averaging over what becomes smaller."""
    if tuple(values.shape[-2:]) == size:
        return values
    return F.interpolate(values, size, mode="bicubic", antialias=True).clamp(values.min(), values.max())
