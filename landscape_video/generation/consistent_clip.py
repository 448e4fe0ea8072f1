"""Generate a long clip whose background and objects stay consistent (Consistency tuning), in four modules.

1. Separate tuning generates each frame by the image model, under a condition if there is one (`FrameSampler`).
2. Average fusion averages the backgrounds of some frames in one step (`average_fusion.py`).
3. Combined tuning trains the model on the fused frames. Training is a layer above this file: callers pass `tune`.
4. Inter-frame consistency samples all frames with motion modules, in overlapping windows.

Each module can be switched off in `ConsistentClipSettings`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, UNetMotionModel

from landscape_video.generation.average_fusion import fuse_at_step, fuse_average, sample_votes
from landscape_video.generation.consistent_settings import ConsistentClipSettings
from landscape_video.generation.generate_clip import (
    ClipStream,
    GenerationCancelled,
    OnStep,
    Progress,
    describe_clip,
    stream_frames,
)
from landscape_video.generation.masks import background_of, shrink_mask
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.landscape_denoising import NoisePredictor, denoise
from pipeline_landscape_video.landscape_fast_layers import FastLayers
from pipeline_landscape_video.landscape_frame_noise import FrameNoise
from pipeline_landscape_video.landscape_guidance import guide_by_text
from pipeline_landscape_video.landscape_prompt_schedule import PromptSchedule
from pipeline_landscape_video.landscape_windows import WindowPlan, average_windows, plan_windows


CHUNK = 16  # frames that the VAE takes at once

# Strengths without a condition, which alone keeps the structure of the clip when all starts from noise.
STRENGTH, FINAL_STRENGTH = 0.6, 0.5

ConditionedUNet = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, list[int]], torch.Tensor]
"""`predict(sample, timestep, encoder_hidden_states, frames) -> prediction`: a UNet that sees a condition, which is cut
to the frames of the window. A batch may repeat them for several guidance terms."""


@dataclass(frozen=True)
class SourceClip:
    """Clip that a consistent clip follows.

    Args:
        frames: Frames, (num_frames, 3, height, width) in [0, 1], at the size to sample.
        masks: Share of each pixel that an object covers, (objects, num_frames, height, width); `None` without masks.
    """

    frames: torch.Tensor
    masks: torch.Tensor | None = None


@dataclass(frozen=True)
class TunedPipeline:
    """Result of module 3.

    Args:
        pipe: Tuned pipeline.
        background_weight: Weight w_b of the fusion, if it was learned.
        foreground_weight: Weight w_f, likewise.
    """

    pipe: LandscapeVideoPipeline
    background_weight: float = 1.0
    foreground_weight: float = 1.0


@dataclass(frozen=True)
class Modules:
    """What the modules need besides the pipeline.

    Args:
        condition: Function from the pipeline to the UNet under a condition; `None` without a condition.
        segment: Function from frames, (num_frames, 3, height, width) in [0, 1], to the masks of a clip that has none.
        tune: Function from latents, (num_frames, channels, h, w), and the background, (num_frames, 1, h, w), to the
            tuned pipeline; `None` skips module 3.
        on_module: Called with the name of each module when it begins.
    """

    condition: Callable[[LandscapeVideoPipeline], ConditionedUNet] | None = None
    segment: Callable[[torch.Tensor], torch.Tensor] | None = None
    tune: Callable[[torch.Tensor, torch.Tensor], "TunedPipeline"] | None = None
    on_module: Callable[[str], None] = lambda name: None


def scaled_size(given_height: int, given_width: int, height: int, width: int) -> tuple[tuple[int, int], float]:
    """Return the size at which frames cover height x width, and their scale."""
    scale = max(height / given_height, width / given_width)
    return (max(height, round(scale * given_height)), max(width, round(scale * given_width))), scale


def fit_frames(frames: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Scale frames or masks, (num_frames, channels, h, w) in [0, 1], and crop two sides; nothing is distorted."""
    size, _ = scaled_size(*frames.shape[2:], height, width)
    if size != tuple(frames.shape[2:]):
        scaled = [F.interpolate(chunk, size, mode="bicubic", antialias=True) for chunk in frames.split(CHUNK)]
        frames = torch.cat(scaled).clamp(0, 1)
    top, left = (size[0] - height) // 2, (size[1] - width) // 2
    return frames[:, :, top : top + height, left : left + width]


@contextmanager
def without_motion(unet: UNetMotionModel) -> Iterator[None]:
    """Let a motion UNet compute what its image model computes, in a block: motion modules return their input."""

    def skip(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        return hidden_states

    modules = [module for module in unet.modules() if isinstance(module, AnimateDiffTransformer3D)]
    before = [module.__dict__.get("forward") for module in modules]
    for module in modules:
        module.forward = skip
    try:
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            del module.forward
            if forward is not None:
                module.forward = forward


@torch.no_grad()
def consistent_clip(
    pipe: LandscapeVideoPipeline,
    source: SourceClip,
    prompt: str | dict[int, str],
    settings: ConsistentClipSettings,
    modules: Modules = Modules(),
    on_step: OnStep | None = None,
    is_cancelled: Callable[[], bool] | None = None,
) -> ClipStream:
    """Consistency tuning Eqs. 1-19: generate a clip that follows `source` and shows `prompt`.

    Args:
        pipe: Pipeline with motion modules.
        source: Clip to follow.
        prompt: What to show; or prompts by the frame at which they begin.
        settings: How to generate it; a seed is drawn if it has none.
        modules: What the modules need besides.
        on_step: Called after each denoising step; `Progress.stage` counts the modules from 0.
        is_cancelled: Asked after each denoising step whether to stop.

    Returns:
        The clip, whose frames are decoded when they are read.

    Raises:
        ValueError: A setting does not suit the model or the clip; the message begins with its name in backticks.
        GenerationCancelled: `is_cancelled` returned True.
    """
    has_condition = modules.condition is not None
    settings = replace(
        settings.with_seed().filled_in(pipe.resolve_sampling()),
        num_frames=len(source.frames),
        height=source.frames.shape[2],
        width=source.frames.shape[3],
        strength=settings.strength or (1.0 if has_condition else STRENGTH),
        final_strength=settings.final_strength or (1.0 if has_condition else FINAL_STRENGTH),
    )
    if settings.fuse and source.masks is None and modules.segment is None:
        raise ValueError("`masks` must be given to fuse backgrounds, got none; or switch this module off with `fuse`.")
    sampler = FrameSampler(pipe, prompt, settings, modules.condition, on_step, is_cancelled)

    learns = settings.fuse and settings.learn_fusion_weights and modules.tune is not None

    # Module 1, Eq. 1: frames, and their noisy latents at the step of the fusion
    modules.on_module("separate tuning" if settings.separate else "encoding")
    clean = sampler.encode(source.frames)
    begin, middle, end = sampler.steps(settings.strength)
    noisy = sampler.add_noise(clean, middle)
    if settings.separate:
        noisy = sampler.run(sampler.add_noise(clean, begin), begin, middle)
        if learns or not settings.fuse or source.masks is None:
            clean = sampler.run(noisy, middle, end)
    # Eq. 9: masks, of the frames that were just generated unless they are given
    masks = source.masks
    if masks is None and modules.segment is not None:
        masks = modules.segment(decode_latents(pipe, clean))
    background = torch.ones_like(clean[0, :1]).transpose(0, 1)
    if masks is not None:
        background = shrink_mask(background_of(masks), *clean.shape[-2:]).to(clean)

    # Module 2, Eqs. 10-12
    if settings.fuse and not learns:
        modules.on_module("average fusion")
        clean = sampler.run(sampler.fuse(noisy, middle, background), middle, end)

    # Module 3, Eqs. 13-16
    if modules.tune is not None:
        modules.on_module("combined tuning")
        with torch.enable_grad():
            tuned = modules.tune(clean[0].transpose(0, 1), background)
        pipe = tuned.pipe
        if learns:
            weights = {"background_weight": tuned.background_weight, "foreground_weight": tuned.foreground_weight}
            settings = replace(settings, **weights)
        sampler = FrameSampler(pipe, prompt, settings, modules.condition, on_step, is_cancelled)
        if learns:
            modules.on_module("average fusion")
            clean = sampler.run(sampler.fuse(noisy, middle, background), middle, end)

    # Module 4, Eqs. 17-19
    if settings.windows:
        modules.on_module("inter-frame consistency")
        begin, _, end = sampler.steps(settings.final_strength)
        clean = sampler.run(sampler.add_noise(clean, begin), begin, end, module=3)
    metadata = describe_clip(pipe, settings, {"prompt": prompt})
    scale = getattr(pipe.frame_decoder, "enlargement", 1)
    size, frames = (scale * settings.height, scale * settings.width), stream_frames(pipe, settings, clean)
    return ClipStream(frames, settings.num_output_frames, size, settings.frame_rate, metadata)


def decode_latents(pipe: LandscapeVideoPipeline, latents: torch.Tensor) -> torch.Tensor:
    """Decode latents of one clip by the VAE, to (num_frames, 3, height, width) in [0, 1] on the CPU."""
    chunks = [pipe.decode_latents(chunk, CHUNK)[0].transpose(0, 1).cpu() for chunk in latents.split(CHUNK, dim=2)]
    return (torch.cat(chunks) / 2 + 0.5).clamp(0, 1)


class FrameSampler:
    """Denoise the frames of a clip between any two steps; without motion modules, each frame by itself.

    Args:
        condition: See `Modules`.

    Other arguments are those of `consistent_clip`, with all settings filled in.
    """

    def __init__(
        self,
        pipe: LandscapeVideoPipeline,
        prompt: str | dict[int, str],
        settings: ConsistentClipSettings,
        condition: Callable[[LandscapeVideoPipeline], ConditionedUNet] | None = None,
        on_step: OnStep | None = None,
        is_cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self.pipe, self.settings = pipe, settings
        self.on_step, self.is_cancelled = on_step, is_cancelled
        shape = pipe.latent_shape(1, settings.num_frames, settings.height, settings.width)
        self.plan = plan_windows(
            pipe,
            shape,
            settings.context_length,
            settings.context_overlap,
            settings.context_schedule,
            settings.context_weights,
            settings.closed_loop,
        )
        self.image_plan = WindowPlan(settings.num_frames, self.plan.window, 0, "static", "flat")
        self.prompts = PromptSchedule(
            prompt, settings.negative_prompt, 1, self.plan, settings.transition, settings.prompt_per_window
        )
        # DDIM with eta=1 is the DDPM of the paper. The fusion needs its predicted clean latents.
        betas = {} if settings.beta_schedule is None else {"beta_schedule": settings.beta_schedule}
        self.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, **betas)
        self.scheduler.set_timesteps(settings.steps, device=pipe._execution_device)
        self.timesteps = self.scheduler.timesteps[self.scheduler.timesteps >= 0]
        # What `pipe(...)` sets, and guidance and prompt encoding read.
        pipe._guidance_scale, pipe._clip_skip, pipe._cross_attention_kwargs = settings.guidance_scale, None, None
        with pipe.accelerated_models(FastLayers), torch.no_grad():
            self.embeds = pipe.encode_for_frames(self.prompts, None, None)["prompt_embeds"]
        self.unet = _call_unet(pipe) if condition is None else condition(pipe)
        generator = torch.Generator("cpu").manual_seed(settings.seed)
        self.noise = FrameNoise(generator, settings.num_frames)
        self.generator = generator
        self.start = self.noise.draw(shape, pipe._execution_device, self.embeds.dtype)
        if settings.frame_noise == "shared":
            self.start = self.start[:, :, :1].expand(shape)

    def steps(self, strength: float) -> tuple[int, int, int]:
        """Return the indices of the first step at this strength, of the fusion, and the number of steps."""
        end = len(self.timesteps)
        begin = min(end - 1, round((1 - strength) * end))
        return begin, min(end - 1, begin + round(self.settings.fusion_step * (end - begin))), end

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Encode frames in [0, 1], (num_frames, 3, height, width), to latents (1, channels, num_frames, ...)."""
        return self.pipe.encode_clip(frames, CHUNK).to(self.start)

    def add_noise(self, clean: torch.Tensor, step: int) -> torch.Tensor:
        """Consistency tuning Eq. 3: return noisy latents at the beginning of a step; each frame has its own noise."""
        if step == 0:
            return self.start * self.scheduler.init_noise_sigma
        return self.scheduler.add_noise(clean, self.start, self.timesteps[step : step + 1])

    def run(self, latents: torch.Tensor, begin: int, end: int, module: int = 0) -> torch.Tensor:
        """Consistency tuning Eq. 8: denoise from the beginning of a step to that of another one."""
        if begin == end:
            return latents
        kwargs = {"eta": min(self.settings.eta, 1 - 1e-6), "generator": self.generator}

        def after_step(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
            if self.on_step is not None:
                self.on_step(Progress(self.pipe, module, step, end - begin, latents))
            if self.is_cancelled is not None and self.is_cancelled():
                raise GenerationCancelled("generation was cancelled.")
            return latents

        with self.models(module):
            return denoise(
                self.scheduler,
                latents,
                self.timesteps[begin:end],
                self.predictor(begin, module),
                self.noise.step_kwargs(self.scheduler, kwargs),
                after_step,
                num_inference_steps=end - begin,
                progress_bar=self.pipe.progress_bar,
                is_interrupted=lambda: False,
            )

    def fuse(self, latents: torch.Tensor, step: int, background: torch.Tensor) -> torch.Tensor:
        """Consistency tuning Eqs. 10-11: return the fused noisy latents at the beginning of a step."""
        settings = self.settings
        votes = sample_votes(settings.num_frames, settings.fusion_frames, torch.Generator().manual_seed(settings.seed))
        fuse = partial(
            fuse_average,
            background=background,
            votes=votes.to(latents.device),
            background_weight=settings.background_weight,
            foreground_weight=settings.foreground_weight,
        )
        timestep = self.timesteps[step]
        with self.models():
            prediction = self.predictor(step)(latents, timestep, 0)
        return fuse_at_step(self.scheduler, latents, prediction, timestep, fuse, settings.fusion_space)

    @contextmanager
    def models(self, module: int = 0) -> Iterator[None]:
        """Run the models accelerated, and without motion before module 4."""
        motion = nullcontext() if module == 3 else without_motion(self.pipe.unet)
        with motion, self.pipe.accelerated_models(FastLayers):
            yield

    def predictor(self, begin: int, module: int = 0) -> NoisePredictor:
        """Return the guided predictor of all frames: in windows in module 4, else frame by frame in chunks."""

        def predictor_for(frames: list[int]) -> NoisePredictor:
            def predict(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
                embeds = self.prompts.select(self.embeds, frames, self.pipe.guidance_terms)
                return self.unet(latents, timestep, embeds, frames)

            return guide_by_text(predict, self.pipe)

        predict = average_windows(self.plan if module == 3 else self.image_plan, predictor_for)
        return lambda latents, timestep, step: predict(latents, timestep, begin + step)


def _call_unet(pipe: LandscapeVideoPipeline) -> ConditionedUNet:
    def predict(sample: torch.Tensor, timestep: torch.Tensor, embeds: torch.Tensor, frames: list[int]) -> torch.Tensor:
        return pipe.unet(sample, timestep, encoder_hidden_states=embeds).sample

    return predict
