"""Share loading, argument checks and flow estimators between the pipelines."""

import difflib
import functools
import inspect
import logging
import math
import os
from collections.abc import Callable, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import torch
from diffusers import AnimateDiffPipeline
from diffusers.models.attention_processor import FusedAttnProcessor2_0
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_img2img import retrieve_latents


logger = logging.getLogger(__name__)

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
PIPELINES = ("LandscapeVideoPipeline", "LandscapeImageToVideoPipeline", "LandscapeVideoEditingPipeline")
BRANCH = "image_retention"  # component of the image-to-video pipeline only


class LandscapePipelineMixin:
    """
    Methods for subclasses of `AnimateDiffPipeline`.

    It precedes `AnimateDiffPipeline` among the bases. The `__init__` of the subclass sets `_flow_estimators` to a
    `FlowEstimatorCache`.

    Attributes:
        frame_decoder: Model that decodes latents instead of the VAE, such as a `DoubleSizeDecoder`, whose frames are
            larger; `None` for the VAE. Not a component: it is neither saved nor exported with the pipeline.
    """

    frame_decoder: torch.nn.Module | None = None

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """
        Read a `model_index.json`, from a folder or the Hub.

        If the index names a copy of one of our classes from its own repository, this class replaces it, and the code
        of the repository does not run. Components that this class does not have are left out.
        """
        config = super()._dict_from_json_file(json_file, *args, **kwargs)
        if isinstance(config.get("_class_name"), list) and config["_class_name"][1] in PIPELINES:
            config["_class_name"] = cls.__name__
        if BRANCH not in inspect.signature(cls.__init__).parameters:
            config.pop(BRANCH, None)
        return config

    @property
    def max_num_frames(self) -> int:
        """Largest number of frames in one clip: the positions of the motion modules."""
        return self.unet.config.motion_max_seq_length

    def clip_size(self, height: int | None = None, width: int | None = None) -> tuple[int, int]:
        """Return height and width in pixels that clips are sampled at; `None` is the size the UNet was trained at."""
        side = self.unet.config.sample_size * self.vae_scale_factor
        return height or side, width or side

    def latent_shape(self, batch_size: int, num_frames: int, height: int, width: int) -> tuple[int, ...]:
        """Return the shape of the latents of clips, `(batch, channels, num_frames, height / 8, width / 8)`."""
        sides = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        return (batch_size, self.unet.config.in_channels, num_frames, *sides)

    @property
    def num_free_init_iters(self) -> int:
        """Number of runs of the denoising loop: 1 without FreeInit."""
        return self._free_init_num_iters if self.free_init_enabled else 1

    @functools.wraps(AnimateDiffPipeline.encode_prompt, assigned=())  # for its signature; this docstring stays
    def encode_prompt(self, *args: Any, **kwargs: Any) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Encode prompts as `AnimateDiffPipeline` does, with `clip_skip` for any version of transformers.

        diffusers reads `text_model` of the text encoder, an attribute that `CLIPTextModel` lacks in transformers 5.
        """
        encoder = self.text_encoder
        is_flat = encoder is not None and not hasattr(encoder, "text_model")
        if is_flat:
            encoder.__dict__["text_model"] = encoder  # bypasses `nn.Module`, so that no submodule is registered
        try:
            return super().encode_prompt(*args, **kwargs)
        finally:
            if is_flat:
                del encoder.__dict__["text_model"]

    def check_inputs(
        self,
        prompt: str | list[str] | dict[int, str] | None,
        num_frames: int,
        height: int | None,
        width: int | None,
        num_inference_steps: int,
        eta: float,
        decode_chunk_size: int,
    ) -> None:
        """
        Check the arguments that both pipelines take.

        Raises:
            ValueError: An argument cannot work with these models; the message names it.
        """
        if not isinstance(prompt, str | list | dict | None):
            raise ValueError(f"`prompt` must be a string, a dictionary or a list, got {prompt!r}.")
        if prompt is not None and len(prompt) == 0 and not isinstance(prompt, str):
            raise ValueError("`prompt` must hold at least one string, got an empty list.")
        counts = {
            "num_frames": num_frames,
            "num_inference_steps": num_inference_steps,
            "decode_chunk_size": decode_chunk_size,
        }
        for name, number in counts.items():
            if not isinstance(number, Integral) or number < 1:
                raise ValueError(f"`{name}` must be a whole number of at least 1, got {number}.")
        if not isinstance(eta, Real) or not 0 <= eta <= 1:  # DDIM would take the square root of a negative number
            raise ValueError(f"`eta` must be between 0 and 1, got {eta}.")
        multiple = math.lcm(8, self.vae_scale_factor)
        for name, size in (("height", height), ("width", width)):
            if size is not None and (size <= 0 or size % multiple != 0):
                raise ValueError(f"`{name}` must be a positive multiple of {multiple}, got {size}.")
        self.check_fused_lora()

    def check_fused_lora(self) -> None:
        """
        Refuse projections that `fuse_qkv_projections` copied while LoRA layers act on them.

        diffusers runs the copies, so the LoRA would have no effect, whichever of the two came first. Sparse-causal
        attention calls the projections themselves.

        Raises:
            ValueError: The UNet has such projections.
        """
        for module in self.unet.modules():
            if not isinstance(getattr(module, "processor", None), FusedAttnProcessor2_0):
                continue
            if getattr(module, "sparse_causal_mode", "full") != "full":
                continue
            copied = [module.to_k, module.to_v, *([] if module.is_cross_attention else [module.to_q])]
            if any(hasattr(layer, "lora_A") and not (layer.merged or layer.disable_adapters) for layer in copied):
                raise ValueError(
                    "LoRA weights have no effect on projections fused by `fuse_qkv_projections`; call"
                    " `pipe.unfuse_qkv_projections()`, or merge the LoRA with `pipe.fuse_lora()` and"
                    " `pipe.unload_lora_weights()` before fusing."
                )

    def check_latents(self, latents: torch.Tensor | None, shape: tuple[int, ...]) -> None:
        """
        Check that initial latents have this shape. With FreeNoise, which repeats them, any number of frames is valid.

        Raises:
            ValueError: The shape differs.
        """
        if latents is None:
            return
        given = tuple(latents.shape)
        if self.free_noise_enabled and len(given) == 5:
            shape = (*shape[:2], given[2], *shape[3:])
        if given != shape:
            raise ValueError(
                f"`latents` must have the shape {shape}, (batch, channels, num_frames, height /"
                f" {self.vae_scale_factor}, width / {self.vae_scale_factor}), got {given}."
            )

    def check_tensor_inputs(self, names: Sequence[str] | None) -> list[str]:
        """
        Check the names of the tensors that a callback asks for, and return them.

        Raises:
            ValueError: A name is not among `_callback_tensor_inputs`.
        """
        names = list(names or ())
        for name in names:
            if name not in self._callback_tensor_inputs:
                allowed = ", ".join(self._callback_tensor_inputs)
                raise ValueError(f"`callback_on_step_end_tensor_inputs` must be among {allowed}, got {name!r}.")
        return names

    def check_supports_images(self) -> None:
        """
        Refuse features that cannot be combined with an image.

        Raises:
            ValueError: FreeNoise or an IP-Adapter is active.
        """
        if self.free_noise_enabled:
            raise ValueError("FreeNoise is not supported with images; call `pipe.disable_free_noise()`.")
        if self.unet.config.encoder_hid_dim_type == "ip_image_proj":
            raise ValueError("IP-Adapters are not supported with images; call `pipe.unload_ip_adapter()`.")

    def warn_about_truncated_text(self, text: str | list[str] | dict[int, str] | None) -> None:
        """Log the part of a negative prompt that the tokenizer cuts off. diffusers does so for the prompt only."""
        prompts = [text] if isinstance(text, str | dict) else text or []
        texts = [one for prompt in prompts for one in (prompt.values() if isinstance(prompt, dict) else [prompt])]
        for one in texts:  # empty for a pipeline without a tokenizer, which takes embeddings only
            tokens, limit = self.tokenizer(one).input_ids, self.tokenizer.model_max_length
            if len(tokens) > limit:
                lost = self.tokenizer.decode(tokens[limit - 1 : -1])
                logger.warning("`negative_prompt` was truncated after %d tokens; this part is lost: %r", limit, lost)

    def prepare_extra_step_kwargs(self, generator: torch.Generator | None, eta: float) -> dict[str, Any]:
        """
        Return the keyword arguments of `scheduler.step`, with an `eta` of 1 reduced by a millionth.

        From pure noise (`rescale_betas_zero_snr`), the DDIM step with `eta=1` takes the square root of a number
        that is 0 but may be rounded below it. With 3, 6 or 12 steps of shanshui-tiny's schedule, frames would be NaN.
        """
        return super().prepare_extra_step_kwargs(generator, 1 - 1e-6 if eta == 1 else eta)

    def decode_frames(self, latents: torch.Tensor, decode_chunk_size: int) -> torch.Tensor:
        """
        Decode latents to frames, `(batch, 3, num_frames, height, width)`.

        Values are clamped to [0, 1]: the VAE exceeds this range, and flow estimators expect it. Frames of a
        `frame_decoder` have its size.
        """
        if self.frame_decoder is None:
            return self.video_processor.denormalize(self.decode_latents(latents, decode_chunk_size))
        decoder = self.frame_decoder.to(latents)
        frames = latents.transpose(1, 2).flatten(0, 1)
        images = torch.cat([decoder(chunk) for chunk in frames.split(decode_chunk_size)]).float()
        return self.video_processor.denormalize(images.unflatten(0, (len(latents), -1)).transpose(1, 2))

    def postprocess_frames(self, video: torch.Tensor, output_type: str) -> Any:
        """Convert decoded frames in [0, 1], `(batch, 3, num_frames, height, width)`, to `output_type`."""
        return self.video_processor.postprocess_video(
            video, output_type=output_type, do_denormalize=[False] * video.shape[2]
        )

    def encode_images(self, images: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """Encode images to one frame each, `(batch, channels, 1, height, width)`, for clips like `latents`."""
        encoded = self.vae.encode(images.to(self._execution_device, self.vae.dtype))
        encoded = retrieve_latents(encoded, sample_mode="argmax")[:, :, None] * self.vae.config.scaling_factor
        return encoded.to(latents.dtype).expand(len(latents), -1, -1, -1, -1)

    def encode_clip(self, frames: torch.Tensor, chunk_size: int) -> torch.Tensor:
        """Encode frames in [0, 1], `(num_frames, 3, height, width)`, to float32 latents of one clip."""
        chunks = [self.encode_images(2 * chunk - 1, chunk)[:, :, 0] for chunk in frames.split(chunk_size)]
        return torch.cat(chunks).transpose(0, 1)[None].float().to(self._execution_device)

    def get_flow_estimator(self, flow_estimator: Any, weights: str | Path | None = None) -> Callable:
        """
        Return the flow estimator for a name or `None`, or `flow_estimator` itself if it is a callable.

        It is created at the first call and again after the pipeline has moved to another device or dtype.

        Args:
            flow_estimator: One of `FLOW_ESTIMATORS`, `None` or a callable.
            weights: Weights of RAFT, see `load_flow_estimator`.
        """
        if callable(flow_estimator):
            return flow_estimator
        return self._flow_estimators.get(flow_estimator, weights, self._execution_device, self.vae.dtype)


def check_keywords(keywords: dict[str, Any], call: Callable) -> None:
    """
    Refuse keywords that `call` does not know, such as `interpolat=False`.

    Raises:
        TypeError: A keyword is unknown; the message suggests a similar one.
    """
    for name in keywords:
        if name not in ("callback", "callback_steps"):  # deprecated in diffusers, but still accepted
            close = difflib.get_close_matches(name, inspect.signature(call).parameters, n=1)
            hint = f"; did you mean `{close[0]}`?" if close else "."
            raise TypeError(f"the pipeline got an unknown keyword `{name}`{hint}")


def check_choices(**choices: tuple[Any, Sequence[str | None]]) -> None:
    """
    Check arguments that take one of a few values.

    Args:
        **choices: `(value, allowed values)` by the name of the argument.

    Raises:
        ValueError: A value is not allowed.
    """
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            words = ", ".join(word for word in allowed if word is not None)
            raise ValueError(f"`{name}` must be one of {words}, got {value!r}.")


def check_finite(**numbers: float) -> None:
    """
    Check numbers by the name of their argument.

    Raises:
        ValueError: A number is not finite.
    """
    for name, number in numbers.items():
        if not isinstance(number, Real) or not math.isfinite(number):
            raise ValueError(f"`{name}` must be a finite number, got {number}.")


def map_clips(function: Callable[..., torch.Tensor], video: torch.Tensor, *others: torch.Tensor) -> torch.Tensor:
    """
    Apply a function to each clip of a batch.

    Args:
        function: Function from a clip, `(num_frames, 3, height, width)`, and one entry of each of `others` to a clip.
        video: Clips, `(batch, 3, num_frames, height, width)`.
        *others: Tensors with one entry per clip.
    """
    clips = [function(clip.transpose(0, 1), *rest) for clip, *rest in zip(video, *others, strict=True)]
    return torch.stack([clip.transpose(0, 1) for clip in clips])
