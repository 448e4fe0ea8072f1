"""
Sparse-causal temporal attention in the motion modules of a `UNetMotionModel` (NADM Eqs. 6-8).

A motion block has two temporal self-attentions: `attn1` (Versatile: every frame sees every frame) and `attn2`
(Sparse-Causal: a frame sees few earlier ones). In diffusers both are plain attentions. Here, the class of `attn2`
decides what a frame sees, not an attention processor or a mask: `load_ip_adapter`, `fuse_qkv_projections`, attention
slicing and `set_default_attn_processor` replace processors silently, and FreeNoise replaces whole blocks. Names and
shapes of parameters stay those of diffusers, so weight files, LoRA, `from_pipe`, pickle and `torch.compile` work.
"""

import copy
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from torch import nn


SPARSE_CAUSAL_MODES = ("previous", "current_previous", "first_previous", "full")


# Choosing and installing a mode


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
    transformers = [module for module in unet.modules() if isinstance(module, AnimateDiffTransformer3D)]
    if not transformers:
        raise ValueError(
            f"`unet` must have motion modules, got a {type(unet).__name__} without any; create one with"
            " `UNetMotionModel.from_unet2d`."
        )
    for transformer in transformers:
        blocks = transformer.transformer_blocks
        # Changing classes instead of modules keeps references, hooks and processors of others valid.
        blocks.__class__ = SparseCausalBlocks
        blocks.sparse_causal_mode = mode
        for block in blocks:
            _set_mode(block, mode)
    _register_mode(unet, mode)


def installed_modes(model: nn.Module) -> set[str]:
    """Return the modes that the motion modules of a UNet or retention branch run."""
    motion_modules = [module for module in model.modules() if isinstance(module, AnimateDiffTransformer3D)]
    return {getattr(module.transformer_blocks, "sparse_causal_mode", "full") for module in motion_modules}


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


def build_motion_unet(
    unet: UNet2DConditionModel | UNetMotionModel | None, adapter: MotionAdapter | None
) -> UNetMotionModel | None:
    """
    Return the motion UNet that a pipeline with these components runs.

    Args:
        unet: Image UNet, which is combined with the motion modules of `adapter`; or motion UNet, see
            `ensure_sparse_causal_attention`.
        adapter: Motion adapter, required with an image UNet. Its weights are copied.
    """
    if isinstance(unet, UNet2DConditionModel):
        unet = UNetMotionModel.from_unet2d(unet, adapter).to(unet.device)  # diffusers leaves it on the CPU
        install_sparse_causal_attention(unet, adapter.config.get("sparse_causal_mode", "full"))
    return ensure_sparse_causal_attention(unet, adapter)


def ensure_sparse_causal_attention(unet: nn.Module | None, adapter: MotionAdapter | None) -> nn.Module | None:
    """
    Return a motion UNet that runs the mode of its config, else that of the adapter's config, else `"full"`.

    That is `unet` itself if it runs this mode already. Otherwise it is a second tree of modules with the same
    parameters and buffers: `unet` may belong to another pipeline (`from_pipe`), which must not change.

    Raises:
        ValueError: `unet` is an image UNet.
    """
    if unet is None:
        return None
    if isinstance(unet, UNet2DConditionModel):
        raise ValueError("`pipe.unet` must be a `UNetMotionModel`, got an image UNet; create a new pipeline with it.")
    configs = [component.config for component in (unet, adapter) if component is not None]
    mode = next((config["sparse_causal_mode"] for config in configs if "sparse_causal_mode" in config), "full")
    if installed_modes(unet) == {mode}:
        return unet
    if isinstance(unet, UNetMotionModel):
        shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
        unet = copy.deepcopy(unet, shared)
    install_sparse_causal_attention(unet, mode)
    return unet


def ensure_configured_attention(branch: nn.Module) -> None:
    """Install the `sparse_causal_mode` of the config of a retention branch, unless it is installed already."""
    mode = branch.config.sparse_causal_mode
    if installed_modes(branch) != {mode}:  # a new config would make `torch.compile` compile again
        install_sparse_causal_attention(branch, mode)


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


def _register_mode(unet: UNetMotionModel, mode: str) -> None:
    # `load_ip_adapter` sets `encoder_hid_dim_type` as an attribute of the config, not as its item. The new config that
    # `register_to_config` makes would drop it, and the image prompt would be ignored.
    changed = {
        name: getattr(unet.config, name)
        for name, value in unet.config.items()
        if name != "sparse_causal_mode" and getattr(unet.config, name, value) is not value
    }
    unet.register_to_config(sparse_causal_mode=mode)
    for name, value in changed.items():
        setattr(unet.config, name, value)
