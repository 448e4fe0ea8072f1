"""
Generate landscape-painting videos from an image, a text, or both: image retention of DreamVideo on our motion modules.

This file and its relative imports are all the code that a Hub repository needs, as in `pipeline.py`.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    ModelMixin,
    MotionAdapter,
    SchedulerMixin,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.animatediff import AnimateDiffPipelineOutput
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from .landscape_acceleration import LandscapeAccelerationMixin
from .landscape_denoising import NoisePredictor, call_on_step_end, denoise
from .landscape_fast_layers import FastLayers
from .landscape_first_frame_inpainting import FirstFrameInpainting
from .landscape_frame_interpolation import FrameInterpolator
from .landscape_frame_noise import FrameNoise
from .landscape_free_noise import FreeNoiseMixin
from .landscape_guidance import GUIDANCE_ORDERS, guidance_terms, predict_with_images
from .landscape_image_retention import ImageRetention, check_branch
from .landscape_motion_attention import build_motion_unet, ensure_motion_config
from .landscape_optical_flow import FLOW_ESTIMATORS, FlowEstimator, FlowEstimatorCache
from .landscape_pictures import FITS, images_to_tensor, match_colors
from .landscape_pipeline_mixin import (
    BRANCH,
    OUTPUT_TYPES,
    LandscapePipelineMixin,
    check_choices,
    check_finite,
    map_clips,
)
from .landscape_prompt_schedule import PromptSchedule
from .landscape_prompt_stages import check_stages, common_length, list_stages, stack_images
from .landscape_sampling import resolve_sampling
from .landscape_scheduler import check_num_inference_steps, warn_about_betas, with_linear_betas
from .landscape_sofp import SOFP_MODES, SparseFlowProjection
from .landscape_unet_compatibility import check_unet_and_adapter
from .landscape_warping import FlowWarper
from .landscape_windows import average_windows, plan_windows


class LandscapeImageToVideoPipeline(
    LandscapeAccelerationMixin, LandscapePipelineMixin, FreeNoiseMixin, AnimateDiffPipeline
):
    """
    Pipeline for an image, a text, or both to landscape-painting video, in one or several prompt stages (DreamVideo).

    The components not described here are those of `LandscapeVideoPipeline`.

    Args:
        image_retention: Trained branch that keeps the clip faithful to the image, see `ImageRetention.from_unet`.
            `None` gives a text-to-video pipeline.

    Raises:
        ValueError: An image UNet comes without an adapter, or with one that does not fit it, or the branch belongs to
            another UNet.

    Example:
        >>> from PIL import Image
        >>> from pipeline_landscape_video import LandscapeImageToVideoPipeline
        >>> pipe = LandscapeImageToVideoPipeline.from_pretrained("path/to/pipeline-with-image-retention")
        >>> painting = Image.open("painting.png")
        >>> frames = pipe("mist drifting, the boat sails to the left", painting).frames[0]
        >>> longer = pipe(prompts=["mist drifting", "it begins to rain"], image=painting).frames[0]
    """

    _optional_components = [*AnimateDiffPipeline._optional_components, "image_retention"]
    _callback_tensor_inputs = ["latents", "prompt_embeds"]

    def __init__(
        self,
        vae: AutoencoderKL,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        unet: UNet2DConditionModel | UNetMotionModel,
        motion_adapter: MotionAdapter,
        scheduler: SchedulerMixin,
        image_retention: ModelMixin = None,  # `ImageRetention` is defined once per loading, and diffusers would warn
        feature_extractor: CLIPImageProcessor = None,
        image_encoder: CLIPVisionModelWithProjection = None,
    ):
        check_unet_and_adapter(unet, motion_adapter)
        if isinstance(unet, UNet2DConditionModel):
            scheduler = with_linear_betas(scheduler)
        unet = build_motion_unet(unet, motion_adapter)
        prepare_branch(image_retention, unet)
        super().__init__(
            vae, text_encoder, tokenizer, unet, motion_adapter, scheduler, feature_extractor, image_encoder
        )
        self.register_modules(image_retention=image_retention)
        self._flow_estimators = FlowEstimatorCache()

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> dict[str, Any] | tuple:
        """Load the index as in diffusers, and add a branch that is in the folder but not in the index."""
        loaded = super().load_config(*args, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        folder = kwargs.get("pretrained_model_name_or_path", args[0] if args else "")
        if Path(folder, BRANCH, "config.json").is_file():
            config[BRANCH] = [ImageRetention.__module__, ImageRetention.__name__]
        return loaded

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | dict[int, str] | list[str | dict[int, str]] | None = None,
        image: PipelineImageInput | None = None,
        prompts: list[str | dict[int, str] | list[str | dict[int, str]]] | None = None,
        num_frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        guidance_order: str = "text_first",
        retention_scale: float = 1.0,
        negative_prompt: str | dict[int, str] | list[str | dict[int, str]] | None = None,
        hold_first_frame: bool = False,
        fit: str = "crop",
        eta: float | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: torch.Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        cross_attention_kwargs: dict[str, Any] | None = None,
        clip_skip: int | None = None,
        callback_on_step_end: Callable[..., dict] | None = None,
        callback_on_step_end_tensor_inputs: list[str] | tuple[str, ...] = ("latents",),
        decode_chunk_size: int = 16,
        drop_duplicate_frame: bool = False,
        match_stage_colors: bool = False,
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
    ) -> AnimateDiffPipelineOutput | tuple:
        """
        Generate one clip per prompt or image.

        Arguments that are not described here are those of `LandscapeVideoPipeline`.

        Args:
            prompt: What moves, and how; one text for all images or one per image. `None` leaves it to the image.
            image: Content of the first frame; one image for all prompts or one per prompt. `None` leaves it to the
                text. PIL images of any size and mode are fitted; tensors and arrays are not, see `images_to_tensor`.
            prompts: Texts of several stages, instead of `prompt`. Each stage samples `num_frames` frames and begins
                with the last frame of the previous one (Two-Stage Inference, DreamVideo, section 4.4).
            num_frames: Number of frames to sample per stage.
            guidance_scale: Guidance scale s_t of the text; `None` uses what the model recommends, else 8.
            image_guidance_scale: Guidance scale s_i of the image; `None` uses what the model recommends, else
                1.5. Larger values add contrast.
            guidance_order: One of `GUIDANCE_ORDERS`. `"text_first"` is DreamVideo Eq. 5, for texts that describe
                everything. `"picture_first"` is InstructPix2Pix Eq. 3, which keeps everything of the image that a
                short text does not mention.
            retention_scale: Factor of the branch's residuals; 0 is the text-to-video model, which ignores the image.
            hold_first_frame: Whether to replace the first frame of each stage by the image in every step, as in
                inpainting, so that other frames attend to it. It stays as close to the image as the VAE allows.
                If False, the branch alone determines it, as in the paper.
            fit: Way to fit PIL images: `"crop"` crops two sides, `"pad"` pads with white.
            latents: Initial noise of a single stage, `(batch, channels, num_frames, height / 8, width / 8)`.
            callback_on_step_end: Callback of each step. Steps count from 0 in each stage, `pipe.stage` counts stages.
            drop_duplicate_frame: Whether to drop the first frame of later stages, a copy of the last one before.
            match_stage_colors: Whether to give later stages the colors of the frame that they begin with.
            interpolate: Whether to add a frame between every two of the whole clip, except after an interrupt.

        Returns:
            `AnimateDiffPipelineOutput`, or a tuple if `return_dict` is False, with `len(prompts) * num_frames` sampled
            frames, or one less per later stage with `drop_duplicate_frame`, and the interpolated ones.

        Raises:
            ValueError: An argument is out of its range; the message names it.
            TypeError: `image` is not an image.
        """
        # 1. Check what can be checked before the first step
        check_choices(
            fit=(fit, FITS),
            guidance_order=(guidance_order, GUIDANCE_ORDERS),
            output_type=(output_type, OUTPUT_TYPES),
            sofp_mode=(sofp_mode, SOFP_MODES),
            flow_estimator=(None if callable(flow_estimator) else flow_estimator, (None, *FLOW_ESTIMATORS)),
        )
        self.unet = ensure_motion_config(self.unet, self.motion_adapter)  # in case the user replaced it
        prepare_branch(self.image_retention, self.unet)
        check_branch(self.image_retention, retention_scale, self.vae_scale_factor)
        self.check_supports_images()
        sampling = self.resolve_sampling(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
            eta=eta,
        )
        num_inference_steps, eta = sampling["num_inference_steps"], sampling["eta"]
        guidance_scale, image_guidance_scale = sampling["guidance_scale"], sampling["image_guidance_scale"]
        check_finite(retention_scale=retention_scale, **sampling)
        tensor_inputs = self.check_tensor_inputs(callback_on_step_end_tensor_inputs)
        texts = list_stages(prompt, prompts)
        for text in texts:
            self.check_inputs(text, num_frames, height, width, num_inference_steps, eta, decode_chunk_size)
        check_num_inference_steps(self.scheduler, num_inference_steps)
        warn_about_betas(self.scheduler)
        check_stages(
            texts, image, retention_scale, latents, match_stage_colors and output_type == "latent", closed_loop
        )
        height, width = self.clip_size(height, width)
        images = None if image is None else images_to_tensor(image, height, width, fit)
        batch_size = common_length(texts, images, negative_prompt)
        shape = self.latent_shape(batch_size, num_frames, height, width)
        self.check_latents(latents, shape)
        plan = plan_windows(
            self, shape, context_length, context_overlap, context_schedule, context_weights, closed_loop
        )
        of_clips = (negative_prompt, batch_size, plan, transition, prompt_per_window)
        stages = [PromptSchedule(text or "", *of_clips) for text in texts]
        self.warn_about_truncated_text(negative_prompt)
        interpolate = interpolate and output_type != "latent"
        if interpolate:
            flow_estimator = self.get_flow_estimator(flow_estimator)

        self._guidance_scale, self._clip_skip, self._interrupt = guidance_scale, clip_skip, False
        self._cross_attention_kwargs = cross_attention_kwargs
        device = self._execution_device
        clips: list[torch.Tensor] = []
        with self.accelerated_models(FastLayers):
            # 2. Encode the texts of all stages; warnings about truncated ones come before the first step
            sees_image = [retention_scale != 0 and (stage > 0 or images is not None) for stage in range(len(texts))]
            terms_of_stages = [
                guidance_terms(guidance_scale, image_guidance_scale, text is not None, has_image, guidance_order)
                for text, has_image in zip(texts, sees_image, strict=True)
            ]
            embeds_of_stages = [
                self.encode_for_frames(prompts, terms) for prompts, terms in zip(stages, terms_of_stages, strict=True)
            ]
            for self._stage, (terms, embeds) in enumerate(zip(terms_of_stages, embeds_of_stages, strict=True)):
                # 3. Prepare the timesteps
                self.scheduler.set_timesteps(num_inference_steps, device=device)
                timesteps = self.scheduler.timesteps

                # 4. Prepare the latents, and the images that condition them
                dtype, noise = embeds["prompt_embeds"].dtype, FrameNoise(generator, num_frames)
                sample = noise.draw(shape, device, dtype) if latents is None else latents
                sample = self.prepare_latents(*shape[:3], height, width, dtype, device, generator, sample)
                stage_images = images if sees_image[self.stage] else None
                inpainting = None
                if hold_first_frame and stage_images is not None:
                    clean = self.encode_images(stage_images, sample)
                    inpainting = FirstFrameInpainting(self.scheduler, clean, sample[:, :, :1])
                stacked = stack_images(stage_images, terms, (batch_size, 3, height, width)).to(device)

                # 5. Denoise, several times with FreeInit, which sets timesteps of its own
                predict_noise = average_windows(
                    plan, partial(self.predictor_for, embeds, stages[self.stage], stacked, terms, retention_scale)
                )
                on_step = call_on_step_end(self, callback_on_step_end, tensor_inputs, embeds)
                for iteration in range(self.num_free_init_iters):
                    if self.free_init_enabled:
                        sample, timesteps = self._apply_free_init(
                            sample, iteration, num_inference_steps, device, sample.dtype, generator
                        )
                    self._num_timesteps = len(timesteps)
                    sample = denoise(
                        self.scheduler,
                        sample if inpainting is None else inpainting.replace(sample, step=0),
                        timesteps,
                        predict_noise,
                        noise.step_kwargs(self.scheduler, self.prepare_extra_step_kwargs(generator, eta)),
                        on_step if inpainting is None else inpainting.before(on_step),
                        num_inference_steps=num_inference_steps,
                        progress_bar=self.progress_bar,
                        is_interrupted=lambda: self.interrupt,
                    )
                    if self.interrupt:
                        break

                # 6. Decode to frames in [0, 1]; the last frame is the image of the next stage
                is_last = self.stage == len(texts) - 1 or self.interrupt
                if output_type == "latent":
                    clip, end = sample, None if is_last else self.decode_frames(sample[:, :, -1:], 1)
                else:
                    clip = self.decode_frames(sample, decode_chunk_size)
                    if match_stage_colors and clips:
                        clip = map_clips(match_colors, clip, images / 2 + 0.5)
                    end = clip[:, :, -1:]
                clips.append(clip[:, :, 1:] if drop_duplicate_frame and clips else clip)
                self.maybe_free_model_hooks()
                if is_last:
                    break
                images = F.interpolate(end[:, :, 0], (height, width), mode="area") * 2 - 1  # a decoder may enlarge
            video = torch.cat(clips, dim=2)

            # 7. Interpolate
            if interpolate and not self.interrupt:
                interpolator = FrameInterpolator(flow_estimator, SparseFlowProjection(sofp_mode), FlowWarper())
                video = map_clips(partial(interpolator.interpolate_clip, closed_loop=closed_loop), video)

            # 8. Post-process
            if output_type != "latent":
                video = self.postprocess_frames(video, output_type)

        if not return_dict:
            return (video,)
        return AnimateDiffPipelineOutput(frames=video)

    @property
    def stage(self) -> int:
        """Index of the prompt stage that is being sampled, from 0."""
        return self._stage

    @property
    def max_num_frames(self) -> int:
        """Largest number of frames in one stage: the fewest positions of the UNet and the retention branch."""
        models = [model for model in (self.unet, self.image_retention) if model is not None]
        return min(model.config.motion_max_seq_length for model in models)

    def resolve_sampling(self, **given: Any) -> dict[str, Any]:
        """Return the sampling settings of a call with `given`; `None` means what the model recommends."""
        return resolve_sampling(self.scheduler.config, "image", **given)

    def predictor_for(
        self,
        embeds: dict[str, torch.Tensor],
        prompts: PromptSchedule,
        images: torch.Tensor,
        terms: dict[tuple[bool, bool], float],
        retention_scale: float,
        frames: list[int],
    ) -> NoisePredictor:
        """Return the predictor of a window. Only windows with the first frame, which is the image, see it."""
        return predict_with_images(
            self,
            lambda: prompts.select(embeds["prompt_embeds"], frames, [has_text for has_text, _ in terms]),
            images if 0 in frames else torch.ones_like(images),  # white is the null image
            list(terms.values()),
            retention_scale,
        )

    def encode_for_frames(
        self, prompts: PromptSchedule, terms: Iterable[tuple[bool, bool]]
    ) -> dict[str, torch.Tensor]:
        """
        Encode the texts of one stage to embeddings that a callback may replace by name.

        Args:
            prompts: Prompts of the stage.
            terms: (sees the text, sees the image) of each guidance term.

        Returns:
            `"prompt_embeds"`: a copy per term, clip and frame, `(terms * batch * num_frames, tokens, dim)`; with
            windows, one per term, clip and prompt over time.
        """
        with_text, without = self.encode_prompt(
            prompts.texts["prompt"],
            self._execution_device,
            1,
            True,
            prompts.texts["negative_prompt"],
            lora_scale=(self.cross_attention_kwargs or {}).get("scale"),
            clip_skip=self.clip_skip,
        )
        has_text = [term_has_text for term_has_text, _ in terms]
        embeds = torch.cat([with_text if sees else without for sees in has_text])
        return {"prompt_embeds": prompts.spread(embeds, has_text)}


def prepare_branch(branch: ImageRetention | None, unet: UNetMotionModel | None) -> None:
    """Check that a retention branch fits this UNet, and install the attention that its config names."""
    if branch is not None and unet is not None:
        branch.check_fits(unet)
        ensure_motion_config(branch)
