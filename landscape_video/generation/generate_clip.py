"""Generate clips with metadata from a prompt or an image, and settings.

    pipe = load_pipeline(ModelSettings())
    clip = generate_clip(pipe, "mist over a lake", TextToVideoSettings(num_frames=8, seed=7))
    write_video("mist.mp4", clip.frames, clip.fps, clip.metadata)

`generate_clip` and `animate_clip` generate one clip. `stream_clip` decodes and interpolates while the frames are
written, so memory does not grow with the number of frames. All of them call `run_pipeline`, which can also generate
several clips in one batch. All calls of our pipelines go through it.
"""

import platform
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from itertools import chain, count, islice
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from landscape_video.generation.presets import use_preset
from landscape_video.generation.setting_fields import argument_name, pipeline_arguments
from landscape_video.generation.settings import ImageToVideoSettings, TextToVideoSettings
from pipeline_landscape_video import FlowEstimator, LandscapeImageToVideoPipeline, LandscapeVideoPipeline
from pipeline_landscape_video.interpolation import interpolate_stream
from pipeline_landscape_video.landscape_fast_layers import FastLayers
from pipeline_landscape_video.landscape_optical_flow import RAFTFlowEstimator


# Packages whose versions affect the frames; av contains the encoder of .mp4.
PACKAGES = "landscape-video torch torchvision diffusers transformers peft numpy opencv-python av".split()

DECODE_CHUNK = 16  # frames decoded at once, as in the pipelines

TEXT_DEFAULTS, IMAGE_DEFAULTS = TextToVideoSettings(), ImageToVideoSettings()

Pipeline = LandscapeVideoPipeline | LandscapeImageToVideoPipeline


class GenerationCancelled(Exception):
    """The caller asked to stop between two denoising steps."""


@dataclass(frozen=True)
class Clip:
    """A generated clip.

    Args:
        frames: float32 `(num_frames, height, width, 3)` in [0, 1].
        fps: Frames per second.
        metadata: Prompt, seed, settings, device and versions, as JSON-compatible values that reproduce the clip.
    """

    frames: np.ndarray
    fps: float
    metadata: dict[str, Any]

    @property
    def num_frames(self) -> int:
        """Number of frames."""
        return len(self.frames)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the frames."""
        return self.frames.shape[1:3]


@dataclass(frozen=True)
class ClipStream:
    """A generated clip whose frames are decoded when they are read.

    Args:
        frames: Frames `(3, height, width)` in [0, 1], once.
        num_frames: Number of frames.
        size: Height and width of the frames.
        fps: Frames per second.
        metadata: See `Clip`.
    """

    frames: Iterator[torch.Tensor]
    num_frames: int
    size: tuple[int, int]
    fps: float
    metadata: dict[str, Any]


@dataclass(frozen=True)
class Progress:
    """The state after a denoising step, for `on_step`.

    Args:
        pipe: The pipeline at work.
        stage: Stage of an image-to-video clip, from 0 on.
        step: Step of the stage, from 0 on.
        num_steps: Steps of a stage.
        latents: Noisy latents `(batch, channels, num_frames, height / 8, width / 8)`.
    """

    pipe: Pipeline
    stage: int
    step: int
    num_steps: int
    latents: torch.Tensor

    @torch.no_grad()
    def preview(self) -> np.ndarray:
        """The middle frame of the first clip as it is now, uint8 `(height, width, 3)`; costs one decoded frame."""
        middle = self.latents.shape[2] // 2
        frame = self.pipe.decode_latents(self.latents[:1, :, middle : middle + 1], 1)[0, :, 0]
        pixels = (frame / 2 + 0.5).clamp(0, 1).mul(255).round()  # the VAE decodes to [-1, 1]
        return pixels.permute(1, 2, 0).to("cpu", torch.uint8).numpy()


OnStep = Callable[[Progress], None]


def generate_clip(
    pipe: LandscapeVideoPipeline,
    prompt: str | dict[int, str],
    settings: TextToVideoSettings = TEXT_DEFAULTS,
    on_step: OnStep | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Clip:
    """Generate a clip from a prompt.

    Args:
        pipe: A loaded pipeline, see `load_pipeline`.
        prompt: What to generate; or prompts by the frame at which they begin, `{0: "mist", 48: "rain"}`.
        settings: How to generate it; a seed is drawn if it has none.
        on_step: Called after each denoising step.
        is_cancelled: Asked after each denoising step whether to stop.

    Raises:
        ValueError: A setting does not suit the model; the message begins with the setting's name in backticks.
        FloatingPointError: The model computed NaN or infinity.
        GenerationCancelled: `is_cancelled` returned True.
    """
    return _make_clip(pipe, settings, on_step, is_cancelled, {"prompt": prompt}, prompt=prompt)


@torch.no_grad()
def stream_clip(
    pipe: LandscapeVideoPipeline,
    prompt: str | dict[int, str],
    settings: TextToVideoSettings = TEXT_DEFAULTS,
    on_step: OnStep | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> ClipStream:
    """Generate a clip as `generate_clip` does, but decode and interpolate its frames when they are read.

    Arguments, frames and errors are those of `generate_clip`. Errors of decoding and interpolation come when the
    frames are read.
    """
    content = {"prompt": prompt}
    with use_preset(pipe, settings):
        settings = settings.with_seed().filled_in(pipe.resolve_sampling())
        settings.check_memory(is_streamed=True)
        latents = run_pipeline(pipe, settings, [settings.seed], on_step, is_cancelled, "latent", **content)
    height, width = pipe.clip_size(settings.height, settings.width)
    enlargement = getattr(pipe.frame_decoder, "enlargement", 1)
    size = (enlargement * height, enlargement * width)
    frames = stream_frames(pipe, settings, latents)
    metadata = describe_clip(pipe, settings, content)
    return ClipStream(frames, settings.num_output_frames, size, settings.frame_rate, metadata)


def animate_clip(
    pipe: LandscapeImageToVideoPipeline,
    image: Image.Image | torch.Tensor | np.ndarray,
    prompts: Sequence[str] = (),
    settings: ImageToVideoSettings = IMAGE_DEFAULTS,
    on_step: OnStep | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> Clip:
    """Generate a clip that begins with an image.

    Args:
        image: PIL image of any size, or a tensor or array as `images_to_tensor` takes it.
        prompts: What moves, and how: one prompt for each stage, each of which begins with the last frame of the one
            before. Without prompts, there is one stage, guided by the image alone.

    Other arguments and errors are those of `generate_clip`.
    """
    prompts = list(prompts)
    content = {"prompts": prompts} if len(prompts) > 1 else {"prompt": prompts[0] if prompts else None}
    return _make_clip(pipe, settings, on_step, is_cancelled, {"prompts": prompts or [None]}, image=image, **content)


def run_pipeline(
    pipe: Pipeline,
    settings: TextToVideoSettings,
    seeds: Sequence[int],
    on_step: OnStep | None = None,
    is_cancelled: Callable[[], bool] | None = None,
    output_type: Literal["np", "pt", "latent"] = "np",
    **content: Any,
) -> np.ndarray | torch.Tensor:
    """Call a pipeline of ours with settings, for one clip or a batch.

    The noise of each clip is drawn on the CPU from its own generator, so it depends neither on the device nor on the
    other clips of the batch.

    Args:
        pipe: The pipeline.
        settings: How to generate; its seed is not used.
        seeds: One for each clip.
        output_type: See the pipeline's call.
        content: What to generate, as keywords of the pipeline's call: `prompt`, `prompts`, `image`; they override
            settings of the same name.

    Returns:
        `(batch, num_frames, height, width, 3)` in [0, 1] for "np"; see the pipeline's call for other output types.

    Raises:
        ValueError, GenerationCancelled: As `generate_clip`.
    """
    arguments = pipeline_arguments(settings)
    if settings.interpolate and output_type != "latent":
        arguments["flow_estimator"] = pipe.get_flow_estimator(settings.flow, settings.flow_weights)
    if on_step is not None or is_cancelled is not None:
        arguments["callback_on_step_end"] = step_callback(on_step, is_cancelled)
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    generator = generators[0] if len(generators) == 1 else generators
    try:
        with use_preset(pipe, settings):
            return pipe(**(arguments | content), generator=generator, output_type=output_type).frames
    except ValueError as error:
        message = str(error)
        for each in fields(settings):  # the pipeline may have another name for a setting
            message = message.replace(f"`{argument_name(each)}`", f"`{each.name}`")
        raise ValueError(message) from error


def flow_estimator_name(flow_estimator: FlowEstimator) -> str:
    """Return the value of the setting `flow` for an estimator, also for one that was chosen automatically."""
    if not isinstance(flow_estimator, RAFTFlowEstimator):
        return "dis"
    return "raft-small" if flow_estimator.model.mask_predictor is None else "raft"


def describe_environment(device: torch.device) -> dict[str, Any]:
    """Return what affects the frames besides prompt, seed and settings: device, threads and versions."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:  # run from a checkout
            continue
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {"device": str(device), "device_name": name, "threads": torch.get_num_threads(), "versions": versions}


def _make_clip(
    pipe: Pipeline,
    settings: TextToVideoSettings,
    on_step: OnStep | None,
    is_cancelled: Callable[[], bool] | None,
    described: dict[str, Any],
    **content: Any,
) -> Clip:
    """Run the pipeline for one clip; `described` is the content as the metadata records it."""
    with use_preset(pipe, settings):
        settings = settings.with_seed().filled_in(pipe.resolve_sampling())
        settings.check_memory(stages=len(content.get("prompts") or [None]))
        frames = run_pipeline(pipe, settings, [settings.seed], on_step, is_cancelled, **content)[0]
    _check_finite(pipe, np.isfinite(frames).all())
    return Clip(frames, settings.frame_rate, describe_clip(pipe, settings, described))


def _check_finite(pipe: Pipeline, is_finite: bool) -> None:
    if not is_finite:
        raise FloatingPointError(f"the model computed NaN in {_dtype_of(pipe)}; set `dtype` to float32.")


def _dtype_of(pipe: Pipeline) -> str:
    return str(pipe.unet.dtype).removeprefix("torch.")


def describe_clip(pipe: Pipeline, settings: TextToVideoSettings, described: dict[str, Any]) -> dict[str, Any]:
    """Return what reproduces a clip: what it was made from, settings, device and versions."""
    height, width = pipe.clip_size(settings.height, settings.width)
    metadata = described | settings.as_metadata() | describe_environment(pipe._execution_device)
    metadata |= {"height": height, "width": width, "dtype": _dtype_of(pipe), "optimize": pipe.is_optimized}
    if not settings.interpolate:
        return metadata | {"sofp_mode": None, "flow": None, "flow_weights": None}
    flow_estimator = pipe.get_flow_estimator(settings.flow, settings.flow_weights)
    return metadata | {"flow": flow_estimator_name(flow_estimator)}


@torch.no_grad()
def stream_frames(pipe: Pipeline, settings: TextToVideoSettings, latents: torch.Tensor) -> Iterator[torch.Tensor]:
    """Decode and interpolate the latents of a clip, chunk by chunk; the frames are those of the pipeline's call."""
    frames = _decode(pipe, latents, pipeline_arguments(settings).get("decode_chunk_size", DECODE_CHUNK))
    if not settings.interpolate:
        yield from frames
        return
    if settings.closed_loop:  # the first frame follows the last one
        first = next(frames)
        frames = chain([first], frames, [first])
    flow_estimator = pipe.get_flow_estimator(settings.flow, settings.flow_weights)
    stream = interpolate_stream(zip(frames, count(), strict=False), flow_estimator, settings.sofp_mode)
    for frame, _ in islice(stream, settings.num_output_frames):
        yield frame


def _decode(pipe: Pipeline, latents: torch.Tensor, chunk_size: int) -> Iterator[torch.Tensor]:
    with pipe.accelerated_models(FastLayers):
        for chunk in latents.split(chunk_size, dim=2):
            frames = pipe.decode_frames(chunk, chunk_size)[0].transpose(0, 1)
            _check_finite(pipe, bool(frames.isfinite().all()))
            yield from frames


def step_callback(on_step: OnStep | None, is_cancelled: Callable[[], bool] | None) -> Callable[..., dict]:
    """The pipeline's `callback_on_step_end` that reports to `on_step` and stops when `is_cancelled` says so."""

    def callback(pipe: Pipeline, step: int, timestep: torch.Tensor, tensors: dict[str, torch.Tensor]) -> dict:
        if on_step is not None:
            on_step(Progress(pipe, getattr(pipe, "stage", 0), step, pipe.num_timesteps, tensors["latents"]))
        if is_cancelled is not None and is_cancelled():
            raise GenerationCancelled("generation was cancelled.")
        return {}

    return callback
