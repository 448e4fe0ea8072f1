"""
Accelerate the models of a pipeline while it runs, without changing its frames beyond rounding.

`pipe.optimize()` replaces the forward passes of layers during each call of the pipeline, and takes them back at its
end. Between calls, the models are those of diffusers: weights, classes, hooks, LoRA and saved files do not change.
`docs/speed.md` has the measurements.
"""

import logging
import types
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from diffusers import UNetMotionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D, UNetMotionOutput
from torch import nn


logger = logging.getLogger(__name__)

MAX_TEXTS = 16  # prompt embeddings whose keys and values are kept; a long video has some for each window


class LandscapeAccelerationMixin:
    """Methods for subclasses of `AnimateDiffPipeline` that run their models in `accelerated_models()`."""

    _optimized = False
    _unaccelerated: tuple[str, ...] = ()

    def optimize(self, enabled: bool = True) -> None:
        """
        Accelerate later calls of this pipeline: the same frames up to rounding (60 dB in float32) in less time.

        The models themselves do not change, so the pipeline can be saved, and its parts shared, as before.

        Args:
            enabled: Whether later calls are accelerated. False undoes it.
        """
        self._optimized = enabled

    @property
    def is_optimized(self) -> bool:
        """Whether calls are accelerated."""
        return self._optimized

    @contextmanager
    def accelerated_models(self, make_layers: Callable[[], Any]) -> Iterator[None]:
        """
        Run a call: with accelerated models if `optimize` asked for them, and offloaded at the end in any case.

        Args:
            make_layers: `FastLayers`, which this file cannot import.
        """
        try:
            with ExitStack() as stack:
                if self._optimized:
                    decoder = self.frame_decoder or getattr(self.vae, "decoder", None)
                    models = (self.unet, getattr(self, "image_retention", None), decoder)
                    for model in models:
                        if model is not None:
                            stack.enter_context(Acceleration(model, make_layers()))
                    self._log_unaccelerated()
                yield
        finally:
            self.maybe_free_model_hooks()

    def _log_unaccelerated(self) -> None:
        """Log, in one line and only after a change, which layers run without acceleration."""
        found = list_unaccelerated(self.unet)
        if found and found != self._unaccelerated:
            logger.warning("Some layers run without the acceleration of `optimize`: %s.", ", ".join(found))
        self._unaccelerated = found


def list_unaccelerated(model: nn.Module) -> tuple[str, ...]:
    """Name what keeps layers of a model from being accelerated."""
    found = {"a compiled UNet"} if is_compiled(model) else set()
    for module in model.modules():
        processor = getattr(module, "processor", None)
        if hasattr(module, "lora_A"):
            found.add("LoRA layers")
        elif isinstance(module, Attention) and type(processor) is not AttnProcessor2_0:
            found.add(f"attention with {type(processor).__name__}")
        elif isinstance(module, AnimateDiffTransformer3D):
            blocks = {type(block).__name__ for block in module.transformer_blocks}
            found |= blocks - {"BasicTransformerBlock"}  # those of FreeNoise
    return tuple(sorted(found))


class Acceleration:
    """
    Context in which the layers of a model run fast.

    Each `__enter__` begins with empty caches. Layers that carry hooks or another forward pass are left alone.

    Args:
        model: `UNetMotionModel`, stock or ours; retention branch; or decoder of a VAE.
        layers: A new `FastLayers`.

    Example:
        >>> with torch.no_grad(), Acceleration(unet, FastLayers()):
        ...     noise = unet(latents, timestep, prompt_embeds).sample
    """

    def __init__(self, model: nn.Module, layers: Any) -> None:
        self.model, self.layers = model, layers
        self.texts: list[Any] = []
        self.patched: list[tuple[nn.Module, Callable]] = []

    def __enter__(self) -> "Acceleration":
        if is_compiled(self.model):
            return self
        for module in self.model.modules():
            if (fast := self.layers.find(module)) is not None:
                self._patch(module, fast)
        if is_usual(self.model):
            self._patch(self.model, self._run_branch if hasattr(self.model, "image_embedding") else self._run_unet)
        return self

    def __exit__(self, *_: Any) -> None:
        for module, forward in self.patched:
            if module.__dict__.get("_old_forward") is forward:
                module._old_forward = types.MethodType(type(module).forward, module)
            if module.__dict__.get("forward") is forward:
                del module.forward
        self.patched, self.texts = [], []
        self.layers.derived.clear()

    def _patch(self, module: nn.Module, fast: Callable) -> None:
        stock = types.MethodType(type(module).forward, module)

        def forward(*args: Any, **kwargs: Any) -> Any:
            if torch.is_grad_enabled():  # fast layers have no backward pass
                return stock(*args, **kwargs)
            return fast(module, stock, *args, **kwargs)

        # The hook of accelerate that moves an offloaded model calls `_old_forward`.
        setattr(module, "_old_forward" if "_hf_hook" in module.__dict__ else "forward", forward)
        self.patched.append((module, forward))

    # Whole models

    def _run_unet(
        self,
        unet: UNetMotionModel,
        stock: Callable,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        down_block_additional_residuals: tuple[torch.Tensor, ...] | None = None,
        mid_block_additional_residual: torch.Tensor | None = None,
        return_dict: bool = True,
        **others: Any,
    ) -> UNetMotionOutput | tuple[torch.Tensor]:
        """
        Run a UNet; what does not depend on the text runs once for all guidance terms.

        The arguments are those of the UNet. Unusual ones take the forward pass of diffusers, with fast layers.
        """
        timesteps = torch.as_tensor(timestep, device=sample.device).flatten()
        unusual = any(value is not None and value != {} for value in others.values())
        unusual |= unet.config.addition_embed_type is not None or unet.encoder_hid_proj is not None
        if unusual or len(timesteps) > 1 or any(side % 2**unet.num_upsamplers for side in sample.shape[-2:]):
            residuals = (down_block_additional_residuals, mid_block_additional_residual)
            names = ("down_block_additional_residuals", "mid_block_additional_residual")
            others |= dict(zip(names, residuals, strict=True)) | {"return_dict": return_dict}
            return stock(sample, timestep, encoder_hidden_states, **others)

        num_frames = sample.shape[2]
        text = self._text(encoder_hidden_states, num_frames)
        # One row of time embeddings: all frames of all clips have the same timestep.
        time = unet.time_embedding(unet.time_proj(timesteps).to(unet.dtype))
        copies = count_copies(sample)
        frames = sample[: len(sample) // copies].transpose(1, 2).flatten(0, 1)
        hidden_states = unet.conv_in(frames)

        skips = (hidden_states,)
        for block in unet.down_blocks:
            extra = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
            hidden_states, outputs = block(hidden_states=hidden_states, temb=time, num_frames=num_frames, **extra)
            skips += outputs
        skips = tuple(text.expand(skip) for skip in skips)
        if down_block_additional_residuals is not None:
            skips = tuple(a + b for a, b in zip(skips, down_block_additional_residuals, strict=True))
        if unet.mid_block is not None:
            extra = {"num_frames": num_frames} if hasattr(unet.mid_block, "motion_modules") else {}
            hidden_states = unet.mid_block(hidden_states, time, encoder_hidden_states=text, **extra)
        hidden_states = text.expand(hidden_states)
        if mid_block_additional_residual is not None:
            hidden_states = hidden_states + mid_block_additional_residual
        for block in unet.up_blocks:
            count = len(block.resnets)
            extra = {"encoder_hidden_states": text} if getattr(block, "has_cross_attention", False) else {}
            hidden_states = block(
                hidden_states=hidden_states,
                temb=time,
                res_hidden_states_tuple=skips[-count:],
                num_frames=num_frames,
                **extra,
            )
            skips = skips[:-count]
        if unet.conv_norm_out:
            hidden_states = unet.conv_act(unet.conv_norm_out(hidden_states))
        noise = unet.conv_out(hidden_states).unflatten(0, (-1, num_frames)).transpose(1, 2)
        return UNetMotionOutput(sample=noise) if return_dict else (noise,)

    def _run_branch(
        self,
        branch: nn.Module,
        stock: Callable,
        sample: torch.Tensor,
        timestep: torch.Tensor | float,
        encoder_hidden_states: torch.Tensor,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Run a retention branch with fast layers, and keys and values of the text computed once."""
        return stock(sample, timestep, self._text(encoder_hidden_states, sample.shape[2]), *args, **kwargs)

    def _text(self, embeds: torch.Tensor, num_frames: int) -> Any:
        """Return the `Text` of prompt embeddings with these values, one of earlier steps if possible."""
        for text in self.texts:
            if text.matches(embeds, num_frames):
                return text
        self.texts = [self.layers.prepare_text(embeds, num_frames), *self.texts[: MAX_TEXTS - 1]]
        return self.texts[0]


def is_compiled(model: nn.Module) -> bool:
    """Whether `torch.compile(model)` or `model.compile()` was called: another forward pass would be compiled anew."""
    return hasattr(model, "_orig_mod") or model._compiled_call_impl is not None


def is_usual(model: nn.Module) -> bool:
    """
    Whether a model is a motion UNet or a retention branch whose whole forward pass can be replaced.

    Its forward pass is that of its class, possibly behind the hook of accelerate that offloads it, and its layers are
    those of Stable Diffusion: others, such as FreeNoise's split ones, need a row of every argument for each frame.
    """
    forward = model.__dict__.get("forward")
    is_own = forward is None or getattr(forward, "__func__", None) is type(model).forward
    if not is_own and "_hf_hook" not in model.__dict__:
        return False
    if type(model) is not UNetMotionModel and not hasattr(model, "image_embedding"):
        return False
    blocks = [*model.down_blocks, model.mid_block, *getattr(model, "up_blocks", ())]
    layers = [layer for block in blocks for name in ("resnets", "attentions") for layer in getattr(block, name, ())]
    return {type(layer) for layer in layers} <= {ResnetBlock2D, Transformer2DModel}


def count_copies(batch: torch.Tensor) -> int:
    """Return how often a batch repeats its first entries, as that of guidance terms does."""
    for size in range(1, len(batch)):
        if len(batch) % size == 0 and torch.equal(batch[size:], batch[:-size]):
            return len(batch) // size
    return 1
