"""Generate a handscroll: a long landscape, a camera that pans along it, and what moves in it meanwhile.

    pipe = load_pipeline(ModelSettings())
    scroll = generate_scroll(pipe, "a river between blue-green mountains, mist drifting right", ScrollSettings())
    write_video("scroll.mp4", scroll.clip.frames, scroll.clip.fps)
    scroll.picture.save("scroll.png")

Frames are strips of one canvas (`camera_path.py`). All of them are denoised together, in windows over time and over
the width of the canvas, which move in every step. A window stays where it is on the canvas, so the model generates a
clip of a camera that stands still. The camera moves only when frames are cut out of their strips.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from diffusers import SchedulerMixin
from PIL import Image

from landscape_video.generation.camera_path import MARGIN, CameraPath
from landscape_video.generation.generate_clip import ClipStream, GenerationCancelled, describe_clip
from landscape_video.generation.presets import use_preset
from landscape_video.generation.scroll_fusion import hold_still, picture_of, shift_colors
from landscape_video.generation.scroll_settings import ScrollSettings
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.interpolation import interpolate_frames
from pipeline_landscape_video.landscape_color_anchor import ANCHOR_UNTIL
from pipeline_landscape_video.landscape_denoising import denoise
from pipeline_landscape_video.landscape_editing import signal_and_spread, split_prediction
from pipeline_landscape_video.landscape_fast_layers import FastLayers
from pipeline_landscape_video.landscape_frame_noise import FrameNoise
from pipeline_landscape_video.landscape_guidance import guide_by_text
from pipeline_landscape_video.landscape_prompt_schedule import PromptSchedule
from pipeline_landscape_video.landscape_windows import WindowPlan, window_weights


CAMERA = "a still camera"  # added to every prompt: windows stay where they are on the canvas
DEFAULTS = ScrollSettings()


@dataclass(frozen=True)
class Scroll:
    """A generated handscroll.

    Args:
        clip: The video; its frames are decoded when they are read.
        picture: The whole scroll, each part as it is when the camera faces it.
    """

    clip: ClipStream
    picture: Image.Image


@torch.no_grad()
def generate_scroll(
    pipe: LandscapeVideoPipeline,
    prompt: str | dict[float, str],
    settings: ScrollSettings = DEFAULTS,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> Scroll:
    """Generate a handscroll.

    Args:
        pipe: A loaded pipeline, see `load_pipeline`.
        prompt: What to show; or prompts by the share of the scroll at which they begin, `{0: "snow", 0.5: "rain"}`.
        settings: How to generate it; a seed is drawn if it has none.
        is_cancelled: Asked before each window whether to stop.

    Raises:
        ValueError: A setting does not suit the model; the message begins with the setting's name in backticks.
        GenerationCancelled: `is_cancelled` returned True.
    """
    with use_preset(pipe, settings):
        settings = settings.with_seed().filled_in(pipe.resolve_sampling())
        sampler = ScrollSampler(pipe, prompt, settings, is_cancelled)
        strips = sampler.run()
    decoder = ScrollDecoder(pipe, sampler.path, settings)
    metadata = describe_clip(pipe, settings, {"prompt": prompt})
    clip = ClipStream(decoder.frames(strips), decoder.num_frames, decoder.size, settings.frame_rate, metadata)
    return Scroll(clip, decoder.picture(picture_of(strips, sampler.path)))


def describe_scroll(pipe: LandscapeVideoPipeline, settings: ScrollSettings) -> str:
    """Return a line with what `generate_scroll` will make, and in how many windows."""
    path = plan_scroll(pipe, settings)
    windows = sum(1 for _ in windows_of(path, pipe, step=0))
    return (
        f"{path.canvas * path.unit} pixels of scroll, {path.num_frames} frames that move by"
        f" {path.left(path.num_frames - 1) / max(1, path.num_frames - 1):.3g} pixels, {windows} windows a step"
    )


def plan_scroll(pipe: LandscapeVideoPipeline, settings: ScrollSettings) -> CameraPath:
    """Return the way of the camera for settings. Raises `ValueError` if the motion is too fast or sizes do not fit."""
    unit = pipe.vae_scale_factor * getattr(pipe.frame_decoder, "enlargement", 1)
    side = pipe.unet.config.sample_size
    view = 2 * side if settings.width is None else settings.width // unit
    return CameraPath(round(settings.length * view), view, settings.num_video_frames, unit)


def windows_of(path: CameraPath, pipe: LandscapeVideoPipeline, step: int) -> Iterator[tuple[list[int], list[int]]]:
    """Consistency tuning Eq. 18 over time and width: yield frames and columns of the canvas of each window."""
    duration, side = min(16, pipe.max_num_frames), pipe.unet.config.sample_size
    for frames in WindowPlan(path.num_frames, duration, duration // 4).windows(step):
        first, end = path.first(frames[0]), path.first(frames[-1]) + path.strip
        for columns in WindowPlan(end - first, side, side // 4).windows(step):
            yield frames, [first + column for column in columns]


class ScrollSampler:
    """Denoise the strips of all frames together.

    Arguments are those of `generate_scroll`, with all settings filled in.
    """

    def __init__(
        self,
        pipe: LandscapeVideoPipeline,
        prompt: str | dict[float, str],
        settings: ScrollSettings,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> None:
        self.pipe, self.settings, self.is_cancelled = pipe, settings, is_cancelled
        self.path = path = plan_scroll(pipe, settings)
        # The prompts over time of a clip, with the columns of the canvas in place of its frames
        self.prompts = PromptSchedule(
            columns_of(prompt, path.canvas), settings.negative_prompt, 1, WindowPlan(path.canvas, 1, 0)
        )
        # What `pipe(...)` sets, and guidance and prompt encoding read
        pipe._guidance_scale, pipe._clip_skip, pipe._cross_attention_kwargs = settings.guidance_scale, None, None
        with pipe.accelerated_models(FastLayers):
            self.embeds = pipe.encode_for_frames(self.prompts, None, None)["prompt_embeds"]
        check_scheduler(pipe.scheduler)
        pipe.scheduler.set_timesteps(settings.steps, device=pipe._execution_device)
        self.noise = FrameNoise(torch.Generator("cpu").manual_seed(settings.seed), path.num_frames)

    @torch.no_grad()
    def run(self) -> torch.Tensor:
        """Return the clean strips of all frames, (num_frames, strip, channels, height)."""
        pipe, path, settings = self.pipe, self.path, self.settings
        shape = pipe.latent_shape(1, path.num_frames, pipe.clip_size(settings.height)[0], 8)
        latents = self.noise.draw((*shape[:4], path.strip), pipe._execution_device, self.embeds.dtype)
        total = sum(1 for step in range(settings.steps) for _ in windows_of(path, pipe, step))
        kwargs = pipe.prepare_extra_step_kwargs(self.noise.blocks[0], settings.eta)
        with pipe.accelerated_models(FastLayers), pipe.progress_bar(total=total) as bar:
            latents = denoise(
                pipe.scheduler,
                latents * pipe.scheduler.init_noise_sigma,
                pipe.scheduler.timesteps,
                lambda *state: self.predict(*state, bar.update),
                self.noise.step_kwargs(pipe.scheduler, kwargs),
                lambda latents, timestep, step: latents,
                num_inference_steps=settings.steps,
                progress_bar=lambda total: nullcontext(SimpleNamespace(update=lambda: None)),  # the bar counts windows
                is_interrupted=lambda: False,
            )
        return latents[0].permute(1, 3, 0, 2)

    def predict(
        self, latents: torch.Tensor, timestep: torch.Tensor, step: int, on_window: Callable[[], Any]
    ) -> torch.Tensor:
        """Consistency tuning Eqs. 17-19 over time and width: average the predictions of all windows, then fuse."""
        strips = latents[0].permute(1, 3, 0, 2)  # frames and columns first, so that windows index them
        total, norm = torch.zeros_like(strips, dtype=torch.float32), torch.zeros(strips.shape[:2])
        for frames, columns in windows_of(self.path, self.pipe, step):
            if self.is_cancelled():
                raise GenerationCancelled("generation was cancelled.")
            numbers, places = self.path.locate(frames, columns)
            window = strips[numbers, places].permute(2, 0, 3, 1)[None]
            noise_pred = self.predictor(len(frames), columns)(window, timestep, step)[0].permute(1, 3, 0, 2)
            weight = pyramid(len(frames))[:, None] * pyramid(len(columns))
            own = numbers == torch.tensor(frames)[:, None]
            index = (numbers[own], places[own])
            total.index_put_(index, noise_pred[own].float() * weight[own][:, None, None], accumulate=True)
            norm.index_put_(index, weight[own], accumulate=True)
            on_window()
        prediction = (total / norm[:, :, None, None]).permute(2, 0, 3, 1)[None].to(latents)
        return self.fuse(prediction, latents, timestep)

    def predictor(self, num_frames: int, columns: list[int]) -> Callable[..., torch.Tensor]:
        """Return the guided predictor of a window. Its prompt is that of its middle column."""
        pipe = self.pipe
        middle = [columns[len(columns) // 2]] * num_frames

        def predict(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
            embeds = self.prompts.select(self.embeds, middle, pipe.guidance_terms)
            latents = pipe.scheduler.scale_model_input(latents, timestep)
            return pipe.unet(latents, timestep, encoder_hidden_states=embeds).sample

        return guide_by_text(predict, pipe)

    def fuse(self, prediction: torch.Tensor, latents: torch.Tensor, timestep: torch.Tensor) -> torch.Tensor:
        """Consistency tuning Eq. 10: return the prediction whose clean latents stand still and share their colors."""
        scheduler = self.pipe.scheduler
        clean, _ = split_prediction(scheduler, prediction, latents, timestep)
        signal, spread = signal_and_spread(scheduler, timestep, latents)
        strips = clean[0].permute(1, 3, 0, 2).float()
        if signal <= ANCHOR_UNTIL:
            strips = shift_colors(strips, self.path, self.prompts.shares[0][0])
        strips = hold_still(strips, self.path, self.settings.stillness * signal)
        fused = strips.permute(2, 0, 3, 1)[None].to(latents)
        if scheduler.config.prediction_type == "v_prediction":
            return (signal * latents - fused) / spread
        return (latents - signal * fused) / spread


def check_scheduler(scheduler: SchedulerMixin) -> None:
    """Raise `ValueError` if the clean latents that a prediction implies cannot be told."""
    is_known = scheduler.config.prediction_type in ("epsilon", "v_prediction")
    if not is_known or scheduler.init_noise_sigma != 1 or not hasattr(scheduler, "alphas_cumprod"):
        raise ValueError(
            f"`preset` must have a scheduler like DDIM or DPM-Solver for a scroll, got {type(scheduler).__name__}."
        )


def columns_of(prompt: str | dict[float, str], canvas: int) -> dict[int, str]:
    """Return the prompts by the column at which they begin, each with `CAMERA`.

    Raises:
        ValueError: A key is not from 0 to below 1, or two keys are less than a column apart.
    """
    prompts = {0: prompt} if isinstance(prompt, str) else prompt
    for key in prompts:
        if not 0 <= key < 1:
            raise ValueError(f"`prompts_along` must begin at shares of the scroll from 0 to below 1, got {key}.")
    return {int(key * canvas): f"{text}, {CAMERA}" for key, text in prompts.items()}


def pyramid(size: int) -> torch.Tensor:
    """Return the weights of a window, 1, 2, ..., 2, 1."""
    return window_weights(WindowPlan(size, size, 0), (1, 1, size)).flatten()


class ScrollDecoder:
    """Decode strips to frames and to the picture of the whole scroll.

    Args:
        pipe: Pipeline that generated the strips.
        path: Way of the camera.
        settings: Whether and how to interpolate.
    """

    def __init__(self, pipe: LandscapeVideoPipeline, path: CameraPath, settings: ScrollSettings) -> None:
        self.pipe, self.path, self.settings = pipe, path, settings
        height = pipe.clip_size(settings.height)[0] * getattr(pipe.frame_decoder, "enlargement", 1)
        self.size = (height, path.view * path.unit)
        self.num_frames = 2 * path.num_frames - 1 if settings.interpolate else path.num_frames

    @torch.no_grad()
    def decode(self, strip: torch.Tensor) -> torch.Tensor:
        """Decode a strip, (columns, channels, height), to pixels (3, height, width) in [0, 1]."""
        with self.pipe.accelerated_models(FastLayers):
            return self.pipe.decode_frames(strip.permute(1, 2, 0)[None, :, None], 1)[0, :, 0]

    def view(self, pixels: torch.Tensor, frame: int, time: float) -> torch.Tensor:
        """Cut the view at a time out of a decoded strip."""
        left = self.path.left(time) - self.path.first(frame) * self.path.unit
        return pixels[..., left : left + self.size[1]]

    @torch.no_grad()
    def frames(self, strips: torch.Tensor) -> Iterator[torch.Tensor]:
        """Yield the frames of the video, and between two of them one that is interpolated on the canvas."""
        settings = self.settings
        before = None
        for frame, strip in enumerate(strips):
            pixels = self.decode(strip)
            if settings.interpolate and before is not None:
                flow_estimator = self.pipe.get_flow_estimator(settings.flow, settings.flow_weights)
                pair = torch.stack([self.view(before, frame - 1, frame - 0.5), self.view(pixels, frame, frame - 0.5)])
                yield interpolate_frames(pair, flow_estimator, settings.sofp_mode)[1]
            yield self.view(pixels, frame, frame)
            before = pixels

    def picture(self, latents: torch.Tensor) -> Image.Image:
        """Decode the whole scroll, (channels, height, canvas), in overlapping parts as wide as a strip."""
        path = self.path
        plan = WindowPlan(path.canvas, path.strip, path.strip // 2, "static")
        total = torch.zeros(3, self.size[0], path.canvas * path.unit)
        norm = torch.zeros(path.canvas * path.unit)
        weight = pyramid(path.strip)
        if path.canvas > path.strip:
            sides = 1e-6 ** torch.arange(MARGIN, 0, -1.0)  # they are decoded without their neighbors
            weight[:MARGIN], weight[-MARGIN:] = sides, sides.flip(0)
        weight = weight.repeat_interleave(path.unit)
        for window in plan.windows(0):
            part = slice(window[0] * path.unit, (window[-1] + 1) * path.unit)
            total[..., part] += self.decode(latents[..., window].permute(2, 0, 1)).float().cpu() * weight
            norm[part] += weight
        pixels = (total / norm).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy()
        return Image.fromarray(pixels)
