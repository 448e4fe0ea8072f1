"""A painting, a text, or both to landscape-painting video: DreamVideo's image retention on our motion modules.

As `pipeline.py`, this file and those that it imports relatively are all the code a Hub repository needs; it holds
exactly one pipeline class.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
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
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import retrieve_latents
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from .landscape_denoising import NoisePredictor, call_on_step_end, denoise
from .landscape_first_frame_inpainting import FirstFrameInpainting
from .landscape_frame_interpolation import FrameInterpolator
from .landscape_guidance import GUIDANCE_ORDERS, guidance_terms, guide_by_text_and_image
from .landscape_image_retention import ImageRetention
from .landscape_motion_attention import (
    build_motion_unet,
    ensure_configured_attention,
    ensure_sparse_causal_attention,
)
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
from .landscape_prompt_stages import as_list, check_stages, common_length, list_stages, stack_images
from .landscape_sampling import resolve_sampling
from .landscape_scheduler import check_num_inference_steps, warn_about_betas, with_linear_betas
from .landscape_sofp import SOFP_MODES, SparseFlowProjection
from .landscape_warping import FlowWarper


class LandscapeImageToVideoPipeline(LandscapePipelineMixin, AnimateDiffPipeline):
    """
    Pipeline for landscape-painting video from a picture and a text (DreamVideo), from either alone, in any number of
    stages.

    Args:
        vae, text_encoder, tokenizer, unet, motion_adapter, scheduler, feature_extractor, image_encoder: as
            `LandscapeVideoPipeline`.
        image_retention: the branch that sees the picture; made by `ImageRetention.from_unet` and trained. Its motion
            modules attend as its config says. `None` leaves the text-to-video model.

    Raises:
        ValueError: an image UNet without an adapter, or with one that does not fit it; a branch of another UNet.

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
        image_retention: ModelMixin = None,  # the loader defines `ImageRetention` twice, and would warn of the other
        feature_extractor: CLIPImageProcessor = None,
        image_encoder: CLIPVisionModelWithProjection = None,
    ):
        if isinstance(unet, UNet2DConditionModel):
            scheduler = with_linear_betas(scheduler)
        unet = build_motion_unet(unet, motion_adapter)
        prepare_branch(image_retention, unet)
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=unet,
            motion_adapter=motion_adapter,
            scheduler=scheduler,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
        )
        self.register_modules(image_retention=image_retention)
        self._flow_estimators = FlowEstimatorCache()

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> dict[str, Any] | tuple:
        """As the base's; a branch that lies in the folder is loaded, whether or not the index names it."""
        loaded = super().load_config(*args, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        folder = kwargs.get("pretrained_model_name_or_path", args[0] if args else "")
        if Path(folder, BRANCH, "config.json").is_file():
            config[BRANCH] = [ImageRetention.__module__, ImageRetention.__name__]
        return loaded

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        image: PipelineImageInput | None = None,
        prompts: list[str | list[str]] | None = None,
        num_frames: int = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        image_guidance_scale: float | None = None,
        guidance_order: str = "text_first",
        retention_scale: float = 1.0,
        negative_prompt: str | list[str] | None = None,
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
        match_stage_colours: bool = False,
        interpolate: bool = True,
        sofp_mode: str = "quadratic",
        flow_estimator: str | FlowEstimator | None = None,
    ) -> AnimateDiffPipelineOutput | tuple:
        """
        Generate one clip per prompt or picture. What is not described here is as in `LandscapeVideoPipeline`.

        Args:
            prompt: what moves, and how; one for all pictures or one for each. `None` leaves it to the picture.
            image: what the first frame shows; one for all prompts or one for each. `None` leaves it to the text. PIL
                images of any size are fitted and may be of any common mode; tensors and arrays are taken as they are,
                see `images_to_tensor`.
            prompts: instead of `prompt`, the texts of stages in their order. Each stage samples `num_frames` and
                begins with the last frame of the one before (Two-Stage Inference, section 4.4).
            num_frames: of one stage.
            guidance_scale: s_t, how strictly the text is followed.
            image_guidance_scale: s_i, how strictly the picture is; 1.5 keeps it, more adds contrast.
            guidance_order: one of `GUIDANCE_ORDERS`. `"text_first"` is DreamVideo's Eq. 5, guided by what the text
                means without the picture, then by the picture: for texts that tell all that is seen.
                `"picture_first"` is guided by the picture, then by what the text means for it (InstructPix2Pix,
                Eq. 3): what a short text leaves open stays as it is in the picture.
            retention_scale: factor of what the branch adds; 0 is the text-to-video model, which sees no picture.
            hold_first_frame: keep the first frame at the picture, as far as the VAE can: in each step it is the
                picture with that step's noise, as inpainting keeps what is known, and the other frames attend to it.
                Without, the branch alone says what it shows, as in the paper. Later stages hold theirs, too.
            fit: how PIL images get the shape of the frames: `"crop"` cuts two sides, `"pad"` puts it on white paper.
            latents: the initial noise `(batch, channels, num_frames, height / 8, width / 8)` of a single stage.
            drop_duplicate_frame: leave out the first frame of a later stage, which repeats the last before it.
            match_stage_colours: give each later stage the colours of the frame it begins with, see `match_colors`.
            output_type: with `"latent"`, the latents of all stages.
            callback_on_step_end: is called in each stage with steps from 0 on; `pipe.stage` tells which, from 0 on.
            interpolate: put a frame between every two of the whole clip, not after an interrupt.

        Returns:
            `AnimateDiffPipelineOutput`, or a tuple if `return_dict` is False, of `len(prompts) * num_frames` frames
            (one less for each later stage with `drop_duplicate_frame`) and those interpolated.

        Raises:
            ValueError: an argument is out of its range; the message names it.
            TypeError: `image` is no picture.
        """
        # 1. Check what can be checked before the first step
        check_choices(
            fit=(fit, FITS),
            guidance_order=(guidance_order, GUIDANCE_ORDERS),
            output_type=(output_type, OUTPUT_TYPES),
            sofp_mode=(sofp_mode, SOFP_MODES),
            flow_estimator=(None if callable(flow_estimator) else flow_estimator, (None, *FLOW_ESTIMATORS)),
        )
        self.unet = ensure_sparse_causal_attention(self.unet, self.motion_adapter)  # `pipe.unet` may be a new one
        prepare_branch(self.image_retention, self.unet)
        self.check_supported(retention_scale)
        sampling = self.resolve_sampling(
            num_inference_steps=num_inference_steps,
            guidance_scale=guidance_scale,
            image_guidance_scale=image_guidance_scale,
            eta=eta,
        )
        num_inference_steps, eta = sampling["num_inference_steps"], sampling["eta"]
        guidance_scale, image_guidance_scale = sampling["guidance_scale"], sampling["image_guidance_scale"]
        check_finite(
            guidance_scale=guidance_scale, image_guidance_scale=image_guidance_scale, retention_scale=retention_scale
        )
        tensor_inputs = list(callback_on_step_end_tensor_inputs or ())
        self.check_tensor_inputs(tensor_inputs)
        texts = list_stages(prompt, prompts)
        for text in texts:
            self.check_inputs(text, num_frames, height, width, num_inference_steps, eta, decode_chunk_size)
        check_num_inference_steps(self.scheduler, num_inference_steps)
        warn_about_betas(self.scheduler)
        check_stages(texts, image, retention_scale, latents, match_stage_colours and output_type == "latent")
        height = height or self.unet.config.sample_size * self.vae_scale_factor
        width = width or self.unet.config.sample_size * self.vae_scale_factor
        images = None if image is None else images_to_tensor(image, height, width, fit)
        batch_size = common_length(texts, images, negative_prompt)
        self.check_latents(latents, batch_size, num_frames, height, width)
        self.warn_about_truncated_text(negative_prompt)
        interpolate = interpolate and output_type != "latent"
        if interpolate:
            flow_estimator = self.get_flow_estimator(flow_estimator)

        self._guidance_scale, self._clip_skip, self._interrupt = guidance_scale, clip_skip, False
        self._cross_attention_kwargs = cross_attention_kwargs
        device = self._execution_device
        clips: list[torch.Tensor] = []
        try:
            # 2. Encode the texts of all stages; warnings about truncated ones come before the first step
            sees_image = [retention_scale != 0 and (stage > 0 or images is not None) for stage in range(len(texts))]
            terms_of_stages = [
                guidance_terms(guidance_scale, image_guidance_scale, text is not None, has_image, guidance_order)
                for text, has_image in zip(texts, sees_image, strict=True)
            ]
            embeds_of_stages = [
                self.encode_for_frames(text, negative_prompt, batch_size, terms, num_frames)
                for text, terms in zip(texts, terms_of_stages, strict=True)
            ]
            for self._stage, (terms, embeds) in enumerate(zip(terms_of_stages, embeds_of_stages, strict=True)):
                # 3. Prepare the timesteps
                self.scheduler.set_timesteps(num_inference_steps, device=device)
                timesteps = self.scheduler.timesteps

                # 4. Prepare the latents, and the images that condition them
                channels, dtype = self.unet.config.in_channels, embeds["prompt_embeds"].dtype
                sample = self.prepare_latents(
                    batch_size, channels, num_frames, height, width, dtype, device, generator, latents
                )
                stage_images = images if sees_image[self.stage] else None
                inpainting = None
                if hold_first_frame and stage_images is not None:
                    clean = self.encode_images(stage_images, sample)
                    inpainting = FirstFrameInpainting(self.scheduler, clean, sample[:, :, :1])
                stacked = stack_images(stage_images, terms, (batch_size, 3, height, width)).to(device)

                # 5. Denoise, several times with FreeInit, which sets timesteps of its own
                predict_noise = self.noise_predictor(embeds, stacked, list(terms.values()), retention_scale)
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
                        self.prepare_extra_step_kwargs(generator, eta),
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
                    if match_stage_colours and clips:
                        clip = map_clips(match_colors, clip, images / 2 + 0.5)
                    end = clip[:, :, -1:]
                clips.append(clip[:, :, 1:] if drop_duplicate_frame and clips else clip)
                self.maybe_free_model_hooks()
                if is_last:
                    break
                images = end[:, :, 0] * 2 - 1
            video = torch.cat(clips, dim=2)

            # 7. Interpolate
            if interpolate and not self.interrupt:
                interpolator = FrameInterpolator(flow_estimator, SparseFlowProjection(sofp_mode), FlowWarper())
                video = map_clips(interpolator.interpolate_clip, video)

            # 8. Post-process
            if output_type != "latent":
                video = self.postprocess_frames(video, output_type)
        finally:
            self.maybe_free_model_hooks()

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
        """Return the sampling settings of a call that gives these; `None` asks for what the model recommends."""
        return resolve_sampling(self.scheduler.config, "image", **given)

    def noise_predictor(
        self,
        embeds: dict[str, torch.Tensor],
        images: torch.Tensor,
        coefficients: list[float],
        retention_scale: float,
    ) -> NoisePredictor:
        """
        Return the predictor of guided noise: all guidance terms in one batch, through retention branch and UNet.

        Args:
            embeds: `"prompt_embeds"`, `(terms * batch * num_frames, tokens, dim)`, read in every step.
            images: Image of each term and clip, `(terms * batch, 3, height, width)` in [-1, 1].
            coefficients: Coefficient of each guidance term.
            retention_scale: Factor of the branch's residuals.
        """

        def predict_noise(latents: torch.Tensor, timestep: torch.Tensor, step: int) -> torch.Tensor:
            latents = self.scheduler.scale_model_input(latents, timestep)
            prompt_embeds, residuals = embeds["prompt_embeds"], {}
            if retention_scale != 0:
                down, mid = self.image_retention(latents, timestep, prompt_embeds, images, retention_scale)
                residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            return self.unet(
                latents,
                timestep,
                encoder_hidden_states=prompt_embeds,
                cross_attention_kwargs=self.cross_attention_kwargs,
                **residuals,
            ).sample

        return guide_by_text_and_image(predict_noise, coefficients)

    def encode_images(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Encode images to one frame each, `(batch, channels, 1, height, width)`, for clips like `latents`."""
        encoded = self.vae.encode(images.to(self._execution_device, self.vae.dtype))
        encoded = retrieve_latents(encoded, sample_mode="argmax")[:, :, None] * self.vae.config.scaling_factor
        return encoded.to(latents.dtype).expand(len(latents), -1, -1, -1, -1)

    def encode_for_frames(
        self,
        text: str | list[str] | None,
        negative_prompt: str | list[str] | None,
        batch_size: int,
        terms: Iterable[tuple[bool, bool]],
        num_frames: int,
    ) -> dict[str, torch.Tensor]:
        """
        Encode the texts of one stage to embeddings that a callback may replace by name.

        Args:
            text: One text for all clips, one per clip, or `None` for the null text.
            negative_prompt: The null text; empty if `None`.
            batch_size: Number of clips.
            terms: (sees the text, sees the image) of each guidance term.
            num_frames: Number of frames per clip.

        Returns:
            `"prompt_embeds"`, a copy per term, clip and frame, `(terms * batch * num_frames, tokens, dim)`.
        """
        null = as_list(negative_prompt or "", batch_size)
        with_text, without = self.encode_prompt(
            null if text is None else as_list(text, batch_size),
            self._execution_device,
            1,
            True,
            null,
            lora_scale=(self.cross_attention_kwargs or {}).get("scale"),
            clip_skip=self.clip_skip,
        )
        embeds = torch.cat([with_text if has_text else without for has_text, _ in terms])
        return {"prompt_embeds": embeds.repeat_interleave(num_frames, dim=0)}

    def check_supported(self, retention_scale: float) -> None:
        """
        Check that this pipeline can work with its components and settings.

        Raises:
            ValueError: The retention branch is missing or of another VAE, or FreeNoise or an IP-Adapter is active.
        """
        if self.image_retention is None and retention_scale != 0:
            raise ValueError("`image_retention` must be a component of this pipeline, or `retention_scale` must be 0.")
        if self.image_retention is not None:
            self.image_retention.check_image_factor(self.vae_scale_factor)
        if self.free_noise_enabled:
            raise ValueError(
                "FreeNoise is not supported with images; call `pipe.disable_free_noise()` and pass `prompts`."
            )
        if self.unet.config.encoder_hid_dim_type == "ip_image_proj":
            raise ValueError("IP-Adapters are not supported with images; call `pipe.unload_ip_adapter()`.")


def prepare_branch(branch: ImageRetention | None, unet: UNetMotionModel | None) -> None:
    """Check that a retention branch fits this UNet, and install the attention that its config names."""
    if branch is not None and unet is not None:
        branch.check_fits(unet)
        ensure_configured_attention(branch)
