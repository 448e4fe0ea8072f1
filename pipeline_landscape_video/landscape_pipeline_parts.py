"""What the pipelines of this package have in common: loading folders of ours, checks, flow estimators, FreeNoise."""

import difflib
import inspect
import logging
import math
import os
from collections.abc import Callable, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any

import torch


logger = logging.getLogger(__name__)

OUTPUT_TYPES = ("pil", "np", "pt", "latent")
PIPELINES = ("LandscapeVideoPipeline", "LandscapeImageToVideoPipeline")
BRANCH = "image_retention"  # the component that only the second of them has


class LandscapePipelineParts:
    """
    Methods for a subclass of `AnimateDiffPipeline`, named before it among the bases. Its `__init__` sets
    `_flow_estimators` to a `FlowEstimatorCache`.
    """

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """
        As the parent's, by which it reads a model_index.json in a folder and on the Hub. One that names its own copy
        of one of our classes gets this class, and its code is not run; a component that this class has no use for is
        left out.
        """
        config = super()._dict_from_json_file(json_file, *args, **kwargs)
        if isinstance(config.get("_class_name"), list) and config["_class_name"][1] in PIPELINES:
            config["_class_name"] = cls.__name__
        if BRANCH not in inspect.signature(cls.__init__).parameters:
            config.pop(BRANCH, None)
        return config

    @property
    def motion_positions(self) -> int:
        """The most frames of one clip."""
        return self.unet.config.motion_max_seq_length

    def check_numbers(
        self,
        prompt: str | list[str] | dict[int, str] | None,
        num_frames: int,
        height: int | None,
        width: int | None,
        num_inference_steps: int,
        eta: float,
        decode_chunk_size: int,
    ) -> None:
        """Raise a `ValueError` that names the number which cannot work with these models, or a prompt that is none."""
        if not isinstance(prompt, str | list | dict | None):
            raise ValueError(f"`prompt` is {prompt!r}, must be a text or a list of them.")
        if prompt is not None and len(prompt) == 0 and not isinstance(prompt, str):
            raise ValueError("`prompt` is empty, give at least one.")
        counts = {
            "num_frames": num_frames,
            "num_inference_steps": num_inference_steps,
            "decode_chunk_size": decode_chunk_size,
        }
        for name, number in counts.items():
            if not isinstance(number, Integral) or number < 1:
                raise ValueError(f"`{name}` is {number}, must be a whole number of at least 1.")
        if not 0 <= eta <= 1:  # DDIM's step would take the root of a negative number
            raise ValueError(f"`eta` is {eta}, must be between 0 and 1.")
        multiple = math.lcm(8, self.vae_scale_factor)
        for name, size in (("height", height), ("width", width)):
            if size is not None and (size <= 0 or size % multiple != 0):
                raise ValueError(f"`{name}` is {size}, must be a positive multiple of {multiple}.")
        name, frames = "num_frames", num_frames
        if self.free_noise_enabled:  # it samples any number of frames, in windows of so many
            name, frames = "context_length", self._free_noise_context_length
        positions = self.motion_positions
        if frames > positions:
            raise ValueError(f"`{name}` is {frames}, but this motion adapter has positions for at most {positions}.")

    def check_latents(
        self, latents: torch.Tensor | None, batch_size: int, num_frames: int, height: int | None, width: int | None
    ) -> None:
        """Raise a `ValueError` for initial noise of another shape; with FreeNoise, which repeats it, of any length."""
        if latents is None:
            return
        given, sample_size = tuple(latents.shape), self.unet.config.sample_size
        sides = [sample_size if side is None else side // self.vae_scale_factor for side in (height, width)]
        frames = given[2] if self.free_noise_enabled and len(given) == 5 else num_frames
        wanted = (batch_size, self.unet.config.in_channels, frames, *sides)
        if given != wanted:
            raise ValueError(
                f"`latents` are {given}, must be {wanted}: (batch, channels, num_frames, height / "
                f"{self.vae_scale_factor}, width / {self.vae_scale_factor})."
            )

    def warn_about_cut_text(self, text: str | list[str] | dict[int, str] | None) -> None:
        """Warn with the end of a negative prompt that is too long; the parent warns about the prompt, but not here."""
        texts = [text] if isinstance(text, str) else list(text.values()) if isinstance(text, dict) else text or []
        for one in texts:  # a pipeline for embeddings only has no tokenizer
            tokens, limit = self.tokenizer(one).input_ids, self.tokenizer.model_max_length
            if len(tokens) > limit:
                cut = self.tokenizer.decode(tokens[limit - 1 : -1])
                logger.warning("`negative_prompt` is cut after %d tokens, this part is lost: %r", limit, cut)

    def prepare_extra_step_kwargs(self, generator: torch.Generator | None, eta: float) -> dict[str, Any]:
        """The parent's; an `eta` of 1 is a millionth less.

        Out of noise alone (`rescale_betas_zero_snr`), DDIM's step with an `eta` of 1 takes the root of 0, rounded at
        times to a negative number: with 3, 6 or 12 steps of shanshui-tiny's schedule, frames would be NaN.
        """
        return super().prepare_extra_step_kwargs(generator, 1 - 1e-6 if eta == 1 else eta)

    def get_flow_estimator(self, flow_estimator: Any, weights: str | Path | None = None) -> Callable:
        """The callable for a name or `None`: made when first asked for, and anew when the pipeline was moved.

        `weights` are those of `load_flow_estimator`.
        """
        if callable(flow_estimator):
            return flow_estimator
        return self._flow_estimators.get(flow_estimator, weights, self._execution_device, self.vae.dtype)

    def enable_free_noise(self, context_length: int | None = 16, *args: Any, **kwargs: Any) -> None:
        """As the parent's, but a motion UNet without an adapter will do; `None` takes all positions that there are."""
        adapter, self.motion_adapter = self.motion_adapter, self.motion_adapter or self.unet
        try:
            super().enable_free_noise(context_length or self.motion_positions, *args, **kwargs)
        finally:
            self.motion_adapter = adapter

    def disable_free_noise(self) -> None:
        """Disable FreeNoise. (The parent's method fails on a middle block without motion modules, our default.)"""
        self._free_noise_context_length = None
        for block in (*self.unet.down_blocks, self.unet.mid_block, *self.unet.up_blocks):
            if hasattr(block, "motion_modules"):
                self._disable_free_noise_in_block(block)

    def enable_free_noise_split_inference(self, spatial_split_size: int = 256, temporal_split_size: int = 16) -> None:
        """As the parent's, but a middle block without motion modules, our default, stays whole: it cannot be split."""
        mid_block = self.unet.mid_block
        if not hasattr(mid_block, "motion_modules"):
            self.unet.mid_block = None  # out of the parent's sight
        try:
            super().enable_free_noise_split_inference(spatial_split_size, temporal_split_size)
        finally:
            self.unet.mid_block = mid_block


def check_keywords(keywords: dict[str, Any], call: Callable) -> None:
    """Refuse what the parent would swallow without a word, such as `interpolat=False`."""
    for name in keywords:
        if name not in ("callback", "callback_steps"):  # deprecated, but the parent still takes them
            close = difflib.get_close_matches(name, inspect.signature(call).parameters, n=1)
            hint = f", did you mean `{close[0]}`?" if close else "."
            raise TypeError(f"the pipeline got an unknown keyword `{name}`{hint}")


def check_choices(**choices: tuple[Any, Sequence[str | None]]) -> None:
    """Raise a `ValueError` for an argument `name=(value, allowed)` that is not allowed."""
    for name, (value, allowed) in choices.items():
        if value not in allowed:
            words = ", ".join(word for word in allowed if word is not None)
            raise ValueError(f"`{name}` is {value!r}, must be one of {words}.")
