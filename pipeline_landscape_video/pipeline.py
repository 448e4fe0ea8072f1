"""Text to landscape-painting video with Stable Diffusion, NADM motion modules and sparse optical flow projection.

This file and those that it imports relatively are all the code a Hub repository needs: diffusers loads them by
`custom_pipeline`, flat in one folder. So they import nothing else of this package, and this file holds exactly one
pipeline class.
"""

from collections.abc import Callable
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

from .landscape_flow_interpolation import SOFP_MODES, interpolate_frames
from .landscape_motion_attention import build_motion_unet, with_sparse_causal_attention
from .landscape_optical_flow import FLOW_ESTIMATORS, FlowEstimator, FlowEstimatorCache
from .landscape_pipeline_parts import OUTPUT_TYPES, LandscapePipelineParts, check_choices, check_keywords
from .landscape_scheduler import check_num_inference_steps, warn_about_betas, with_linear_betas


class LandscapeVideoPipeline(LandscapePipelineParts, AnimateDiffPipeline):
    """
    Pipeline for landscape-painting video from text (NADM, ConCLVD).

    Everything that `AnimateDiffPipeline` can do (LoRA, IP-Adapter, FreeInit, FreeNoise, FreeU, single files,
    offloading) works here too. What is added: the sparse-causal attention that the adapter's config asks for, linear
    betas for a Stable Diffusion checkpoint, checks before anything is computed, and interpolation from N to 2N - 1
    frames.

    Args:
        vae: decodes latents to frames.
        text_encoder: encodes the prompt.
        tokenizer: splits the prompt into at most 77 tokens.
        unet: an image UNet, which gets the motion modules of `motion_adapter` (the weights are copied), or a motion
            UNet, which has its own. A motion UNet whose attention has to change is taken as a second view of the same
            weights, so that other pipelines that use it go on as before.
        motion_adapter: the motion modules; may be `None` with a motion UNet only. `sparse_causal_mode` in its config
            says how its second attention sees other frames (that of a motion UNet's config comes first; without both
            it is `"full"`, as in AnimateDiff).
        scheduler: with an image UNet, one with `scaled_linear` betas (as Stable Diffusion's own) is replaced by DDIM
            with linear betas, which motion modules are trained with. Any other stays as it is.
        feature_extractor: prepares images for `image_encoder`.
        image_encoder: encodes images for an IP-Adapter.

    Raises:
        ValueError: an image UNet without an adapter, or with one that does not fit it.

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
        # `unet` and `scheduler` may be None: diffusers builds pipelines of a few components only, to encode prompts.
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
        # Not a component: `pipe.to()` asks every component for its dtype, and a flow estimator is any callable.
        self._flow_estimators = FlowEstimatorCache()

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | list[str] | None = None,
        num_frames: int | None = 16,
        height: int | None = None,
        width: int | None = None,
        num_inference_steps: int = 25,
        guidance_scale: float = 8.0,
        negative_prompt: str | list[str] | None = None,
        num_videos_per_prompt: int | None = 1,
        eta: float = 0.0,
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
        **kwargs: Any,
    ) -> AnimateDiffPipelineOutput | tuple:
        """
        Generate one clip per prompt.

        The arguments up to `decode_chunk_size` are those of `AnimateDiffPipeline`, with NADM's defaults: 16 frames,
        25 steps, guidance 8.

        Args:
            num_videos_per_prompt: 1; for more clips of a prompt, repeat it.
            num_frames: frames to sample, at most the positions of the motion adapter (FreeNoise lifts that).
            eta: how much noise each step of DDIM draws anew, from 0 to 1.
            height: of the frames in pixels, a multiple of 8; the UNet's own size if `None`.
            width: as `height`.
            output_type: `"pil"`, `"np"`, `"pt"` (both in [0, 1]) or `"latent"` (before decoding, not interpolated).
            interpolate: put a frame between every two, so that N frames become 2N - 1; those sampled stay untouched
                at the even indices. After an interrupt the N frames are returned as they are.
            sofp_mode: how flow makes the half-time position, one of `SOFP_MODES` (NADM, Eq. 14).
            flow_estimator: one of `FLOW_ESTIMATORS`, or a callable from two batches of frames `(pairs, 3, height,
                width)` in [0, 1] to the flow in pixels, x then y, `(pairs, 2, height, width)`. `None` takes RAFT where
                its weights are at hand, else DIS.

        Returns:
            `AnimateDiffPipelineOutput`, or a tuple if `return_dict` is False. Its `frames` hold, for each prompt, a
            list of PIL images (`"pil"`), or are `(batch, num_frames, height, width, 3)` (`"np"`), `(batch, num_frames,
            3, height, width)` (`"pt"`) or `(batch, channels, num_frames, height / 8, width / 8)` (`"latent"`).

        Raises:
            ValueError: an argument is out of its range; the message names it.
            TypeError: a keyword is unknown.
        """
        # 1. Check everything that can be known before the first step
        check_keywords(kwargs, type(self).__call__)
        check_choices(
            output_type=(output_type, OUTPUT_TYPES),
            sofp_mode=(sofp_mode, SOFP_MODES),
            flow_estimator=(None if callable(flow_estimator) else flow_estimator, (None, *FLOW_ESTIMATORS)),
        )
        self.unet = with_sparse_causal_attention(self.unet, self.motion_adapter)  # someone may have assigned another
        if num_videos_per_prompt not in (None, 1):  # the parent would make one and say nothing
            raise ValueError(f"`num_videos_per_prompt` is {num_videos_per_prompt}, must be 1: repeat the prompt.")
        self.check_numbers(prompt, num_frames, height, width, num_inference_steps, eta, decode_chunk_size)
        batch_size = len(prompt) if isinstance(prompt, list) else 1 if prompt_embeds is None else len(prompt_embeds)
        self.check_latents(latents, batch_size, num_frames, height, width)
        check_num_inference_steps(self.scheduler, num_inference_steps)
        warn_about_betas(self.scheduler)
        if guidance_scale > 1:
            self.warn_about_cut_text(negative_prompt)
        interpolate = interpolate and output_type != "latent"
        if interpolate:
            flow_estimator = self.get_flow_estimator(flow_estimator)

        try:
            # 2. Encode the prompt, prepare timesteps and latents, denoise
            video = super().__call__(
                prompt=prompt,
                num_frames=num_frames,
                height=height,
                width=width,
                num_inference_steps=num_inference_steps,
                guidance_scale=guidance_scale,
                negative_prompt=negative_prompt,
                num_videos_per_prompt=num_videos_per_prompt,
                eta=eta,
                generator=generator,
                latents=latents,
                prompt_embeds=prompt_embeds,
                negative_prompt_embeds=negative_prompt_embeds,
                ip_adapter_image=ip_adapter_image,
                ip_adapter_image_embeds=ip_adapter_image_embeds,
                output_type="latent",
                return_dict=False,
                cross_attention_kwargs=cross_attention_kwargs,
                clip_skip=clip_skip,
                callback_on_step_end=callback_on_step_end,
                callback_on_step_end_tensor_inputs=list(callback_on_step_end_tensor_inputs or ()),
                decode_chunk_size=decode_chunk_size,
                **kwargs,
            )[0]

            if output_type != "latent":
                # 3. Decode to frames in [0, 1]: flow means nothing on what the VAE overshoots
                video = self.video_processor.denormalize(self.decode_latents(video, decode_chunk_size))

                # 4. Interpolate
                if interpolate and not self.interrupt:
                    clips = [clip.transpose(0, 1) for clip in video]  # (num_frames, channels, height, width)
                    clips = [interpolate_frames(clip, flow_estimator, sofp_mode=sofp_mode) for clip in clips]
                    video = torch.stack([clip.transpose(0, 1) for clip in clips])

                # 5. Post-process
                video = self.video_processor.postprocess_video(
                    video, output_type=output_type, do_denormalize=[False] * video.shape[2]
                )
        finally:
            # The parent did so before the VAE was used; without a second time an offloaded VAE would stay loaded.
            self.maybe_free_model_hooks()

        if not return_dict:
            return (video,)
        return AnimateDiffPipelineOutput(frames=video)
