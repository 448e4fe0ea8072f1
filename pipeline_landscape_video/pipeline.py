"""
Generate landscape-painting videos from text: Stable Diffusion, motion modules of NADM, sparse optical flow projection.

This file and its relative imports are all the code that a Hub repository needs. diffusers loads them by
`custom_pipeline`, flat in one folder. Hence the imported files import nothing from this package, and this file has
exactly one pipeline class.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    MotionAdapter,
    SchedulerMixin,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.animatediff import AnimateDiffPipelineOutput
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from .landscape_acceleration import LandscapeAccelerationMixin
from .landscape_color_anchor import anchor_colors
from .landscape_denoising import NoisePredictor, call_deprecated_callback, call_on_step_end, denoise
from .landscape_fast_layers import FastLayers
from .landscape_frame_interpolation import FrameInterpolator
from .landscape_frame_noise import FrameNoise
from .landscape_free_noise import FreeNoiseMixin
from .landscape_guidance import guide_by_text
from .landscape_motion_attention import build_motion_unet, ensure_motion_config
from .landscape_optical_flow import FLOW_ESTIMATORS, FlowEstimator, FlowEstimatorCache
from .landscape_pipeline_mixin import (
    OUTPUT_TYPES,
    LandscapePipelineMixin,
    check_choices,
    check_finite,
    check_keywords,
    map_clips,
)
from .landscape_prompt_schedule import PromptSchedule
from .landscape_sampling import resolve_sampling
from .landscape_scheduler import check_num_inference_steps, warn_about_betas, with_linear_betas
from .landscape_sofp import SOFP_MODES, SparseFlowProjection
from .landscape_unet_compatibility import check_unet_and_adapter
from .landscape_warping import FlowWarper
from .landscape_windows import average_windows, plan_windows


class LandscapeVideoPipeline(LandscapeAccelerationMixin, LandscapePipelineMixin, FreeNoiseMixin, AnimateDiffPipeline):
    """
    Pipeline for text to landscape-painting video (NADM, ConCLVD).

    It supports all features of `AnimateDiffPipeline`: LoRA, IP-Adapter, FreeInit, FreeNoise, FreeU, single files and
    offloading. It adds sparse-causal attention, linear betas for Stable Diffusion checkpoints, checks before the first
    step, and interpolation from N to 2N - 1 frames.

    Args:
        vae: Decoder of latents to frames.
        text_encoder: Encoder of prompts.
        tokenizer: Tokenizer of prompts, up to 77 tokens.
        unet: Image UNet, which is combined with copies of the motion modules of `motion_adapter`; or motion UNet. If
            the attention of a motion UNet must change, the pipeline uses a second tree of modules with the same
            weights, so that other pipelines with this UNet do not change.
        motion_adapter: Motion modules, required with an image UNet. `sparse_causal_mode` in its config is the mode of
            their second attention, and `motion_norm` the statistics of their norm, unless the config of a motion UNet
            has them. Without both they are `"full"` and `"clip"`, as in diffusers.
        scheduler: Noise scheduler. With an image UNet, one with `scaled_linear` betas, as in Stable Diffusion, is
            replaced by DDIM with linear betas, with which motion modules are trained. Its config may recommend
            sampling settings, see `landscape_sampling.py`.
        feature_extractor: Preprocessor of images for `image_encoder`.
        image_encoder: Encoder of images for an IP-Adapter.

    Raises:
        ValueError: An image UNet comes without an adapter, or with one that does not fit it.

    Example:
        >>> import torch
        >>> from diffusers import MotionAdapter
        >>> from pipeline_landscape_video import LandscapeVideoPipeline
        >>> adapter = MotionAdapter.from_pretrained("path/to/landscape-motion")
        >>> pipe = LandscapeVideoPipeline.from_pretrained(
        ...     "stable-diffusion-v1-5/stable-diffusion-v1-5", motion_adapter=adapter, dtype=torch.float16
        ... ).to("cuda")
        >>> frames = pipe("mist drifting over layered mountains, a boat on a calm lake").frames[0]
    """

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
        # `unet` and `scheduler` may be None: diffusers builds pipelines of a few components to encode prompts.
        check_unet_and_adapter(unet, motion_adapter)
        if isinstance(unet, UNet2DConditionModel):
            scheduler = with_linear_betas(scheduler)
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=build_motion_unet(unet, motion_adapter),
            motion_adapter=motion_adapter,
            scheduler=scheduler,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
        )
        # Not a component: `pipe.to()` reads the dtype of every component, but a flow estimator is any callable.
        self._flow_estimators = FlowEstimatorCache()

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | dict[int, str] | list[str | dict[int, str]] | None = None,
        num_frames: int | None = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        negative_prompt: str | dict[int, str] | list[str | dict[int, str]] | None = None,
        num_videos_per_prompt: int | None = 1,
        eta: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        ip_adapter_image: PipelineImageInput | None = None,
        ip_adapter_image_embeds: list[torch.Tensor] | None = None,
        output_type: str | None = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] = ("latents",),
        decode_chunk_size: int = 16,
        interpolate: bool = True,
        sofp_mode: str = "quadratic",
        flow_estimator: str | FlowEstimator | None = None,
        context_length: int | None = None,
        context_overlap: int | None = None,
        context_schedule: str = "moved",
        context_weights: str | Sequence[float] | torch.Tensor = "pyramid",
        closed_loop: bool = False,
        transition: int | None = None,
        prompt_per_window: bool = False,
        shared_colors: bool = False,
        **kwargs: Any,
    ) -> AnimateDiffPipelineOutput | tuple:
        """
        Generate one clip per prompt.

        Arguments that are not described here are those of `AnimateDiffPipeline`.

        Args:
            prompt: Prompt of all clips, or one per clip. A dictionary has prompts by the frame at which they begin,
                `{0: "mist", 48: "rain"}`, and so may `negative_prompt`.
            num_frames: Number of frames to sample. Above `context_length`, they are sampled in overlapping windows.
            height: Height of the frames in pixels, a multiple of 8; `None` uses the UNet's `sample_size`.
            width: Width of the frames, see `height`.
            num_inference_steps: Number of denoising steps; `None` uses what the model recommends, else 25 (NADM).
            guidance_scale: Guidance scale; at 1 or below, there is no guidance. `None` uses what the model recommends,
                else 8 (NADM).
            num_videos_per_prompt: Must be 1. To generate several clips from a prompt, repeat it in `prompt`.
            eta: Amount of fresh noise in each step of DDIM, from 0 to 1; `None`: the model's own, else 0.
            output_type: `"pil"`; `"np"` or `"pt"`, with values in [0, 1]; or `"latent"`, which is not interpolated.
            interpolate: Whether to add a frame between every two, so that N frames become 2N - 1. The sampled frames
                keep their values, at the even indices. After an interrupt, no frames are added.
            sofp_mode: Position of pixels halfway between two frames, one of `SOFP_MODES` (NADM Eq. 14).
            flow_estimator: One of `FLOW_ESTIMATORS`, or a callable from two batches of frames, `(pairs, 3, height,
                width)` in [0, 1], to the flow in pixels, x then y, `(pairs, 2, height, width)`. `None` uses RAFT if
                its weights are on this machine, else DIS.
            context_length: Frames per window, at most `max_num_frames`; `None`: 16, or `max_num_frames` if it is less.
            context_overlap: Frames that neighboring windows share; `None`: a quarter of `context_length`.
            context_schedule: `"moved"` moves the windows in every step, which hides seams. `"static"` does not.
            context_weights: Weights of a window's frames in the average over windows: `"pyramid"`, `"flat"`, a number
                for each frame, or for each pixel, `(context_length, 1, height / 8, width / 8)`.
            closed_loop: Whether the clip ends where it begins, so that it can repeat without a jump. Windows then
                engage at any length, and N frames become 2N.
            transition: Frames in which a prompt blends into the next one, centered on the key; `None`: 48, or fewer
                where the keys leave less room.
            prompt_per_window: Whether each window has the prompt of its middle frame, as in Consistency tuning, rather
                than each frame its own.
            shared_colors: Whether all windows of a prompt have one mean color, also if it names no palette.
            **kwargs: `callback` and `callback_steps`, which are deprecated.

        Returns:
            `AnimateDiffPipelineOutput`, or a tuple if `return_dict` is False. Its `frames` are a list of PIL images
            per prompt (`"pil"`), `(batch, num_frames, height, width, 3)` (`"np"`), `(batch, num_frames, 3, height,
            width)` (`"pt"`) or `(batch, channels, num_frames, height / 8, width / 8)` (`"latent"`).

        Raises:
            ValueError: An argument is out of its range; the message names it.
            TypeError: A keyword is unknown.
        """
        # 1. Check what can be checked before the first step
        check_keywords(kwargs, type(self).__call__)
        check_choices(
            output_type=(output_type, OUTPUT_TYPES),
            sofp_mode=(sofp_mode, SOFP_MODES),
            flow_estimator=(None if callable(flow_estimator) else flow_estimator, (None, *FLOW_ESTIMATORS)),
        )
        # The user may have replaced `pipe.unet`.
        self.unet = ensure_motion_config(self.unet, self.motion_adapter)
        if num_videos_per_prompt not in (None, 1):
            raise ValueError(f"`num_videos_per_prompt` must be 1, got {num_videos_per_prompt}; repeat the prompt.")
        sampling = self.resolve_sampling(
            num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, eta=eta
        )
        num_inference_steps, eta = sampling["num_inference_steps"], sampling["eta"]
        guidance_scale = sampling["guidance_scale"]
        check_finite(guidance_scale=guidance_scale)
        self.check_inputs(prompt, num_frames, height, width, num_inference_steps, eta, decode_chunk_size)
        height, width = self.clip_size(height, width)
        tensor_inputs = self.check_tensor_inputs(callback_on_step_end_tensor_inputs)
        AnimateDiffPipeline.check_inputs(
            self,
            prompt,
            height,
            width,
            kwargs.get("callback_steps"),
            negative_prompt,
            prompt_embeds,
            negative_prompt_embeds,
            ip_adapter_image,
            ip_adapter_image_embeds,
            tensor_inputs,
        )
        batch_size = len(prompt) if isinstance(prompt, list) else 1 if prompt_embeds is None else len(prompt_embeds)
        shape = self.latent_shape(batch_size, num_frames, height, width)
        self.check_latents(latents, shape)
        plan = plan_windows(
            self, shape, context_length, context_overlap, context_schedule, context_weights, closed_loop
        )
        prompts = PromptSchedule(prompt, negative_prompt, batch_size, plan, transition, prompt_per_window)
        check_num_inference_steps(self.scheduler, num_inference_steps)
        warn_about_betas(self.scheduler)
        if guidance_scale > 1:
            self.warn_about_truncated_text(negative_prompt)
        interpolate = interpolate and output_type != "latent"
        if interpolate:
            flow_estimator = self.get_flow_estimator(flow_estimator)

        self._guidance_scale, self._clip_skip, self._interrupt = guidance_scale, clip_skip, False
        self._cross_attention_kwargs = cross_attention_kwargs
        device = self._execution_device
        with self.accelerated_models(FastLayers):
            # 2. Encode the prompt, and the image of an IP-Adapter
            embeds = self.encode_for_frames(prompts, prompt_embeds, negative_prompt_embeds)
            added_cond_kwargs = None
            if ip_adapter_image is not None or ip_adapter_image_embeds is not None:
                image_embeds = self.prepare_ip_adapter_image_embeds(
                    ip_adapter_image, ip_adapter_image_embeds, device, batch_size, self.do_classifier_free_guidance
                )
                added_cond_kwargs = {"image_embeds": image_embeds}

            # 3. Prepare the timesteps
            self.scheduler.set_timesteps(num_inference_steps, device=device)
            timesteps = self.scheduler.timesteps

            # 4. Prepare the latents
            dtype = embeds["prompt_embeds"].dtype
            noise = FrameNoise(generator, num_frames)
            if latents is None and not noise.is_plain and not self.free_noise_enabled:
                latents = noise.draw(shape, device, dtype)
            latents = self.prepare_latents(*shape[:3], height, width, dtype, device, generator, latents)

            # 5. Denoise, several times with FreeInit, which sets timesteps of its own
            def predictor_for(frames: list[int]) -> NoisePredictor:
                def predict_noise(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
                    return self.unet(
                        self.scheduler.scale_model_input(latents, timestep),
                        timestep,
                        encoder_hidden_states=prompts.select(embeds["prompt_embeds"], frames, self.guidance_terms),
                        cross_attention_kwargs=self.cross_attention_kwargs,
                        added_cond_kwargs=added_cond_kwargs,
                    ).sample

                return guide_by_text(predict_noise, self)

            predict_noise = average_windows(plan, predictor_for)
            if shared_colors and not plan.is_plain:
                predict_noise = anchor_colors(predict_noise, self.scheduler, prompts.shares[0])
            on_step = call_on_step_end(self, callback_on_step_end, tensor_inputs, embeds)
            on_step = call_deprecated_callback(self, num_inference_steps, on_step, **kwargs)
            for iteration in range(self.num_free_init_iters):
                if self.free_init_enabled:
                    latents, timesteps = self._apply_free_init(
                        latents, iteration, num_inference_steps, device, latents.dtype, generator
                    )
                self._num_timesteps = len(timesteps)
                latents = denoise(
                    self.scheduler,
                    latents,
                    timesteps,
                    predict_noise,
                    noise.step_kwargs(self.scheduler, self.prepare_extra_step_kwargs(generator, eta)),
                    on_step,
                    num_inference_steps=num_inference_steps,
                    progress_bar=self.progress_bar,
                    is_interrupted=lambda: self.interrupt,
                )
                if self.interrupt:
                    break

            video = latents
            if output_type != "latent":
                # 6. Decode to frames in [0, 1]
                video = self.decode_frames(latents, decode_chunk_size)

                # 7. Interpolate
                if interpolate and not self.interrupt:
                    interpolator = FrameInterpolator(flow_estimator, SparseFlowProjection(sofp_mode), FlowWarper())
                    video = map_clips(partial(interpolator.interpolate_clip, closed_loop=closed_loop), video)

                # 8. Post-process
                video = self.postprocess_frames(video, output_type)

        if not return_dict:
            return (video,)
        return AnimateDiffPipelineOutput(frames=video)

    def resolve_sampling(self, **given: Any) -> dict[str, Any]:
        """Return the sampling settings of a call with `given`; `None` means what the model recommends."""
        return resolve_sampling(self.scheduler.config, "text", **given)

    @property
    def guidance_terms(self) -> tuple[bool, ...]:
        """Whether each guidance term sees the prompt; it may change in a callback."""
        return (False, True) if self.do_classifier_free_guidance else (True,)

    def encode_for_frames(
        self,
        prompts: PromptSchedule,
        prompt_embeds: torch.Tensor | None,
        negative_prompt_embeds: torch.Tensor | None,
    ) -> dict[str, torch.Tensor | None]:
        """
        Encode prompts to embeddings that a callback may replace by name.

        Returns:
            `"prompt_embeds"`: a copy per frame, `(batch * num_frames, tokens, dim)`, as the UNet receives them; with
            windows, one per clip and prompt over time, `(batch * prompts, tokens, dim)`. Under guidance twice as many,
            the negative half first. `"negative_prompt_embeds"`, `(batch * prompts, tokens, dim)`, or `None` without
            guidance.
        """
        guided = self.do_classifier_free_guidance
        arguments = {
            "device": self._execution_device,
            "do_classifier_free_guidance": guided,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "lora_scale": (self.cross_attention_kwargs or {}).get("scale"),
            "clip_skip": self.clip_skip,
        }
        if self.free_noise_enabled:
            embeds, negative_embeds = self._encode_prompt_free_noise(
                **prompts.given, num_frames=prompts.plan.length, num_videos_per_prompt=1, **arguments
            )
            return {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds}
        embeds, negative_embeds = self.encode_prompt(**prompts.texts, num_images_per_prompt=1, **arguments)
        embeds = torch.cat([negative_embeds, embeds]) if guided else embeds
        embeds = prompts.spread(embeds, self.guidance_terms)
        return {"prompt_embeds": embeds, "negative_prompt_embeds": negative_embeds}
