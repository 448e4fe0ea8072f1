"""Text to landscape-painting video with Stable Diffusion, NADM motion modules and sparse optical flow projection.

This file and those that it imports relatively are all the code a Hub repository needs: diffusers loads them by
`custom_pipeline`, flat in one folder. So they import nothing else of this package, and this file holds exactly one
pipeline class.
"""

import copy
import difflib
import inspect
import logging
import math
from collections.abc import Callable
from numbers import Integral
from typing import Any

import torch
from diffusers import (
    AnimateDiffPipeline,
    AutoencoderKL,
    DDIMScheduler,
    MotionAdapter,
    SchedulerMixin,
    UNet2DConditionModel,
    UNetMotionModel,
)
from diffusers.image_processor import PipelineImageInput
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from diffusers.pipelines.animatediff import AnimateDiffPipelineOutput
from torch import nn
from transformers import CLIPImageProcessor, CLIPTextModel, CLIPTokenizer, CLIPVisionModelWithProjection

from .landscape_flow_interpolation import SOFP_MODES, interpolate_frames
from .landscape_motion_attention import check_adapter_fits, install_sparse_causal_attention
from .landscape_optical_flow import FLOW_ESTIMATORS, FlowEstimator, load_flow_estimator


logger = logging.getLogger(__name__)

OUTPUT_TYPES = ("pil", "np", "pt", "latent")


class LandscapeVideoPipeline(AnimateDiffPipeline):
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
            if motion_adapter is None:
                raise ValueError("`unet` is an image UNet, so `motion_adapter` must be given: nothing moves without.")
            check_adapter_fits(unet, motion_adapter)
            scheduler = with_linear_betas(scheduler)
            unet = UNetMotionModel.from_unet2d(unet, motion_adapter)
            install_sparse_causal_attention(unet, motion_adapter.config.get("sparse_causal_mode", "full"))
        elif isinstance(unet, UNetMotionModel):
            warn_about_idle_adapter(unet, motion_adapter)
        super().__init__(
            vae=vae,
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            unet=with_sparse_causal_attention(unet, motion_adapter),
            motion_adapter=motion_adapter,
            scheduler=scheduler,
            feature_extractor=feature_extractor,
            image_encoder=image_encoder,
        )
        # Not a component: `pipe.to()` asks every component for its dtype, and a flow estimator is any callable.
        self._flow_estimators: dict[tuple, FlowEstimator] = {}

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> dict[str, Any] | tuple:
        """As the parent's. A folder that names its copy of this class gets this one: its code is not run."""
        loaded = super().load_config(*args, **kwargs)
        config = loaded[0] if isinstance(loaded, tuple) else loaded
        if config.get("_class_name") == ["pipeline", cls.__name__]:
            config["_class_name"] = cls.__name__
        return loaded

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
        check_choices(output_type, sofp_mode, flow_estimator)
        self.unet = with_sparse_causal_attention(self.unet, self.motion_adapter)  # someone may have assigned another
        if num_videos_per_prompt not in (None, 1):  # the parent would make one and say nothing
            raise ValueError(f"`num_videos_per_prompt` is {num_videos_per_prompt}, must be 1: repeat the prompt.")
        self.check_sizes(prompt, num_frames, height, width, num_inference_steps, latents)
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
                    video = self.interpolate_video(video, flow_estimator, sofp_mode)

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

    def check_sizes(
        self,
        prompt: str | list[str] | dict[int, str] | None,
        num_frames: int,
        height: int | None,
        width: int | None,
        num_inference_steps: int,
        latents: torch.Tensor | None,
    ) -> None:
        """Raise a `ValueError` that names the number which cannot work with these models."""
        if prompt is not None and len(prompt) == 0 and not isinstance(prompt, str):
            raise ValueError("`prompt` is empty, give at least one.")
        for name, number in (("num_frames", num_frames), ("num_inference_steps", num_inference_steps)):
            if not isinstance(number, Integral) or number < 1:
                raise ValueError(f"`{name}` is {number}, must be a whole number of at least 1.")
        multiple = math.lcm(8, self.vae_scale_factor)
        for name, size in (("height", height), ("width", width)):
            if size is not None and (size <= 0 or size % multiple != 0):
                raise ValueError(f"`{name}` is {size}, must be a positive multiple of {multiple}.")
        if latents is not None and not self.free_noise_enabled and latents.shape[2] != num_frames:
            raise ValueError(f"`num_frames` is {num_frames}, but `latents` hold {latents.shape[2]} frames.")
        name, frames = "num_frames", num_frames
        if self.free_noise_enabled:  # it samples any number of frames, in windows of so many
            name, frames = "context_length", self._free_noise_context_length
        positions = self.unet.config.motion_max_seq_length
        if frames > positions:
            raise ValueError(f"`{name}` is {frames}, but this motion adapter has positions for at most {positions}.")

    def warn_about_cut_text(self, text: str | list[str] | dict[int, str] | None) -> None:
        """Warn with the end of a negative prompt that is too long; the parent warns about the prompt, but not here."""
        texts = [text] if isinstance(text, str) else list(text.values()) if isinstance(text, dict) else text or []
        for one in texts:  # a pipeline for embeddings only has no tokenizer
            tokens, limit = self.tokenizer(one).input_ids, self.tokenizer.model_max_length
            if len(tokens) > limit:
                cut = self.tokenizer.decode(tokens[limit - 1 : -1])
                logger.warning("`negative_prompt` is cut after %d tokens, this part is lost: %r", limit, cut)

    def get_flow_estimator(self, flow_estimator: str | FlowEstimator | None) -> FlowEstimator:
        """The callable for a name or `None`: made when first asked for, and anew when the pipeline was moved."""
        if callable(flow_estimator):
            return flow_estimator
        device = self._execution_device
        half = device.type == "cuda" and self.vae.dtype in (torch.float16, torch.bfloat16)  # slower on a CPU
        key = (flow_estimator, device, self.vae.dtype if half else torch.float32)
        if key not in self._flow_estimators:
            name, device, dtype = key
            self._flow_estimators = {key: load_flow_estimator(name, device=device, dtype=dtype)}
        return self._flow_estimators[key]

    def interpolate_video(self, video: torch.Tensor, flow_estimator: FlowEstimator, sofp_mode: str) -> torch.Tensor:
        """Clips `(batch, channels, num_frames, height, width)` in [0, 1] with 2 * num_frames - 1 frames instead."""
        clips = [clip.transpose(0, 1) for clip in video]  # (num_frames, channels, height, width)
        clips = [interpolate_frames(clip, flow_estimator, sofp_mode=sofp_mode) for clip in clips]
        return torch.stack([clip.transpose(0, 1) for clip in clips])

    def disable_free_noise(self) -> None:
        """Disable FreeNoise. (The parent's method fails on a middle block without motion modules, our default.)"""
        self._free_noise_context_length = None
        for block in (*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks):
            if hasattr(block, "motion_modules"):
                self._disable_free_noise_in_block(block)


def check_keywords(keywords: dict[str, Any], call: Callable) -> None:
    """Refuse what the parent would swallow without a word, such as `interpolat=False`."""
    for name in keywords:
        if name not in ("callback", "callback_steps"):  # deprecated, but the parent still takes them
            close = difflib.get_close_matches(name, inspect.signature(call).parameters, n=1)
            hint = f", did you mean `{close[0]}`?" if close else "."
            raise TypeError(f"`LandscapeVideoPipeline` got an unknown keyword `{name}`{hint}")


def check_choices(output_type: str, sofp_mode: str, flow_estimator: str | FlowEstimator | None) -> None:
    """Raise a `ValueError` for a word that is not among those to choose from."""
    choices = {"output_type": (output_type, OUTPUT_TYPES), "sofp_mode": (sofp_mode, SOFP_MODES)}
    if flow_estimator is not None and not callable(flow_estimator):
        choices["flow_estimator"] = (flow_estimator, FLOW_ESTIMATORS)
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            raise ValueError(f"`{name}` is {value!r}, must be one of {', '.join(allowed)}.")


def warn_about_idle_adapter(unet: UNetMotionModel, adapter: MotionAdapter | None) -> None:
    """Warn if a motion UNet comes with an adapter of other weights, which are not used."""
    in_unet = dict(unet.named_parameters())
    for name, weight in adapter.named_parameters() if adapter is not None else ():
        # A motion module acts through `proj_out`; an untrained one, all zero, is not used in either place.
        if name.endswith("proj_out.weight") and name in in_unet and not (weight.is_meta or in_unet[name].is_meta):
            if not torch.equal(weight.to(in_unet[name]), in_unet[name]):
                logger.warning(
                    "`unet` has motion modules of its own, the different weights of `motion_adapter` are not used;"
                    " `pipe.unet.load_motion_modules(motion_adapter)` puts them in."
                )
                return


def with_linear_betas(scheduler: SchedulerMixin | None) -> SchedulerMixin | None:
    """The scheduler itself, or DDIM with linear betas in the place of one whose betas are `scaled_linear`."""
    if scheduler is None or scheduler.config.get("beta_schedule") != "scaled_linear":
        return scheduler
    logger.warning(
        "%s with scaled_linear betas is replaced by DDIMScheduler with linear betas, as motion modules are trained;"
        " assign `pipe.scheduler` to use another.",
        type(scheduler).__name__,
    )
    return DDIMScheduler.from_config(
        scheduler.config, beta_schedule="linear", clip_sample=False, steps_offset=1, timestep_spacing="leading"
    )


def warn_about_betas(scheduler: SchedulerMixin) -> None:
    """Warn if the betas are not linear: a mismatch gives pale, flickering clips, and no error."""
    beta_schedule = scheduler.config.get("beta_schedule")
    if beta_schedule != "linear":
        logger.warning(
            "The betas of %s are %s, but motion modules are trained with linear ones: expect worse clips.",
            type(scheduler).__name__,
            beta_schedule,
        )


def with_sparse_causal_attention(unet: nn.Module | None, adapter: MotionAdapter | None) -> nn.Module | None:
    """
    A motion UNet that attends as its config says, else as the adapter's config says, else as in AnimateDiff.

    The UNet itself is returned if it does so already. Otherwise it is a second tree of modules over the same
    parameters and buffers: the UNet may belong to another pipeline (`from_pipe`), which must not change.
    """
    if unet is None:
        return None
    if isinstance(unet, UNet2DConditionModel):
        raise ValueError("`pipe.unet` is an image UNet; assign a `UNetMotionModel`, or make a new pipeline with it.")
    configs = [component.config for component in (unet, adapter) if component is not None]
    mode = next((config["sparse_causal_mode"] for config in configs if "sparse_causal_mode" in config), "full")
    motion_modules = [module for module in unet.modules() if isinstance(module, AnimateDiffTransformer3D)]
    installed = {getattr(module.transformer_blocks, "sparse_causal_mode", "full") for module in motion_modules}
    if installed == {mode}:
        return unet
    if isinstance(unet, UNetMotionModel):
        shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
        unet = copy.deepcopy(unet, shared)
    install_sparse_causal_attention(unet, mode)
    return unet
