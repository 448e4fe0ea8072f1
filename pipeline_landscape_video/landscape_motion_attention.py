"""
Sparse-causal attention (NADM Eqs. 6-8) and the norm of each frame in the motion modules of a `UNetMotionModel`.

A motion block has two temporal self-attentions: `attn1` (Versatile: every frame sees every frame) and `attn2`
(Sparse-Causal: a frame sees few earlier ones). In diffusers both are plain attentions. Here, the class of `attn2`
decides what a frame sees, not an attention processor or a mask: `load_ip_adapter`, `fuse_qkv_projections`, attention
slicing and `set_default_attn_processor` replace processors silently, and FreeNoise replaces whole blocks. Names and
shapes of parameters stay those of diffusers, so weight files, LoRA, `from_pipe`, pickle and `torch.compile` work.

The group norm at the start of a motion module takes its statistics over all frames of a clip in diffusers, and over
each frame in AnimateDiff's own code, by which its weights were trained. The class of `norm` decides which it is.
"""

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from torch import nn


SPARSE_CAUSAL_MODES = ("previous", "current_previous", "first_previous", "full")
MOTION_NORMS = ("clip", "frame")
PLAIN_CONFIG = {"sparse_causal_mode": "full", "motion_norm": "clip"}  # what diffusers runs


# Choosing and installing a mode and a norm


def install_sparse_causal_attention(unet: UNetMotionModel, mode: str) -> None:
    """
    Make `attn2` of every motion block attend by `mode`, and write `sparse_causal_mode` into the config.

    The model is changed in place, and no parameter is touched. Call it again after the motion modules were rebuilt
    (`UNetMotionModel.from_unet2d`, `from_pretrained`), or to change the mode. FreeNoise and new attention processors
    keep the mode.

    Args:
        unet: Motion UNet or retention branch, of any dtype and on any device.
        mode: Frames that are the keys of frame i: `"previous"`: i-1 (NADM Eq. 8); `"current_previous"`: i-1 and i;
            `"first_previous"`: 0 and i-1, as in Tune-A-Video; `"full"`: all frames, as in AnimateDiff. Frame 0 has no
            previous frame and sees itself.

    Raises:
        ValueError: `mode` is not one of `SPARSE_CAUSAL_MODES`, or `unet` has no motion modules.
    """
    check_sparse_causal_mode(mode)
    for transformer in _motion_modules(unet):
        blocks = transformer.transformer_blocks
        # Changing classes instead of modules keeps references, hooks and processors of others valid.
        blocks.__class__ = SparseCausalBlocks
        blocks.sparse_causal_mode = mode
        for block in blocks:
            _set_mode(block, mode)
    _register(unet, sparse_causal_mode=mode)


def install_motion_norm(unet: UNetMotionModel, motion_norm: str) -> None:
    """
    Choose the statistics of the group norm in every motion module, and write `motion_norm` into the config.

    As with `install_sparse_causal_attention`, no parameter is touched. With `"frame"`, a frame's norm does not depend
    on other frames, so sparse-causal attention stays causal. With `"clip"`, every frame changes the statistics of all.

    Args:
        unet: Motion UNet or retention branch, of any dtype and on any device.
        motion_norm: `"clip"`: over all frames of a clip, as in diffusers; `"frame"`: over each frame, as in
            AnimateDiff.

    Raises:
        ValueError: `motion_norm` is not one of `MOTION_NORMS`, or `unet` has no motion modules.
    """
    check_motion_norm(motion_norm)
    for motion_module in _motion_modules(unet):
        if _installed_config(motion_module)["motion_norm"] != motion_norm:
            motion_module.norm.__class__ = FrameGroupNorm if motion_norm == "frame" else nn.GroupNorm
    _register(unet, motion_norm=motion_norm)


def install_motion_config(unet: UNetMotionModel, config: Mapping[str, Any]) -> None:
    """Install the mode and the norm that a config names; where it names none, those of diffusers."""
    config = PLAIN_CONFIG | {name: config[name] for name in PLAIN_CONFIG if name in config}
    install_sparse_causal_attention(unet, config["sparse_causal_mode"])
    install_motion_norm(unet, config["motion_norm"])


def sparse_causal_mask(mode: str, num_frames: int, device: torch.device | str | None = None) -> torch.Tensor:
    """
    Return the mask that defines a mode.

    Returns:
        Bool tensor, `(num_frames, num_frames)`, True where the frame of the row (query) sees the frame of the column
        (key). Every row has at least one True, so its softmax is finite.

    Raises:
        ValueError: `mode` is not one of `SPARSE_CAUSAL_MODES`.
    """
    check_sparse_causal_mode(mode)
    frames = torch.arange(num_frames, device=device)
    query, key = frames[:, None], frames[None, :]
    previous = key == (query - 1).clamp(min=0)
    if mode == "previous":
        return previous
    if mode == "current_previous":
        return previous | (key == query)
    if mode == "first_previous":
        return previous | (key == 0)
    return torch.ones_like(previous)


def check_sparse_causal_mode(mode: str) -> None:
    """
    Check a mode.

    Raises:
        ValueError: `mode` is not one of `SPARSE_CAUSAL_MODES`.
    """
    if mode not in SPARSE_CAUSAL_MODES:
        raise ValueError(f"`sparse_causal_mode` must be one of {', '.join(SPARSE_CAUSAL_MODES)}, got {mode!r}.")


def check_motion_norm(motion_norm: str) -> None:
    """
    Check the name of a norm.

    Raises:
        ValueError: `motion_norm` is not one of `MOTION_NORMS`.
    """
    if motion_norm not in MOTION_NORMS:
        raise ValueError(f"`motion_norm` must be one of {', '.join(MOTION_NORMS)}, got {motion_norm!r}.")


def build_motion_unet(
    unet: UNet2DConditionModel | UNetMotionModel | None, adapter: MotionAdapter | None
) -> UNetMotionModel | None:
    """
    Return the motion UNet that a pipeline with these components runs.

    Args:
        unet: Image UNet, which is combined with the motion modules of `adapter`; or motion UNet, see
            `ensure_motion_config`.
        adapter: Motion adapter, required with an image UNet. Its weights are copied.
    """
    if isinstance(unet, UNet2DConditionModel):
        unet = UNetMotionModel.from_unet2d(unet, adapter).to(unet.device)  # diffusers leaves it on the CPU
        install_motion_config(unet, adapter.config)
    return ensure_motion_config(unet, adapter)


def ensure_motion_config(unet: nn.Module | None, adapter: MotionAdapter | None = None) -> nn.Module | None:
    """
    Return a motion UNet that runs the mode and the norm of its config, else of the adapter's config, else diffusers'.

    That is `unet` itself if it runs them already, because a new config would make `torch.compile` compile again.
    Otherwise it is a second tree of modules with the same parameters and buffers: `unet` may belong to another
    pipeline (`from_pipe`), which must not change. A retention branch is changed in place.

    Raises:
        ValueError: `unet` is an image UNet, or the mode or the norm is unknown.
    """
    if unet is None:
        return None
    if isinstance(unet, UNet2DConditionModel):
        raise ValueError("`pipe.unet` must be a `UNetMotionModel`, got an image UNet; create a new pipeline with it.")
    config = dict(PLAIN_CONFIG)
    for component in (adapter, unet):
        if component is not None:
            config |= {name: component.config[name] for name in PLAIN_CONFIG if name in component.config}
    if all(_installed_config(motion_module) == config for motion_module in _motion_modules(unet)):
        return unet
    if isinstance(unet, UNetMotionModel):
        shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
        unet = copy.deepcopy(unet, shared)
    install_motion_config(unet, config)
    return unet


def _motion_modules(unet: nn.Module) -> list[AnimateDiffTransformer3D]:
    motion_modules = [module for module in unet.modules() if isinstance(module, AnimateDiffTransformer3D)]
    if not motion_modules:
        raise ValueError(
            f"`unet` must have motion modules, got a {type(unet).__name__} without any; create one with"
            " `UNetMotionModel.from_unet2d`."
        )
    return motion_modules


def _installed_config(motion_module: AnimateDiffTransformer3D) -> dict[str, str]:
    # Attributes, not classes: dynamic loading gives every copy of this file classes of its own.
    return {
        "sparse_causal_mode": getattr(motion_module.transformer_blocks, "sparse_causal_mode", "full"),
        "motion_norm": getattr(motion_module.norm, "motion_norm", "clip"),
    }


# The attention itself


class SparseCausalAttention(Attention):
    """
    The temporal self-attention `attn2`.

    The projections are called as modules, so LoRA and quantized layers work. Those fused by `fuse_qkv_projections`,
    copies of the same weights, are ignored: mode `"previous"` needs no queries and keys. The attention processor acts
    in mode `"full"` only.
    """

    sparse_causal_mode = "full"

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **cross_attention_kwargs: Any,
    ) -> torch.Tensor:
        """
        NADM Eq. 8: attention of each frame to the frames that the mode lets it see.

        Args:
            hidden_states: Temporal tokens, `(batch * height * width, num_frames, channels)`.
            encoder_hidden_states: `None`, except in mode `"full"`.
            attention_mask: `None`, except in mode `"full"`.
            **cross_attention_kwargs: Arguments of the attention processor.

        Returns:
            Tensor of the shape of `hidden_states`.
        """
        if self.sparse_causal_mode == "full":
            return super().forward(hidden_states, encoder_hidden_states, attention_mask, **cross_attention_kwargs)
        if encoder_hidden_states is not None or attention_mask is not None:
            raise ValueError(
                "`encoder_hidden_states` and `attention_mask` must be None in sparse-causal attention of mode"
                f" {self.sparse_causal_mode!r}, which sees frames of its own input only."
            )
        if self.sparse_causal_mode == "previous":
            hidden_states = self._attend_to_previous(hidden_states)
        else:
            hidden_states = self._attend_with_mask(hidden_states)
        for layer in self.to_out:  # a linear layer, then dropout
            hidden_states = layer(hidden_states)
        return hidden_states

    def _attend_to_previous(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # The softmax over a single key is 1 for any query, so the output is the value of frame i-1.
        value = self.to_v(hidden_states)
        return torch.cat([value[:, :1], value[:, :-1]], dim=1)

    def _attend_with_mask(self, hidden_states: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            rearrange(project(hidden_states), "tokens frames (heads dim) -> tokens heads frames dim", heads=self.heads)
            for project in (self.to_q, self.to_k, self.to_v)
        )
        mask = sparse_causal_mask(self.sparse_causal_mode, hidden_states.shape[1], device=hidden_states.device)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
        return rearrange(attended, "tokens heads frames dim -> tokens frames (heads dim)")

    def extra_repr(self) -> str:
        return f"sparse_causal_mode={self.sparse_causal_mode!r}"


class SparseCausalBlocks(nn.ModuleList):
    """
    The `transformer_blocks` of a motion module. New blocks take over its mode.

    FreeNoise replaces blocks (`transformer_blocks[i] = FreeNoiseTransformerBlock(...)`) by ones with plain attention.
    """

    sparse_causal_mode: str | None = None  # `None` in a slice under construction, whose blocks have their mode

    def __setitem__(self, index: int, module: nn.Module) -> None:
        super().__setitem__(index, _set_mode(module, self.sparse_causal_mode))

    def insert(self, index: int, module: nn.Module) -> None:
        super().insert(index, _set_mode(module, self.sparse_causal_mode))

    def append(self, module: nn.Module) -> "SparseCausalBlocks":
        return super().append(_set_mode(module, self.sparse_causal_mode))

    def extend(self, modules: Iterable[nn.Module]) -> "SparseCausalBlocks":
        return super().extend([_set_mode(module, self.sparse_causal_mode) for module in modules])


def _set_mode(block: nn.Module, mode: str | None) -> nn.Module:
    """Set the mode of `attn2` in a transformer block, also in one that split inference of FreeNoise has wrapped."""
    for module in block.modules() if mode is not None else ():
        attention = getattr(module, "attn2", None)
        if isinstance(attention, Attention):
            attention.__class__ = SparseCausalAttention
            attention.sparse_causal_mode = mode
    return block


def _register(unet: UNetMotionModel, **entries: str) -> None:
    # `load_ip_adapter` sets `encoder_hid_dim_type` as an attribute of the config, not as its item. The new config that
    # `register_to_config` makes would drop it, and the image prompt would be ignored.
    changed = {
        name: getattr(unet.config, name)
        for name, value in unet.config.items()
        if name not in entries and getattr(unet.config, name, value) is not value
    }
    unet.register_to_config(**entries)
    for name, value in changed.items():
        setattr(unet.config, name, value)


# The norm itself


class FrameGroupNorm(nn.GroupNorm):
    """The group norm at the start of a motion module, with the statistics of each frame, as in AnimateDiff."""

    motion_norm = "frame"

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Normalize each frame of `hidden_states`, `(batch, channels, num_frames, height, width)`."""
        frames = rearrange(hidden_states, "batch channels frames height width -> (batch frames) channels height width")
        return rearrange(
            super().forward(frames),
            "(batch frames) channels height width -> batch channels frames height width",
            batch=hidden_states.shape[0],
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, motion_norm={self.motion_norm!r}"
