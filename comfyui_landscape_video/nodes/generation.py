"""Generate clips with the models of landscape-video, where that package is installed."""

from typing import Any

import numpy as np
import torch
from comfy.model_management import (
    InterruptProcessingException,
    get_torch_device,
    processing_interrupted,
    throw_exception_if_processing_interrupted,
)
from comfy_api.latest import ComfyAPISync, io
from PIL import Image
from torch import Tensor

from landscape_video.generation.generate_clip import Clip, GenerationCancelled, Progress, animate_clip, generate_clip
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import (
    ImageModelSettings,
    ImageToVideoSettings,
    ModelSettings,
    TextToVideoSettings,
)

from .common import CATEGORY, PREFIX, Recipe, to_bytes


MODEL = io.String.Input(
    "model",
    default=ModelSettings().model,
    tooltip="Pipeline folder, or its name on the Hugging Face Hub. The default is bundled.",
)
SAMPLING = [
    io.Int.Input("num_frames", default=16, min=2, max=512, tooltip="Frames to sample."),
    io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Denoising steps: more take longer and add detail."),
    io.Int.Input(
        "seed",
        default=0,
        min=0,
        max=2**63 - 1,
        control_after_generate=True,
        tooltip="Seed of the noise; the same seed gives the same clip.",
    ),
]
OUTPUTS = [
    io.Image.Output("images", display_name="images"),
    io.Float.Output("fps", display_name="fps"),
    Recipe.Output("recipe", display_name="recipe"),
]

# The pipeline used last, by its settings. A node class cannot hold it: ComfyUI locks classes while nodes run.
_pipelines: dict[str, Any] = {}


class GenerateClip(io.ComfyNode):
    """Prompt to IMAGE, with the recipe that reproduces the clip."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}Generate",
            display_name="Generate Landscape Clip",
            category=CATEGORY,
            description="Generate a landscape-painting clip from a prompt. The frames are sampled ones; connect "
            "Interpolate Frames for more.",
            inputs=[
                io.String.Input(
                    "prompt",
                    multiline=True,
                    default="mist drifting over layered mountains",
                    tooltip="What to generate.",
                ),
                MODEL,
                *SAMPLING,
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def execute(cls, prompt: str, model: str, num_frames: int, steps: int, seed: int) -> io.NodeOutput:
        pipe = find_pipeline(ModelSettings(model=model, device=str(get_torch_device())))
        settings = TextToVideoSettings(num_frames=num_frames, steps=steps, seed=seed, interpolate=False)
        return outputs_of(run_outside_inference_mode(generate_clip, pipe, prompt, settings), model)


class AnimateImage(io.ComfyNode):
    """IMAGE and prompt to IMAGE: a clip that begins with the image."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id=f"{PREFIX}Animate",
            display_name="Animate Landscape Painting",
            category=CATEGORY,
            description="Bring a still painting to life: generate a clip that begins with it.",
            inputs=[
                io.Image.Input("image", tooltip="The painting, of any size; one image."),
                io.String.Input("prompt", multiline=True, default="mist drifting", tooltip="What moves, and how."),
                MODEL,
                *SAMPLING,
            ],
            outputs=OUTPUTS,
        )

    @classmethod
    def execute(cls, image: Tensor, prompt: str, model: str, num_frames: int, steps: int, seed: int) -> io.NodeOutput:
        if len(image) != 1:
            raise ValueError(
                f"`image` must be a single image, got {len(image)}; choose one with Get Image from Batch."
            )
        pipe = find_pipeline(ImageModelSettings(model=model, device=str(get_torch_device())))
        settings = ImageToVideoSettings(num_frames=num_frames, steps=steps, seed=seed, interpolate=False)
        painting = Image.fromarray(to_bytes(image[0, ..., :3]).cpu().numpy())
        prompts = [prompt] if prompt.strip() else []
        return outputs_of(run_outside_inference_mode(animate_clip, pipe, painting, prompts, settings), model)


def find_pipeline(settings: ModelSettings) -> Any:
    """Load a pipeline, unless it is the one used last."""
    key = repr(settings)
    if key not in _pipelines:
        _pipelines.clear()
        with torch.inference_mode(False):
            _pipelines[key] = load_pipeline(settings)
        _pipelines[key].set_progress_bar_config(disable=True)
    return _pipelines[key]


def run_outside_inference_mode(generate: Any, *arguments: Any) -> Clip:
    """
    Generate a clip, show its progress, and stop between two steps if the user asks for it.

    ComfyUI runs nodes in inference mode, whose tensors a cached pipeline must not keep.
    """
    api = ComfyAPISync()

    def on_step(progress: Progress) -> None:
        api.execution.set_progress(progress.step + 1, progress.num_steps)

    try:
        with torch.inference_mode(False):
            return generate(*arguments, on_step=on_step, is_cancelled=processing_interrupted)
    except GenerationCancelled:
        throw_exception_if_processing_interrupted()
        raise InterruptProcessingException() from None


def outputs_of(clip: Clip, model: str) -> io.NodeOutput:
    """Return frames, frame rate and recipe of a clip."""
    return io.NodeOutput(
        torch.from_numpy(np.ascontiguousarray(clip.frames)), clip.fps, {"model": model, **clip.metadata}
    )
