"""A painting, a text, or both to landscape-painting video: DreamVideo's image retention on our motion modules.

As `pipeline.py`, this file and those that it imports relatively are all the code a Hub repository needs; it holds
exactly one pipeline class.
"""

import math
from collections.abc import Callable
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

from .landscape_flow_interpolation import SOFP_MODES, interpolate_frames
from .landscape_guidance import (
    GUIDANCE_ORDERS,
    as_list,
    common_length,
    guidance_branches,
    list_stages,
    stack_pictures,
)
from .landscape_held_frame import HeldFrame
from .landscape_image_retention import ImageRetention
from .landscape_motion_attention import (
    build_motion_unet,
    install_sparse_causal_attention,
    installed_modes,
    with_sparse_causal_attention,
)
from .landscape_optical_flow import FLOW_ESTIMATORS, FlowEstimator, FlowEstimatorCache
from .landscape_pictures import FITS, match_colours, pictures_to_tensor
from .landscape_pipeline_parts import BRANCH, OUTPUT_TYPES, LandscapePipelineParts, check_choices
from .landscape_scheduler import check_num_inference_steps, warn_about_betas, with_linear_betas


class LandscapeImageToVideoPipeline(LandscapePipelineParts, AnimateDiffPipeline):
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
        num_inference_steps: int = 25,
        guidance_scale: float = 8.0,
        image_guidance_scale: float = 1.5,
        guidance_order: str = "text_first",
        retention_scale: float = 1.0,
        negative_prompt: str | list[str] | None = None,
        hold_first_frame: bool = False,
        fit: str = "crop",
        eta: float = 0.0,
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
                see `pictures_to_tensor`.
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
            match_stage_colours: give each later stage the colours of the frame it begins with, see `match_colours`.
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
        # 1. Check everything that can be known before the first step
        check_choices(
            fit=(fit, FITS),
            guidance_order=(guidance_order, GUIDANCE_ORDERS),
            output_type=(output_type, OUTPUT_TYPES),
            sofp_mode=(sofp_mode, SOFP_MODES),
            flow_estimator=(None if callable(flow_estimator) else flow_estimator, (None, *FLOW_ESTIMATORS)),
        )
        self.unet = with_sparse_causal_attention(self.unet, self.motion_adapter)  # someone may have assigned another
        prepare_branch(self.image_retention, self.unet)
        self.check_scales(guidance_scale, image_guidance_scale, retention_scale)
        callback_on_step_end_tensor_inputs = callback_on_step_end_tensor_inputs or ()
        for name in callback_on_step_end_tensor_inputs:
            if name not in self._callback_tensor_inputs:
                raise ValueError(
                    f"`callback_on_step_end_tensor_inputs` has {name!r}, allowed are latents, prompt_embeds."
                )
        texts = list_stages(prompt, prompts)
        for text in texts:
            self.check_numbers(text, num_frames, height, width, num_inference_steps, eta, decode_chunk_size)
        check_num_inference_steps(self.scheduler, num_inference_steps)
        warn_about_betas(self.scheduler)
        self.check_stages(texts, image, retention_scale, latents, match_stage_colours and output_type == "latent")
        height = height or self.unet.config.sample_size * self.vae_scale_factor
        width = width or self.unet.config.sample_size * self.vae_scale_factor
        pictures = None if image is None else pictures_to_tensor(image, height, width, fit)
        batch_size = common_length(texts, pictures, negative_prompt)
        self.check_latents(latents, batch_size, num_frames, height, width)
        self.warn_about_cut_text(negative_prompt)
        interpolate = interpolate and output_type != "latent"
        if interpolate:
            flow_estimator = self.get_flow_estimator(flow_estimator)

        self._guidance_scale, self._clip_skip, self._interrupt = guidance_scale, clip_skip, False
        self._cross_attention_kwargs = cross_attention_kwargs
        stages: list[torch.Tensor] = []
        try:
            # 2. Encode the texts of all stages, one for every branch of the guidance: what is too long is said now
            sees = [retention_scale != 0 and (stage > 0 or pictures is not None) for stage in range(len(texts))]
            branches_of = [
                guidance_branches(guidance_scale, image_guidance_scale, text is not None, has_picture, guidance_order)
                for text, has_picture in zip(texts, sees, strict=True)
            ]
            text_states = [
                self.encode_texts(text, negative_prompt, batch_size, branches)
                for text, branches in zip(texts, branches_of, strict=True)
            ]
            for stage, branches in enumerate(branches_of):
                self._stage = stage
                # 3. Prepare texts, pictures, timesteps and latents, denoise
                prompt_embeds = text_states[stage].repeat_interleave(num_frames, dim=0)  # one copy per frame
                seen = pictures if sees[stage] else None
                shown = stack_pictures(seen, branches, (batch_size, 3, height, width)).to(self._execution_device)
                self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
                sample = self.prepare_latents(
                    batch_size,
                    self.unet.config.in_channels,
                    num_frames,
                    height,
                    width,
                    prompt_embeds.dtype,
                    self._execution_device,
                    generator,
                    latents,
                )
                extra = self.prepare_extra_step_kwargs(generator, eta)
                timesteps = self.scheduler.timesteps
                self._num_timesteps = len(timesteps)
                held = None
                if hold_first_frame and seen is not None:
                    held = HeldFrame(self.scheduler, self.encode_pictures(seen, sample), sample[:, :, :1])
                    sample = held.put_into(sample, step=0)
                with self.progress_bar(total=len(timesteps)) as progress_bar:
                    for step, timestep in enumerate(timesteps):
                        if self.interrupt:
                            break
                        noise_pred = self.predict_noise(
                            sample, timestep, prompt_embeds, shown, list(branches.values()), retention_scale
                        )
                        sample = self.scheduler.step(noise_pred, timestep, sample, **extra).prev_sample
                        if held is not None:
                            sample = held.put_into(sample, step + 1)
                        if callback_on_step_end is not None:
                            tensors = {"latents": sample, "prompt_embeds": prompt_embeds}
                            given = {name: tensors[name] for name in callback_on_step_end_tensor_inputs}
                            changed = callback_on_step_end(self, step, timestep, given)
                            sample = changed.pop("latents", sample)
                            prompt_embeds = changed.pop("prompt_embeds", prompt_embeds)
                        progress_bar.update()

                # 4. Decode to frames in [0, 1]; the last one is what the next stage begins with
                is_last = stage == len(texts) - 1 or self.interrupt
                if output_type == "latent":
                    clip, end = sample, sample[:, :, -1:]
                    end = None if is_last else self.video_processor.denormalize(self.decode_latents(end, 1))
                else:
                    clip = self.video_processor.denormalize(self.decode_latents(sample, decode_chunk_size))
                    if match_stage_colours and stages:
                        clip = torch.stack(
                            [
                                match_colours(one.transpose(0, 1), picture / 2 + 0.5).transpose(0, 1)
                                for one, picture in zip(clip, pictures, strict=True)
                            ]
                        )
                    end = clip[:, :, -1:]
                stages.append(clip[:, :, 1:] if drop_duplicate_frame and stages else clip)
                self.maybe_free_model_hooks()
                if is_last:
                    break
                pictures = end[:, :, 0] * 2 - 1
            video = torch.cat(stages, dim=2)

            # 5. Interpolate and post-process
            if interpolate and not self.interrupt:
                clips = [clip.transpose(0, 1) for clip in video]  # (num_frames, channels, height, width)
                clips = [interpolate_frames(clip, flow_estimator, sofp_mode=sofp_mode) for clip in clips]
                video = torch.stack([clip.transpose(0, 1) for clip in clips])
            if output_type != "latent":
                video = self.video_processor.postprocess_video(
                    video, output_type=output_type, do_denormalize=[False] * video.shape[2]
                )
        finally:
            self.maybe_free_model_hooks()

        if not return_dict:
            return (video,)
        return AnimateDiffPipelineOutput(frames=video)

    @property
    def stage(self) -> int:
        """Which stage is computed, from 0 on."""
        return self._stage

    @property
    def motion_positions(self) -> int:
        """The most frames of one stage."""
        models = [model for model in (self.unet, self.image_retention) if model is not None]
        return min(model.config.motion_max_seq_length for model in models)

    def predict_noise(
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor,
        prompt_embeds: torch.Tensor,
        pictures: torch.Tensor,
        coefficients: list[float],
        retention_scale: float,
    ) -> torch.Tensor:
        """The guided noise prediction for `sample`, all branches of the guidance in one batch."""
        batch = self.scheduler.scale_model_input(torch.cat([sample] * len(coefficients)), timestep)
        residuals = {}
        if retention_scale != 0:
            down, mid = self.image_retention(batch, timestep, prompt_embeds, pictures, retention_scale)
            residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        noise_pred = self.unet(
            batch,
            timestep,
            encoder_hidden_states=prompt_embeds,
            cross_attention_kwargs=self._cross_attention_kwargs,
            **residuals,
        ).sample
        # In float32: large coefficients of opposite signs would lose the last digits of float16.
        parts = noise_pred.float().chunk(len(coefficients))
        return sum(coefficient * part for coefficient, part in zip(coefficients, parts, strict=True)).to(sample.dtype)

    def encode_pictures(self, pictures: torch.Tensor, sample: torch.Tensor) -> torch.Tensor:
        """The latents of the pictures, as one frame of `sample` each: `(batch, channels, 1, height, width)`."""
        encoded = self.vae.encode(pictures.to(self._execution_device, self.vae.dtype))
        encoded = retrieve_latents(encoded, sample_mode="argmax")[:, :, None] * self.vae.config.scaling_factor
        return encoded.to(sample.dtype).expand(len(sample), -1, -1, -1, -1)

    def encode_texts(
        self,
        text: str | list[str] | None,
        negative_prompt: str | list[str] | None,
        batch_size: int,
        branches: dict[tuple[bool, bool], float],
    ) -> torch.Tensor:
        """Text states `(branches * batch, tokens, dim)`; the null text is `negative_prompt`, empty without one."""
        null = as_list(negative_prompt or "", batch_size)
        lora_scale = (self._cross_attention_kwargs or {}).get("scale")
        with_text, without = self.encode_prompt(
            null if text is None else as_list(text, batch_size),
            self._execution_device,
            1,
            True,
            null,
            lora_scale=lora_scale,
            clip_skip=self._clip_skip,
        )
        return torch.cat([with_text if has_text else without for has_text, _ in branches])

    def check_scales(self, guidance_scale: float, image_guidance_scale: float, retention_scale: float) -> None:
        """Raise a `ValueError` for a scale that is no number, and for a branch or a mode that is missing."""
        scales = {"guidance_scale": guidance_scale, "image_guidance_scale": image_guidance_scale}
        for name, scale in {**scales, "retention_scale": retention_scale}.items():
            if not math.isfinite(scale):
                raise ValueError(f"`{name}` is {scale}, must be a finite number.")
        if self.image_retention is None and retention_scale != 0:
            raise ValueError("this pipeline has no `image_retention`; give it one, or `retention_scale=0`.")
        if self.image_retention is not None and self.image_retention.image_factor != self.vae_scale_factor:
            raise ValueError(
                f"`image_retention` is for pictures {self.image_retention.image_factor} times as large as the latents,"
                f" but those of this VAE are {self.vae_scale_factor} times as large."
            )
        if self.free_noise_enabled or self.free_init_enabled:
            raise ValueError("FreeNoise and FreeInit know nothing of pictures; disable them, and use `prompts`.")
        if self.unet.config.encoder_hid_dim_type == "ip_image_proj":
            raise ValueError("this pipeline takes no IP-Adapter; call `pipe.unload_ip_adapter()`.")

    def check_stages(
        self,
        texts: list[str | list[str] | None],
        image: Any,
        retention_scale: float,
        latents: torch.Tensor | None,
        colours_of_latents: bool,
    ) -> None:
        """Raise a `ValueError` for arguments that contradict each other."""
        if texts == [None] and image is None:
            raise ValueError("there is neither a `prompt` nor an `image`; give one or both.")
        if texts == [None] and retention_scale == 0:
            raise ValueError("`retention_scale` is 0, so that the `image` is not seen, and there is no `prompt`.")
        if len(texts) > 1 and retention_scale == 0:
            raise ValueError("`retention_scale` is 0, so that a stage would not see the end of the one before.")
        if len(texts) > 1 and latents is not None:
            raise ValueError(f"`latents` are for one stage, but there are {len(texts)} `prompts`.")
        if colours_of_latents:
            raise ValueError("`match_stage_colours` needs frames, but `output_type` is 'latent'.")


def prepare_branch(branch: ImageRetention | None, unet: UNetMotionModel | None) -> None:
    """Check that a branch is for this UNet, and make it attend as its config says."""
    if branch is None or unet is None:
        return
    branch.check_fits(unet)
    mode = branch.config.sparse_causal_mode
    if installed_modes(branch) != {mode}:  # again and again, a compiled branch would be compiled anew
        install_sparse_causal_attention(branch, mode)
