"""
Sparse-causal temporal attention for the motion modules of a `UNetMotionModel` (NADM, Eqs. 6-8).

A motion block holds two temporal self-attentions: `attn1` (Versatile, every frame sees every frame) and `attn2`
(Sparse-Causal, a frame sees few earlier ones). In diffusers both are plain attentions. What a frame sees in `attn2` is
decided here by the *class* of the module, not by an attention processor or a mask: `load_ip_adapter`,
`fuse_qkv_projections`, attention slicing and `set_default_attn_processor` all replace processors without a word, and
FreeNoise replaces whole blocks. Names, shapes and numbers of the parameters stay those of diffusers, so files, LoRA,
`from_pipe`, pickle and `torch.compile` go on working.
"""

import copy
import inspect
import logging
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from einops import rearrange
from torch import nn


logger = logging.getLogger(__name__)

SPARSE_CAUSAL_MODES = ("previous", "current_previous", "first_previous", "full")

# Entries of an image UNet's config that `UNetMotionModel.from_unet2d` translates, or that change no output.
IMAGE_ONLY_ENTRIES = ("attention_head_dim", "dropout", "upcast_attention", "addition_embed_type_num_heads")
# Entries that a motion UNet takes and then does not act upon, or not everywhere, and the values where that is right.
PARTIALLY_SUPPORTED_CONFIG = {
    "act_fn": ("silu", "swish"),
    "addition_embed_type": (None, "text_time"),
    "encoder_hid_dim_type": (None, "ip_image_proj"),
}
IMAGE_BLOCKS = ("CrossAttnDownBlock2D", "DownBlock2D", "UpBlock2D", "CrossAttnUpBlock2D")


def install_sparse_causal_attention(unet: UNetMotionModel, mode: str) -> None:
    """
    Make `attn2` of every motion block of `unet`, in place, attend as `mode` says, and write `sparse_causal_mode` into
    `unet.config`. No parameter is touched. Calling it again, with the same or another mode, is fine; it is needed
    after the motion modules were rebuilt (`UNetMotionModel.from_unet2d`, `from_pretrained`), and not after FreeNoise
    rebuilt its blocks or anything set attention processors.

    Args:
        unet: a motion UNet, in any dtype, on any device.
        mode: which frames are the keys of frame i.
            `"previous"`: i-1 (Eq. 8); `"current_previous"`: i-1 and i; `"first_previous"`: 0 and i-1, as
            Tune-A-Video; `"full"`: all, which is stock AnimateDiff. Frame 0 has nothing before it and sees itself.

    Raises:
        ValueError: `mode` is none of `SPARSE_CAUSAL_MODES`, or `unet` has no motion modules.
    """
    check_sparse_causal_mode(mode)
    transformers = [module for module in unet.modules() if isinstance(module, AnimateDiffTransformer3D)]
    if not transformers:
        raise ValueError(
            f"`unet` is a {type(unet).__name__} without motion modules; build one with `UNetMotionModel.from_unet2d`."
        )
    for transformer in transformers:
        blocks = transformer.transformer_blocks
        # The classes are exchanged rather than the modules: references, hooks and processors that others hold stay.
        blocks.__class__ = SparseCausalBlocks
        blocks.sparse_causal_mode = mode
        for block in blocks:
            _set_mode(block, mode)
    _register_mode(unet, mode)


def installed_modes(model: nn.Module) -> set[str]:
    """How the motion modules of a UNet or a branch attend."""
    motion_modules = [module for module in model.modules() if isinstance(module, AnimateDiffTransformer3D)]
    return {getattr(module.transformer_blocks, "sparse_causal_mode", "full") for module in motion_modules}


def sparse_causal_mask(mode: str, num_frames: int, device: torch.device | str | None = None) -> torch.Tensor:
    """
    The definition of the modes: a bool tensor `(num_frames, num_frames)`, True where the frame of that row (query)
    sees the frame of that column (key). Every row has at least one True, so no softmax over it can be NaN.

    Raises:
        ValueError: `mode` is none of `SPARSE_CAUSAL_MODES`.
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
    """Raise a `ValueError` if `mode` is none of `SPARSE_CAUSAL_MODES`."""
    if mode not in SPARSE_CAUSAL_MODES:
        raise ValueError(f"`sparse_causal_mode` is {mode!r}, must be one of {', '.join(SPARSE_CAUSAL_MODES)}.")


def check_adapter_fits(unet: UNet2DConditionModel, adapter: MotionAdapter) -> None:
    """
    Check that `UNetMotionModel.from_unet2d(unet, adapter)` computes what both were made for. By itself it drops what
    a motion UNet does not know, and takes over weights under another number of norm groups, without a word.

    Raises:
        ValueError: names the entry of the image UNet's config that a motion UNet cannot have, or the first block that
            the adapter does not fit, with both sizes.
    """
    known = inspect.signature(UNetMotionModel.__init__).parameters
    for name, parameter in inspect.signature(UNet2DConditionModel.__init__).parameters.items():
        value = unet.config.get(name)
        if name in PARTIALLY_SUPPORTED_CONFIG:
            fits = value in PARTIALLY_SUPPORTED_CONFIG[name]
        else:
            # `None` and `False` (or a list of it) both turn off what is off by default.
            same = value == parameter.default or (not parameter.default and not _is_on(value))
            fits = name in known or name in IMAGE_ONLY_ENTRIES or same
        if not fits:
            raise ValueError(f"`unet` has {name}={value!r}, which a motion UNet cannot have.")
    if unet.config.in_channels != unet.config.out_channels:
        raise ValueError(
            f"`unet` takes {unet.config.in_channels} channels and predicts {unet.config.out_channels}, as for"
            " inpainting: use one that takes as many as it predicts."
        )
    if adapter.config.get("conv_in_channels"):
        raise ValueError(
            "`motion_adapter` has an input for pictures, as PIA's (`conv_in_channels`): it has no use here."
        )
    for block_type in (*unet.config.down_block_types, *unet.config.up_block_types):
        if block_type not in IMAGE_BLOCKS:
            raise ValueError(
                f"`unet` has a {block_type}, a motion UNet only has those with and without text attention."
            )
    image_layers, motion_layers = _image_layers(unet, adapter), _motion_layers(adapter)
    for name in image_layers | motion_layers:
        image_sizes, motion_sizes = image_layers.get(name, []), motion_layers.get(name, [])
        if image_sizes != motion_sizes:
            raise ValueError(
                f"`motion_adapter` does not fit `unet`: {name} has layers of (channels, norm groups)"
                f" {motion_sizes} in the adapter, {image_sizes} in the UNet."
            )


def build_motion_unet(
    unet: UNet2DConditionModel | UNetMotionModel | None, adapter: MotionAdapter | None
) -> UNetMotionModel | None:
    """
    What a pipeline runs when it is given `unet` and `adapter`: the motion UNet of both, or the motion UNet that `unet`
    is (see `ensure_sparse_causal_attention`).

    Raises:
        ValueError: an image UNet without an adapter, or with one that does not fit it.
    """
    if isinstance(unet, UNet2DConditionModel):
        if adapter is None:
            raise ValueError("`unet` is an image UNet, so `motion_adapter` must be given: nothing moves without.")
        check_adapter_fits(unet, adapter)
        unet = UNetMotionModel.from_unet2d(unet, adapter).to(unet.device)  # diffusers leaves it on the CPU
        install_sparse_causal_attention(unet, adapter.config.get("sparse_causal_mode", "full"))
    elif isinstance(unet, UNetMotionModel):
        warn_about_idle_adapter(unet, adapter)
    return ensure_sparse_causal_attention(unet, adapter)


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


def ensure_sparse_causal_attention(unet: nn.Module | None, adapter: MotionAdapter | None) -> nn.Module | None:
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
    if installed_modes(unet) == {mode}:
        return unet
    if isinstance(unet, UNetMotionModel):
        shared = {id(tensor): tensor for tensor in (*unet.parameters(), *unet.buffers())}
        unet = copy.deepcopy(unet, shared)
    install_sparse_causal_attention(unet, mode)
    return unet


def ensure_configured_attention(branch: nn.Module) -> None:
    """Install the `sparse_causal_mode` of the config of a retention branch, unless it is installed."""
    mode = branch.config.sparse_causal_mode
    if installed_modes(branch) != {mode}:  # a new config makes `torch.compile` compile again
        install_sparse_causal_attention(branch, mode)


class SparseCausalAttention(Attention):
    """
    The temporal self-attention `attn2`. Its processor is used in mode `"full"` only. The projections are called as
    modules, so LoRA and quantised layers work; those fused by `fuse_qkv_projections` (copies of the same weights) are
    left alone, since mode `"previous"` has no use for queries and keys.
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
        Args:
            hidden_states: temporal tokens, `(batch * height * width, num_frames, channels)`.
            encoder_hidden_states, attention_mask: `None` for a temporal self-attention; allowed in mode `"full"`.

        Returns:
            A tensor of the shape of `hidden_states`.
        """
        if self.sparse_causal_mode == "full":
            return super().forward(hidden_states, encoder_hidden_states, attention_mask, **cross_attention_kwargs)
        if encoder_hidden_states is not None or attention_mask is not None:
            raise ValueError(
                f"Sparse-causal attention (mode {self.sparse_causal_mode!r}) sees only frames of its own input: "
                "`encoder_hidden_states` and `attention_mask` must be None."
            )
        if self.sparse_causal_mode == "previous":
            hidden_states = self._attend_to_previous(hidden_states)
        else:
            hidden_states = self._attend_to_masked(hidden_states)
        for layer in self.to_out:  # a linear layer, then dropout
            hidden_states = layer(hidden_states)
        return hidden_states

    def _attend_to_previous(self, hidden_states: torch.Tensor) -> torch.Tensor:
        # Over a single key the softmax is 1 whatever query and key are: what is left is the value of frame i-1.
        value = self.to_v(hidden_states)
        return torch.cat([value[:, :1], value[:, :-1]], dim=1)

    def _attend_to_masked(self, hidden_states: torch.Tensor) -> torch.Tensor:
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
    The `transformer_blocks` of a motion module: whatever is put into it takes its mode, because FreeNoise replaces
    the blocks (`transformer_blocks[i] = FreeNoiseTransformerBlock(...)`) and builds them with plain attentions.
    """

    sparse_causal_mode: str | None = None  # None in a list just being built (a slice), whose blocks have their mode

    def __setitem__(self, index: int, module: nn.Module) -> None:
        super().__setitem__(index, _set_mode(module, self.sparse_causal_mode))

    def insert(self, index: int, module: nn.Module) -> None:
        super().insert(index, _set_mode(module, self.sparse_causal_mode))

    def append(self, module: nn.Module) -> "SparseCausalBlocks":
        return super().append(_set_mode(module, self.sparse_causal_mode))

    def extend(self, modules: Iterable[nn.Module]) -> "SparseCausalBlocks":
        return super().extend([_set_mode(module, self.sparse_causal_mode) for module in modules])


def _set_mode(block: nn.Module, mode: str | None) -> nn.Module:
    """Give `mode` to `attn2` of a transformer block, also of one inside a wrapper (FreeNoise's split inference)."""
    for module in block.modules() if mode is not None else ():
        attention = getattr(module, "attn2", None)
        if isinstance(attention, Attention):
            attention.__class__ = SparseCausalAttention
            attention.sparse_causal_mode = mode
    return block


def _is_on(value: Any) -> bool:
    return any(value) if isinstance(value, (list, tuple)) else bool(value)


def _register_mode(unet: UNetMotionModel, mode: str) -> None:
    # `load_ip_adapter` changes `encoder_hid_dim_type` as an attribute of the config and not as its item: without care
    # the config made anew by `register_to_config` forgets it, and the image prompt is ignored from then on.
    changed = {
        name: getattr(unet.config, name)
        for name, value in unet.config.items()
        if name != "sparse_causal_mode" and getattr(unet.config, name, value) is not value
    }
    unet.register_to_config(sparse_causal_mode=mode)
    for name, value in changed.items():
        setattr(unet.config, name, value)


def _image_layers(unet: UNet2DConditionModel, adapter: MotionAdapter) -> dict[str, list[tuple[int, int]]]:
    """(channels, norm groups) of the layers of each block of an image UNet that get a motion module."""
    blocks = {f"down_blocks.{index}": block for index, block in enumerate(unet.down_blocks)}
    blocks |= {f"up_blocks.{index}": block for index, block in enumerate(unet.up_blocks)}
    layers = {
        name: [(layer.out_channels, layer.norm1.num_groups) for layer in block.resnets]
        for name, block in blocks.items()
    }
    if adapter.mid_block is not None:
        layers["mid_block"] = layers[f"down_blocks.{len(unet.down_blocks) - 1}"][-1:]  # `from_unet2d` makes one
    return layers


def _motion_layers(adapter: MotionAdapter) -> dict[str, list[tuple[int, int]]]:
    """(channels, norm groups) of the motion modules of each block of an adapter."""
    blocks = {f"down_blocks.{index}": block for index, block in enumerate(adapter.down_blocks)}
    blocks |= {f"up_blocks.{index}": block for index, block in enumerate(adapter.up_blocks)}
    if adapter.mid_block is not None:
        blocks["mid_block"] = adapter.mid_block
    return {
        name: [(layer.norm.num_channels, layer.norm.num_groups) for layer in block.motion_modules]
        for name, block in blocks.items()
    }
