"""
Sparse spatio-temporal attention of one-shot depth tuning (OneShotDepth Eqs. 6-7), and the weights that tuning changes.

In every spatial transformer block, the self-attention `attn1` reads the tokens of the clip's first and of the previous
frame instead of those of its own frame. Tuning also adds a temporal self-attention to the block, whose output is zero
at first. As in `landscape_motion_attention.py`, the classes of the layers decide what a frame reads, not attention
processors: `load_ip_adapter`, `fuse_qkv_projections`, attention slicing and `set_default_attn_processor` keep it.
Names and shapes of the model's own parameters do not change.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNetMotionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from einops import rearrange
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn


TEMPORAL_ATTENTIONS = ("new", "adapter")
TUNED_FORMAT = "landscape_video.tuned"  # metadata entry of a file of tuned weights, with the number of its format
BASE = "base."  # prefix of the tensors that tell which model a file was tuned on


# Installing


def install_spatio_temporal_attention(unet: UNetMotionModel, temporal_attention: str = "new") -> None:
    """
    Make every spatial self-attention read the first and the previous frame (OneShotDepth Eqs. 6-7).

    The model is changed in place; `remove_spatio_temporal_attention` restores it, tuned weights included. Split
    inference of FreeNoise runs spatial layers on parts of a clip, so it is not supported.

    Args:
        unet: Motion UNet, of any dtype and on any device. An image model without a motion adapter takes one
            without layers: `create_motion_adapter(unet, "full", motion_transformer_layers_per_block=0)`.
        temporal_attention: Temporal attention that tuning trains: `"new"` adds one to every spatial transformer block,
            with an output of zero, beside the motion adapter; `"adapter"` adds none and trains the adapter's own.

    Raises:
        ValueError: `temporal_attention` is not one of `TEMPORAL_ATTENTIONS`, or `unet` is another model or has
            sparse spatio-temporal attention already.
    """
    if temporal_attention not in TEMPORAL_ATTENTIONS:
        allowed = ", ".join(TEMPORAL_ATTENTIONS)
        raise ValueError(f"`temporal_attention` must be one of {allowed}, got {temporal_attention!r}.")
    if not hasattr(unet, "load_motion_modules"):
        raise ValueError(
            f"`unet` must be a `UNetMotionModel`, got a {type(unet).__name__}; create one with"
            " `UNetMotionModel.from_unet2d`."
        )
    if has_spatio_temporal_attention(unet):
        raise ValueError(
            "`unet` must not have sparse spatio-temporal attention yet; call `remove_spatio_temporal_attention` first."
        )
    frames = ClipFrames(temporal_attention)
    for name, block in _spatial_blocks(unet):
        # Changing classes instead of modules keeps references, hooks and processors of others valid.
        block.attn1.__class__ = SpatioTemporalAttention
        block.attn1.clip_frames, block.attn1.layer = frames, name
        if temporal_attention == "new":
            block.__class__ = SpatioTemporalBlock
            block.add_temporal_attention(frames)
    frames.hook = unet.register_forward_pre_hook(_count_frames, with_kwargs=True)
    unet.clip_frames = frames
    frames.untuned = {name: parameter.detach().clone() for name, parameter in _existing_tuned(unet)}


def remove_spatio_temporal_attention(unet: UNetMotionModel) -> None:
    """Restore the layers and weights that `unet` had before `install_spatio_temporal_attention`."""
    if not has_spatio_temporal_attention(unet):
        return
    for name, parameter in _existing_tuned(unet):
        parameter.data = unet.clip_frames.untuned[name].to(parameter.device)
    for _, block in _spatial_blocks(unet):
        block.attn1.__class__ = Attention
        del block.attn1.clip_frames, block.attn1.layer
        if hasattr(block, "attn_temp"):
            block.__class__ = BasicTransformerBlock
            del block.attn_temp, block.norm_temp, block.clip_frames
    unet.clip_frames.hook.remove()
    del unet.clip_frames


def has_spatio_temporal_attention(unet: nn.Module) -> bool:
    """Whether `install_spatio_temporal_attention` was called on `unet`."""
    return hasattr(unet, "clip_frames")


def _spatial_blocks(unet: nn.Module) -> Iterator[tuple[str, BasicTransformerBlock]]:
    for name, transformer in unet.named_modules():
        if isinstance(transformer, Transformer2DModel):
            for index, block in enumerate(transformer.transformer_blocks):
                if not block.only_cross_attention:
                    yield f"{name}.transformer_blocks.{index}", block


# Frames of a clip, and of windows of it


class ClipFrames:
    """
    What the layers must know of the clip: the number of frames, and in windows also the frames of other windows.

    Args:
        temporal_attention: One of `TEMPORAL_ATTENTIONS`.

    Attributes:
        num_frames: Frames in the running forward pass.
        window: Positions of these frames in the clip; None if they are the whole clip.
        kept: Positions of the frames that later windows of the step read.
        branch: Name of the running guidance term or prompt, if these run one after the other.
        cache: Keys or values of kept frames, (batch, 1, tokens, channels), by branch, layer and position.
        untuned: Weights that tuning changes, as they were before.
    """

    def __init__(self, temporal_attention: str) -> None:
        self.temporal_attention = temporal_attention
        self.num_frames = 1
        self.window: list[int] | None = None
        self.kept: set[int] = set()
        self.branch = ""
        self.cache: dict[tuple[str, str, int], torch.Tensor] = {}
        self.untuned: dict[str, torch.Tensor] = {}
        self.hook: Any = None

    def read(self, layer: str, projected: torch.Tensor) -> torch.Tensor:
        """
        Return what each frame reads: the tokens of the first frame, then those of the previous one.

        Args:
            layer: Name of the layer.
            projected: Keys or values of the window's frames, `(batch, num_frames, tokens, channels)`.
        """
        first = before = projected[:, :1]
        if self.window is not None:
            start = self.window[0]
            first = projected[:, [self.window.index(0)]] if 0 in self.window else self._kept(layer, 0)
            before = self._kept(layer, start - 1) if start > 0 else first
            if start > 1:  # no other window begins after the same frame
                del self.cache[self.branch, layer, start - 1]
            for place, position in enumerate(self.window):
                if position in self.kept:
                    self.cache[self.branch, layer, position] = projected[:, [place]]
        previous = torch.cat([before, projected[:, :-1]], dim=1)
        return torch.cat([first.expand_as(previous), previous], dim=2)

    def _kept(self, layer: str, position: int) -> torch.Tensor:
        if (self.branch, layer, position) not in self.cache:
            raise RuntimeError(
                f"The window of frames {self.window[0]} to {self.window[-1]} reads frame {position}, which no earlier"
                " window has kept; call `begin_step` and run the windows in order."
            )
        return self.cache[self.branch, layer, position]


def begin_step(unet: UNetMotionModel, windows: Sequence[Sequence[int]]) -> None:
    """
    Begin a step in windows: the first and the previous frame are then those of the clip, not of the window.

    The windows must run in order: each reads the tokens of the clip's frame 0 and of the frame before it from earlier
    windows. Of these, only the frames that a later window reads are kept.

    Args:
        unet: Motion UNet with sparse spatio-temporal attention.
        windows: Positions in the clip of the frames of each window, see `WindowPlan.windows`.
    """
    frames = unet.clip_frames
    frames.cache.clear()
    frames.kept = {0} | {window[0] - 1 for window in windows if window[0] > 0}


def set_frames(unet: UNetMotionModel, window: Sequence[int] | None, branch: str = "") -> None:
    """
    Set the frames of the next forward passes.

    Args:
        unet: Motion UNet with sparse spatio-temporal attention.
        window: Positions of the frames in the clip; `None` for the whole clip, which ends windows.
        branch: Name of the guidance term or prompt, if these do not run in one batch.
    """
    frames = unet.clip_frames
    frames.window, frames.branch = None if window is None else list(window), branch
    if window is None:
        frames.cache.clear()


def _count_frames(unet: nn.Module, args: tuple, kwargs: Mapping[str, Any]) -> None:
    sample = args[0] if args else kwargs["sample"]
    unet.clip_frames.num_frames = sample.shape[2]


# The attention itself


def attend(attention: nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """
    OneShotDepth Eq. 6, with the output layer of `attention`.

    Layers are called as modules, so LoRA works, and projections fused by `fuse_qkv_projections` are ignored. The query
    is `(batch, tokens, channels)`; key and value may have more tokens.
    """
    query, key, value = (
        rearrange(projected, "batch tokens (heads dim) -> batch heads tokens dim", heads=attention.heads)
        for projected in (query, key, value)
    )
    hidden_states = F.scaled_dot_product_attention(query, key, value)
    hidden_states = rearrange(hidden_states, "batch heads tokens dim -> batch tokens (heads dim)")
    for layer in attention.to_out:  # a linear layer, then dropout
        hidden_states = layer(hidden_states)
    return hidden_states


class SpatioTemporalAttention(Attention):
    """The spatial self-attention `attn1` of a block, which reads the first and the previous frame."""

    clip_frames: ClipFrames
    layer: str

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        **cross_attention_kwargs: Any,
    ) -> torch.Tensor:
        """
        OneShotDepth Eqs. 6-7: Q = W_Q z_i, K = W_K [z_1, z_(i-1)], V = W_V [z_1, z_(i-1)].

        Frame 0 reads itself.

        Args:
            hidden_states: Spatial tokens, `(batch * num_frames, tokens, channels)`.
            encoder_hidden_states: `None`.
            attention_mask: `None`.
            **cross_attention_kwargs: Ignored.

        Returns:
            Tensor of the shape of `hidden_states`.

        Raises:
            ValueError: An argument is not `None`, or `hidden_states` is a part of a clip.
            RuntimeError: A window reads a frame that no earlier window of the step has kept.
        """
        num_frames = self.clip_frames.num_frames
        if encoder_hidden_states is not None or attention_mask is not None:
            raise ValueError("`encoder_hidden_states` and `attention_mask` must be None in spatial self-attention.")
        if len(hidden_states) % num_frames:
            raise ValueError(
                f"Spatial attention must receive whole clips of {num_frames} frames, got {len(hidden_states)} frames;"
                " call `pipe.disable_free_noise()`."
            )
        key, value = (
            self.clip_frames.read(f"{self.layer}.{name}", project(hidden_states).unflatten(0, (-1, num_frames)))
            for name, project in (("to_k", self.to_k), ("to_v", self.to_v))
        )
        return attend(self, self.to_q(hidden_states), key.flatten(0, 1), value.flatten(0, 1))


class TemporalAttention(nn.Module):
    """
    The temporal self-attention that tuning adds: every place of the image attends to itself in all frames.

    Not an `Attention` of diffusers, because `load_ip_adapter` would take it for an attention to the text.

    Args:
        like: Spatial self-attention, whose sizes, device and dtype it takes over. The output is zero.
    """

    def __init__(self, like: Attention) -> None:
        super().__init__()
        self.heads = like.heads
        sizes = {"device": like.to_q.weight.device, "dtype": like.to_q.weight.dtype}
        for name in ("to_q", "to_k", "to_v"):
            setattr(self, name, nn.Linear(like.query_dim, like.inner_dim, bias=False, **sizes))
        self.to_out = nn.ModuleList([nn.Linear(like.inner_dim, like.query_dim, **sizes)])
        nn.init.zeros_(self.to_out[0].weight)
        nn.init.zeros_(self.to_out[0].bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Return attention over frames for temporal tokens, `(batch * tokens, num_frames, channels)`."""
        return attend(self, *(layer(hidden_states) for layer in (self.to_q, self.to_k, self.to_v)))


class SpatioTemporalBlock(BasicTransformerBlock):
    """A spatial transformer block, followed by temporal self-attention."""

    def add_temporal_attention(self, clip_frames: ClipFrames) -> None:
        """Add the temporal attention. Its output is zero, so the block computes what it did before."""
        like = self.attn1.to_q.weight
        self.clip_frames = clip_frames
        self.norm_temp = nn.LayerNorm(self.attn1.query_dim, device=like.device, dtype=like.dtype)
        self.attn_temp = TemporalAttention(self.attn1)

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Run the block on `(batch * num_frames, tokens, channels)`; other arguments are those of its base class."""
        hidden_states = super().forward(hidden_states, *args, **kwargs)
        frames, tokens = self.clip_frames.num_frames, hidden_states.shape[1]
        temporal = rearrange(self.norm_temp(hidden_states), "(clips f) tokens c -> (clips tokens) f c", f=frames)
        temporal = rearrange(self.attn_temp(temporal), "(clips tokens) f c -> (clips f) tokens c", tokens=tokens)
        return hidden_states + temporal


# Tuned weights


def tuned_parameters(unet: UNetMotionModel) -> dict[str, nn.Parameter]:
    """
    Return the parameters that one-shot depth tuning trains, by name.

    These are `attn1.to_q` and `attn2.to_q` of the spatial transformer blocks, and the temporal attention: the new one,
    or the self-attentions of the motion adapter.
    """
    named = dict(_existing_tuned(unet))
    for name, block in _spatial_blocks(unet):
        for part in ("norm_temp", "attn_temp"):
            if hasattr(block, part):
                named |= {f"{name}.{part}.{key}": value for key, value in getattr(block, part).named_parameters()}
    return named


def _existing_tuned(unet: nn.Module) -> Iterable[tuple[str, nn.Parameter]]:
    """Return the tuned parameters that the model had before, with their names."""
    for name, block in _spatial_blocks(unet):
        for attention in ("attn1", "attn2"):
            yield f"{name}.{attention}.to_q.weight", getattr(block, attention).to_q.weight
    if unet.clip_frames.temporal_attention == "adapter":
        for name, parameter in unet.named_parameters():
            if ".motion_modules." in name and (".attn1.to_" in name or ".attn2.to_" in name):
                yield name, parameter


def save_tuned(unet: UNetMotionModel, path: str | Path, metadata: Mapping[str, str] | None = None) -> None:
    """
    Write what tuning has changed, and nothing else, as safetensors in half precision.

    Args:
        unet: Tuned motion UNet.
        path: File to write.
        metadata: Further entries of the file, such as prompt and steps.
    """
    tensors = {
        name: parameter.detach().half().cpu().contiguous() for name, parameter in tuned_parameters(unet).items()
    }
    tensors |= {BASE + name: sample for name, sample in _base_samples(unet).items()}
    entries = {TUNED_FORMAT: "1", "temporal_attention": unet.clip_frames.temporal_attention}
    save_file(tensors, path, {**(metadata or {}), **entries})


def load_tuned(unet: UNetMotionModel, path: str | Path) -> dict[str, str]:
    """
    Install sparse spatio-temporal attention with tuned weights; earlier tuned weights are removed.

    Args:
        unet: Motion UNet that the file was tuned on.
        path: File of `save_tuned`.

    Returns:
        The metadata of the file.

    Raises:
        ValueError: The file holds no tuned weights, or those of another model. The model stays as it was.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{path} must be a file of tuned weights: {error}") from None
    if metadata.get(TUNED_FORMAT) != "1" or metadata.get("temporal_attention") not in TEMPORAL_ATTENTIONS:
        raise ValueError(f"{path} must be a file of tuned weights, made by `tune_one_shot`.")
    samples = {name.removeprefix(BASE): tensors.pop(name) for name in list(tensors) if name.startswith(BASE)}
    own = _base_samples(unet)
    fits = own.keys() == samples.keys() and all(
        own[name].shape == sample.shape and torch.allclose(own[name], sample, rtol=0.02, atol=1e-3)
        for name, sample in samples.items()
    )
    if not fits:
        raise ValueError(f"{path} was tuned on another model; tune the clip with this one.")
    remove_spatio_temporal_attention(unet)
    install_spatio_temporal_attention(unet, metadata["temporal_attention"])
    for name, parameter in tuned_parameters(unet).items():
        parameter.data.copy_(tensors[name])
    return metadata


def _base_samples(unet: nn.Module) -> dict[str, torch.Tensor]:
    """Return some weights that tuning leaves alone, in float32: enough to recognize the model in any precision."""
    samples = {name: layer.weight for name, layer in (("conv_in", unet.conv_in), ("conv_out", unet.conv_out))}
    samples |= {f"{name}.attn2.to_k": block.attn2.to_k.weight for name, block in _spatial_blocks(unet)}
    samples["motion"] = next(weight for name, weight in unet.named_parameters() if ".motion_modules." in name)
    return {name: weight.detach().flatten()[:64].float().cpu() for name, weight in samples.items()}
