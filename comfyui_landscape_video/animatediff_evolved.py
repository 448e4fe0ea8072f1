"""
Run sparse-causal attention (NADM Eqs. 6-8) and the norm of a clip in motion models of AnimateDiff-Evolved.

AnimateDiff-Evolved builds plain attention for both attentions of a block, and its norm takes statistics over each
frame. Here, classes of modules are changed, not modules: names and shapes of weights stay, so motion LoRA, scale and
effect multivals, views, offloading and casts work as before.
"""

import inspect
from functools import cache, wraps
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from .adapter_files import AdapterSettings
from .vendored.motion_attention import sparse_causal_mask


KNOWN_VERSION = "1.5.7"
# AnimateDiff-Evolved hands this object to each model that it rebuilds from another one.
SETTINGS = "landscape_video_settings"
_ATTENTION_ARGUMENTS = {"hidden_states", "encoder_hidden_states", "attention_mask", "video_length"}


def apply_settings(model: nn.Module, settings: AdapterSettings) -> None:
    """
    Make a motion model run by `settings`, and every model that AnimateDiff-Evolved builds from it.

    Args:
        model: `AnimateDiffModel` of AnimateDiff-Evolved, changed in place.
        settings: Attention and norm.

    Raises:
        ValueError: The model is built in another way than that of the known version.
    """
    check_structure(model)
    setattr(model.mm_info, SETTINGS, settings)
    # AnimateDiff-Evolved takes a file with fewer than 32 positions for version 1. It would then normalize the image
    # layers over the clip, too.
    if model.mm_info.mm_version == "v1":
        model.mm_info.mm_version = "v3"
    install_settings(model, settings)
    install_in_rebuilt_models(type(model))


def install_settings(model: nn.Module, settings: AdapterSettings) -> None:
    """Change the classes of the second attentions and of the norms of a motion model."""
    for transformer in temporal_transformers(model):
        if settings.sparse_causal_mode != "full":
            for block in transformer.transformer_blocks:
                attention = block.attention_blocks[1]
                attention.__class__ = sparse_causal_class(type(attention))
                attention.sparse_causal_mode = settings.sparse_causal_mode
        if settings.motion_norm == "clip":
            transformer.norm.__class__ = clip_norm_class(type(transformer.norm))
            transformer.__class__ = clip_transformer_class(type(transformer))
            transformer.norm.num_frames = transformer.video_length


def install_in_rebuilt_models(model_class: type[nn.Module]) -> None:
    """
    Let the constructor of motion models install the settings that it is given with `mm_info`.

    `create_fresh_motion_module` of AnimateDiff-Evolved builds a second model from the weights of the first one, when
    the same model is applied twice, or with an image encoder or CameraCtrl. Models without settings stay as they are.
    """
    original = model_class.__init__
    if getattr(original, SETTINGS, False):
        return

    @wraps(original)
    def construct(self: nn.Module, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        settings = getattr(self.mm_info, SETTINGS, None)
        if settings is not None:
            install_settings(self, settings)

    setattr(construct, SETTINGS, True)
    model_class.__init__ = construct


def temporal_transformers(model: nn.Module) -> list[nn.Module]:
    """Return the `TemporalTransformer3DModel`s of a motion model."""
    return [module for module in model.modules() if hasattr(module, "transformer_blocks")]


def check_structure(model: nn.Module) -> None:
    """Raise a `ValueError` unless a motion model has the structure that `install_settings` relies on."""
    transformers = temporal_transformers(model)
    problem = None if transformers and hasattr(model, "mm_info") else "motion modules"
    for transformer in transformers:
        if not isinstance(getattr(transformer, "norm", None), nn.GroupNorm):
            problem = "a group norm"
        elif not (hasattr(transformer, "set_video_length") and hasattr(transformer, "video_length")):
            problem = "a length of the video"
        elif any(len(getattr(block, "attention_blocks", ())) != 2 for block in transformer.transformer_blocks):
            problem = "two attentions per block"
        else:
            attentions = [
                attention for block in transformer.transformer_blocks for attention in block.attention_blocks
            ]
            parameters = [inspect.signature(type(attention).forward).parameters for attention in attentions]
            if not all(_ATTENTION_ARGUMENTS <= names.keys() for names in parameters):
                problem = "attention with a mask"
    if problem:
        raise ValueError(
            f"AnimateDiff-Evolved must build {problem} as version {KNOWN_VERSION} does, or the adapter would run"
            " wrongly. Install that version, or a newer version of this node pack."
        )


@cache
def sparse_causal_class(base: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of AnimateDiff-Evolved's attention whose frames see the frames of a mode only."""

    class SparseCausalAttention(base):
        def forward(
            self,
            hidden_states: Tensor,
            encoder_hidden_states: Tensor | None = None,
            attention_mask: Tensor | None = None,
            video_length: int | None = None,
            **kwargs: Any,
        ) -> Tensor:
            """NADM Eq. 8, for hidden states `(batch * num_frames, height * width, channels)`."""
            if encoder_hidden_states is not None or attention_mask is not None:
                raise ValueError(
                    "`encoder_hidden_states` and `attention_mask` must be None in sparse-causal attention; take out"
                    " the node that sets them."
                )
            seen = sparse_causal_mask(self.sparse_causal_mode, video_length, hidden_states.device)
            # All attention functions of ComfyUI add masks of floats. The smallest number instead of infinity keeps
            # those finite that compute the softmax in chunks; its exponential is 0 as well.
            smallest = torch.finfo(hidden_states.dtype).min
            mask = torch.zeros(seen.shape, dtype=hidden_states.dtype, device=seen.device).masked_fill(~seen, smallest)
            return super().forward(hidden_states, attention_mask=mask, video_length=video_length, **kwargs)

    return SparseCausalAttention


@cache
def clip_norm_class(base: type[nn.GroupNorm]) -> type[nn.GroupNorm]:
    """Return a subclass of a group norm over channels that takes its statistics over all frames of a clip."""

    class ClipGroupNorm(base):
        def forward(self, hidden_states: Tensor) -> Tensor:
            """Normalize `(batch * num_frames, channels, height, width)`, as diffusers does."""
            height = hidden_states.shape[-2]
            clips = rearrange(hidden_states, "(b f) c h w -> b c (f h) w", f=self.num_frames)
            return rearrange(super().forward(clips), "b c (f h) w -> (b f) c h w", h=height)

    return ClipGroupNorm


@cache
def clip_transformer_class(base: type[nn.Module]) -> type[nn.Module]:
    """Return a subclass of AnimateDiff-Evolved's temporal transformer that tells its norm the number of frames."""

    class ClipTransformer(base):
        def set_video_length(self, video_length: int, full_length: int) -> None:
            super().set_video_length(video_length, full_length)
            self.norm.num_frames = video_length

    return ClipTransformer
