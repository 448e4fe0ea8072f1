"""
Edit a video by words: season, palette and style change; layout, camera and motion stay (one-shot depth tuning).

This file and its relative imports are all the code that a Hub repository needs, as in `pipeline.py`.
"""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    MotionAdapter,
    SchedulerMixin,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.pipelines.animatediff import AnimateDiffPipelineOutput
from PIL import Image
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from .landscape_acceleration import LandscapeAccelerationMixin
from .landscape_denoising import NoisePredictor, call_on_step_end, denoise
from .landscape_editing import (
    check_extent,
    check_invertible,
    combine_regions,
    edit_paired,
    invert,
    keep_outside,
    last_timesteps,
)
from .landscape_fast_layers import FastLayers
from .landscape_frame_noise import FrameNoise
from .landscape_guidance import guide_by_text
from .landscape_motion_attention import build_motion_unet, ensure_motion_config
from .landscape_optical_flow import FlowEstimatorCache
from .landscape_pipeline_mixin import OUTPUT_TYPES, LandscapePipelineMixin, check_choices, check_finite
from .landscape_prompt_schedule import PromptSchedule
from .landscape_sampling import resolve_sampling
from .landscape_scheduler import check_num_inference_steps, warn_about_betas, with_linear_betas
from .landscape_source_clip import SourceClip, check_depth, frames_to_tensor, list_edits, masks_to_tensors, to_latents
from .landscape_spatio_temporal_attention import begin_step, has_spatio_temporal_attention, set_frames
from .landscape_unet_compatibility import check_unet_and_adapter
from .landscape_windows import WindowPlan, average_windows, plan_windows


logger = logging.getLogger(__name__)

EDIT_MODES = ("paired", "inversion")
STRENGTHS = {"paired": 1.0, "inversion": 0.8}  # defaults, measured in docs/editing.md
GOOD_ROUND_TRIP = 30.0  # dB


class LandscapeVideoEditingPipeline(LandscapeAccelerationMixin, LandscapePipelineMixin, AnimateDiffPipeline):
    """
    Pipeline that edits a video by words.

    Its components are those of `LandscapeVideoPipeline`. A UNet with inputs for depth beside the latents gets the
    depth of the clip in every step. Weights that were tuned on the clip make edits more faithful: load them with
    `landscape_spatio_temporal_attention.load_tuned(pipe.unet, file)`.

    Raises:
        ValueError: An image UNet comes without an adapter, or with one that does not fit it.

    Example:
        >>> from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoEditingPipeline
        >>> from pipeline_landscape_video.video_io import read_video
        >>> pipe = LandscapeVideoEditingPipeline.from_pretrained(SHANSHUI_TINY)
        >>> video = read_video("river.mp4").frames
        >>> frames = pipe(video, "a river in summer", "the same river under snow").frames[0]
    """

    _callback_tensor_inputs = ["latents"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel | UNetMotionModel,
        motion_adapter: MotionAdapter,
        scheduler: SchedulerMixin,
        feature_extractor: CLIPImageProcessor = None,
        image_encoder: CLIPVisionModelWithProjection = None,
    ):
        check_unet_and_adapter(unet, motion_adapter, may_read_depth=True)
        if isinstance(unet, UNet2DConditionModel):
            scheduler = with_linear_betas(scheduler)
        unet = build_motion_unet(unet, motion_adapter)
        super().__init__(
            vae, text_encoder, tokenizer, unet, motion_adapter, scheduler, feature_extractor, image_encoder
        )
        self._flow_estimators = FlowEstimatorCache()

    @torch.no_grad()
    def __call__(
        self,
        video: np.ndarray | torch.Tensor | Sequence[Image.Image],
        source_prompt: str,
        prompt: str | Sequence[str],
        negative_prompt: str | None = None,
        depth: torch.Tensor | np.ndarray | None = None,
        mask: torch.Tensor | np.ndarray | Sequence[torch.Tensor | np.ndarray] | None = None,
        edit_mode: str = "paired",
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        strength: float | None = None,
        inversion_iterations: int = 1,
        generator: torch.Generator | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] = ("latents",),
        decode_chunk_size: int = 16,
        context_length: int | None = None,
        context_overlap: int | None = None,
        context_schedule: str = "moved",
        context_weights: str | Sequence[float] | torch.Tensor = "pyramid",
    ) -> AnimateDiffPipelineOutput | tuple:
        """
        Edit a clip, once for each prompt.

        Arguments that are not described here are those of `LandscapeVideoPipeline`.

        Args:
            video: Frames of any number and size: uint8 `(num_frames, height, width, 3)`, a tensor in [0, 1],
                `(num_frames, 3, height, width)`, or PIL images of one size.
            source_prompt: What the video shows.
            prompt: What it should show. Several prompts give several edits; or, with as many masks, one edit in which
                each object has its own prompt.
            depth: Depth of each frame in [-1, 1], larger is nearer, `(num_frames, 1, height, width)`; for models that
                take it, see `reads_depth`.
            mask: What may change, of the size of the frames, `(num_frames or 1, height, width)` in [0, 1]; or one for
                each prompt. `None` lets everything change.
            edit_mode: `"paired"` follows the difference between both prompts on the same noise. `"inversion"` inverts
                the clip and samples it with the new prompt (OneShotDepth).
            num_inference_steps: Number of steps; `None` uses what the model recommends, else 25.
            guidance_scale: Guidance scale; in mode `"paired"`, of both prompts.
            strength: Share of the noise from which the edit begins: less keeps more of the clip. `None`: 1 in mode
                `"paired"`, and 0.8 in mode `"inversion"`, because nearer to pure noise no inversion leads back.
            inversion_iterations: Fixed-point iterations of each step of the inversion.
            generator: Generator of the noise of mode `"paired"`.

        Returns:
            `AnimateDiffPipelineOutput`, or a tuple if `return_dict` is False. Its `frames` have one clip per edit,
            with as many frames as the source.

        Raises:
            ValueError: An argument is out of its range; the message names it.
        """
        # 1. Check what can be checked before the first step
        check_choices(output_type=(output_type, OUTPUT_TYPES), edit_mode=(edit_mode, EDIT_MODES))
        strength = STRENGTHS[edit_mode] if strength is None else strength
        sampling = self.resolve_sampling(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale)
        num_inference_steps, guidance_scale = sampling["num_inference_steps"], sampling["guidance_scale"]
        check_finite(guidance_scale=guidance_scale)
        tensor_inputs = self.check_tensor_inputs(callback_on_step_end_tensor_inputs)
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts:
            raise ValueError("`prompt` must hold at least one string, got an empty list.")
        for text in (source_prompt, *prompts):
            self.check_inputs(text, 1, None, None, num_inference_steps, 0.0, decode_chunk_size)
        clip = self.prepare_clip(video, depth, num_inference_steps, strength, inversion_iterations)
        edits = list_edits(prompts, masks_to_tensors(mask, clip.frames))
        shape = self.latent_shape(1, len(clip.frames), *clip.padded.shape[2:])
        plan = plan_windows(self, shape, context_length, context_overlap, context_schedule, context_weights)
        if any(texts == [source_prompt] for texts, _ in edits):
            logger.warning("`prompt` equals `source_prompt`, so there is nothing to change.")

        self._guidance_scale, self._interrupt = guidance_scale, False
        self._clip_skip = self._cross_attention_kwargs = None
        of_loop = {"progress_bar": self.progress_bar, "is_interrupted": lambda: self.interrupt}
        clips = []
        with self.accelerated_models(FastLayers), whole_clips_afterwards(self.unet):
            # 2. Encode the frames, and bring the depth to the size of the latents
            source = self.encode_clip(clip.padded, decode_chunk_size)
            depth = None if clip.depth is None else to_latents(clip.depth, source)
            predictor = partial(self.predictor, plan, negative_prompt, depth)

            # 3. Prepare the timesteps
            timesteps = self.timesteps_from(num_inference_steps, strength)

            # 4. Prepare the noise: the same for all frames, or that from which the model generates the clip
            if edit_mode == "paired":
                of_frame = ((*shape[:2], 1, *shape[3:]), source.device, source.dtype)
                draw_noise = partial(FrameNoise(generator, 1).draw, *of_frame)
                predict_source = predictor(source_prompt)
            else:
                predict_empty = predictor("", guided=False)
                trajectory = self.invert_latents(source, timesteps, predict_empty, inversion_iterations)
                noise = trajectory[0]

            # 5. Denoise each edit
            state = None if generator is None else generator.get_state()
            for texts, masks in edits:
                if state is not None:
                    generator.set_state(state)  # each edit has the noise that it would have alone
                regions = [to_latents(mask, source) for mask in masks]
                changeable = torch.stack(torch.broadcast_tensors(*regions)).amax(dim=0) if regions else None
                predict_target = combine_regions([predictor(text) for text in texts], regions)
                on_step = call_on_step_end(self, callback_on_step_end, tensor_inputs, {})
                if edit_mode == "paired":
                    parts = (source, draw_noise, timesteps, predict_source, predict_target, changeable, on_step)
                    latents = edit_paired(self.scheduler, *parts, **of_loop)
                else:
                    on_step = keep_outside(changeable, trajectory, source, on_step)
                    parts = (noise, timesteps, predict_target, {"eta": 0.0}, on_step)
                    latents = denoise(self.scheduler, *parts, num_inference_steps=len(timesteps), **of_loop)

                # 6. Decode to frames in [0, 1], without the padding
                if output_type != "latent":
                    latents = self.decode_clip(latents, clip, decode_chunk_size)
                clips.append(latents)
                if self.interrupt:
                    break
            self.maybe_free_model_hooks()
        frames = torch.cat(clips)
        if output_type != "latent":
            frames = self.postprocess_frames(frames, output_type)

        if not return_dict:
            return (frames,)
        return AnimateDiffPipelineOutput(frames=frames)

    @torch.no_grad()
    def invert(
        self,
        video: np.ndarray | torch.Tensor | Sequence[Image.Image],
        depth: torch.Tensor | np.ndarray | None = None,
        num_inference_steps: int | None = None,
        strength: float = STRENGTHS["inversion"],
        inversion_iterations: int = 1,
        decode_chunk_size: int = 16,
    ) -> torch.Tensor:
        """
        Return the latents from which the model generates a clip with an empty prompt and without guidance.

        Arguments and errors are those of a call.

        Returns:
            float32 `(1, channels, num_frames, height / 8, width / 8)`, at the timestep that `strength` gives.
        """
        num_inference_steps = self.resolve_sampling(num_inference_steps=num_inference_steps)["num_inference_steps"]
        clip = self.prepare_clip(video, depth, num_inference_steps, strength, inversion_iterations)
        self._guidance_scale, self._interrupt, self._clip_skip, self._cross_attention_kwargs = 1.0, False, None, None
        with self.accelerated_models(FastLayers), whole_clips_afterwards(self.unet):
            source = self.encode_clip(clip.padded, decode_chunk_size)
            depth = None if clip.depth is None else to_latents(clip.depth, source)
            plan = plan_windows(self, source.shape)
            timesteps = self.timesteps_from(num_inference_steps, strength)
            predict_empty = self.predictor(plan, None, depth, "", guided=False)
            latents = self.invert_latents(source, timesteps, predict_empty, inversion_iterations)[0]
        self.maybe_free_model_hooks()
        return latents

    def resolve_sampling(self, **given: Any) -> dict[str, Any]:
        """Return the sampling settings of a call with `given`; `None` means what the model recommends."""
        return resolve_sampling(self.scheduler.config, "text", **given)

    @property
    def reads_depth(self) -> bool:
        """Whether the UNet has inputs for depth beside the latents."""
        return self.unet.config.in_channels > self.vae.config.latent_channels

    def latent_shape(self, batch_size: int, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the latents of clips, without depth."""
        sides = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        return (batch_size, self.vae.config.latent_channels, num_frames, *sides)

    def prepare_clip(
        self, video: Any, depth: Any, num_inference_steps: int, strength: float, inversion_iterations: int
    ) -> SourceClip:
        """
        Check a clip and how far it is to be changed.

        Raises:
            ValueError: An argument is out of its range, or the scheduler cannot be inverted; the message names it.
        """
        self.unet = ensure_motion_config(self.unet, self.motion_adapter)  # in case the user replaced it
        self.check_supports_images()
        check_invertible(self.scheduler)
        check_num_inference_steps(self.scheduler, num_inference_steps)
        warn_about_betas(self.scheduler)
        check_extent(strength, inversion_iterations)
        frames = frames_to_tensor(video)
        depth = check_depth(depth, frames, self.reads_depth)
        return SourceClip(frames, math.lcm(8, self.vae_scale_factor), depth)

    def timesteps_from(self, num_inference_steps: int, strength: float) -> torch.Tensor:
        """Set the timesteps, and return those from `strength` of the noise on, at least one."""
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        timesteps = last_timesteps(self.scheduler, strength)
        self._num_timesteps = len(timesteps)
        return timesteps

    def decode_clip(self, latents: torch.Tensor, clip: SourceClip, chunk_size: int) -> torch.Tensor:
        """Decode latents to frames, `(1, 3, num_frames, height, width)` in [0, 1], and cut off the padding."""
        frames = self.decode_frames(latents.to(self.vae.dtype), chunk_size)
        enlargement = frames.shape[-1] // clip.padded.shape[-1]
        height, width = (enlargement * side for side in clip.frames.shape[2:])
        return frames[..., :height, :width]

    def predictor(
        self,
        plan: WindowPlan,
        negative_prompt: str | None,
        depth: torch.Tensor | None,
        text: str,
        guided: bool = True,
    ) -> NoisePredictor:
        """Return the predictor of a whole clip with one prompt. Latents and predictions are float32."""
        terms = (False, True) if guided and self.do_classifier_free_guidance else (True,)
        prompts = PromptSchedule(text, negative_prompt, 1, plan)
        given, negative = self.encode_prompt(
            **prompts.texts,
            device=self._execution_device,
            num_images_per_prompt=1,
            do_classifier_free_guidance=len(terms) > 1,
        )
        embeds = prompts.spread(torch.cat([negative, given]) if len(terms) > 1 else given, terms)
        keeps_tokens = has_spatio_temporal_attention(self.unet) and not plan.is_plain

        def predictor_for(frames: list[int]) -> NoisePredictor:
            def predict_noise(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
                if depth is not None:
                    latents = torch.cat([latents, depth[:, :, frames].expand(len(latents), -1, -1, -1, -1)], dim=1)
                if keeps_tokens:
                    set_frames(self.unet, frames)
                return self.unet(
                    latents.to(self.unet.dtype),
                    timestep,
                    encoder_hidden_states=prompts.select(embeds, frames, terms),
                ).sample.float()

            return guide_by_text(predict_noise, self) if len(terms) > 1 else predict_noise

        predict_windows = average_windows(plan, predictor_for)
        if not keeps_tokens:
            return predict_windows

        def predict_step(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
            begin_step(self.unet, plan.windows(step))
            return predict_windows(latents, timestep, step)

        return predict_step

    def invert_latents(
        self, source: torch.Tensor, timesteps: torch.Tensor, predict_empty: NoisePredictor, iterations: int
    ) -> dict[int, torch.Tensor]:
        """Return the latents that sampling has before each step, and log how well it leads back to `source`."""
        trajectory: dict[int, torch.Tensor] = {}

        def keep(latents: torch.Tensor, step: int) -> None:
            trajectory[step] = latents if step == 0 else latents.cpu()

        invert(self.scheduler, source, timesteps, predict_empty, iterations, keep, progress_bar=self.progress_bar)
        latents = denoise(
            self.scheduler,
            trajectory[0],
            timesteps,
            predict_empty,
            {"eta": 0.0},
            lambda latents, timestep, step: latents,
            num_inference_steps=len(timesteps),
            progress_bar=self.progress_bar,
            is_interrupted=lambda: self.interrupt,
        )
        again, given = (self.decode_latents(each.to(self.vae.dtype), 16) / 2 for each in (latents, source))
        psnr = -10 * math.log10(max((again - given).square().mean().item(), 1e-10))
        logger.info("The inverted clip is generated again with %.1f dB to the VAE's reconstruction.", psnr)
        if psnr < GOOD_ROUND_TRIP:
            logger.warning(
                "The inversion loses the clip: %.1f dB, below %.0f. Use more `num_inference_steps`, more"
                " `inversion_iterations` or less `strength`.",
                psnr,
                GOOD_ROUND_TRIP,
            )
        return trajectory


@contextmanager
def whole_clips_afterwards(unet: UNetMotionModel) -> Iterator[None]:
    """Let tuned attention read whole clips again after a block that runs windows."""
    try:
        yield
    finally:
        if has_spatio_temporal_attention(unet):
            set_frames(unet, None)
