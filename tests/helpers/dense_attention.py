"""Compare the motion modules' attention and norm with their definitions, in every state of a UNet.

The reference is always a *stock* diffusers model with the same weights that went through the same calls. Only then do
hooks replace the output of its `attn2` by attention over all frames with an explicit mask, and that of its norm by the
norm of one frame after the other.
"""

import copy
import functools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AnimateDiffPipeline, UNetMotionModel
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.landscape_motion_attention import install_sparse_causal_attention
from tiny_models import build_components, build_motion_adapter


SPARSE_MODES = ("previous", "current_previous", "first_previous")


def keys_of(frame: int, mode: str) -> set[int]:
    """Return the frames that `frame` attends to."""
    before = max(frame - 1, 0)
    return {"previous": {before}, "current_previous": {before, frame}, "first_previous": {0, before}}[mode]


def dense_masked_attention(attention: Attention, hidden_states: torch.Tensor, mode: str) -> torch.Tensor:
    frames = range(hidden_states.shape[1])
    allowed = torch.tensor([[key in keys_of(query, mode) for key in frames] for query in frames])
    query, key, value = (
        project(hidden_states).unflatten(-1, (attention.heads, -1)).transpose(1, 2)
        for project in (attention.to_q, attention.to_k, attention.to_v)
    )
    scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
    weights = scores.masked_fill(~allowed, float("-inf")).softmax(dim=-1)
    attended = (weights @ value).transpose(1, 2).flatten(2)
    return attention.to_out[1](attention.to_out[0](attended))


def motion_norms(model: nn.Module) -> list[nn.GroupNorm]:
    return [module.norm for module in model.modules() if isinstance(module, AnimateDiffTransformer3D)]


def motion_attentions(model: nn.Module) -> list[Attention]:
    motion_modules = [module for module in model.modules() if isinstance(module, AnimateDiffTransformer3D)]
    return [
        module.attn2
        for motion_module in motion_modules
        for module in motion_module.transformer_blocks.modules()
        if hasattr(module, "attn2")
    ]


def make_dense(stock_model: nn.Module, mode: str) -> None:
    """Let every `attn2` of the motion modules of a stock model return dense masked attention."""
    attentions = motion_attentions(stock_model)
    assert attentions and all(type(attention) is Attention for attention in attentions)
    for attention in attentions:
        attention.register_forward_hook(lambda module, inputs, output: dense_masked_attention(module, inputs[0], mode))


def norm_frame_by_frame(norm: nn.GroupNorm, clip: torch.Tensor) -> torch.Tensor:
    frames = [F.group_norm(frame, norm.num_groups, norm.weight, norm.bias, norm.eps) for frame in clip.unbind(dim=2)]
    return torch.stack(frames, dim=2)


def make_norm_of_frames(stock_model: nn.Module) -> None:
    """Let the norm of every motion module of a stock model normalize each frame by itself."""
    norms = motion_norms(stock_model)
    assert norms and all(type(norm) is nn.GroupNorm for norm in norms)
    for norm in norms:
        norm.register_forward_hook(lambda module, inputs, output: norm_frame_by_frame(module, inputs[0]))


@functools.cache
def stock_components(use_motion_mid_block: bool = False) -> dict[str, Any]:
    """Return the components of a stock pipeline with a motion UNet. They are cached, so do not change them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        adapter = build_motion_adapter(None, use_motion_mid_block=use_motion_mid_block)
    components = build_components(None, motion_adapter=adapter)
    unet = UNetMotionModel.from_unet2d(components["unet"], components["motion_adapter"]).eval()
    return components | {"unet": unet}


def build_motion_unet(mode: str | None) -> UNetMotionModel:
    """Return a motion UNet with random motion modules; the stock one, with equal weights, for mode None."""
    unet = copy.deepcopy(stock_components()["unet"])
    if mode is not None:
        install_sparse_causal_attention(unet, mode)
    return unet


def build_pipelines(
    mode: str, use_motion_mid_block: bool = False, motion_norm: str = "clip"
) -> tuple[LandscapeVideoPipeline, AnimateDiffPipeline]:
    """Return our pipeline in `mode` with `motion_norm`, and a stock pipeline with equal weights."""
    components, stock = (copy.deepcopy(stock_components(use_motion_mid_block)) for _ in range(2))
    components["motion_adapter"].register_to_config(sparse_causal_mode=mode, motion_norm=motion_norm)
    return LandscapeVideoPipeline(**components), AnimateDiffPipeline(**stock)


@torch.no_grad()
def predict(
    unet: UNetMotionModel, num_frames: int = 6, dtype: torch.dtype = torch.float32, **arguments
) -> torch.Tensor:
    """Return the prediction for one fixed clip of latents `(2, 4, num_frames, 8, 8)`, in float32."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, num_frames, 8, 8, generator=generator).to(dtype)
    text = torch.randn(2, 5, 16, generator=generator).to(dtype).repeat_interleave(num_frames, dim=0)
    return unet(latents, 500, text, **arguments).sample.float()


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


def assert_survives(
    mode: str,
    change: Callable[[AnimateDiffPipeline], None],
    change_reference: Callable[[AnimateDiffPipeline], None] | None = None,
    use_motion_mid_block: bool = False,
    motion_norm: str = "clip",
    **arguments,
) -> None:
    """Assert that ours, after `change`, predicts the same as a stock pipeline that is changed, then masked and normed.

    It also asserts that plain attention, or the norm of the clip in place of the frames', would have failed.
    """
    ours, stock = build_pipelines(mode, use_motion_mid_block, motion_norm)
    change(ours)
    (change_reference or change)(stock)
    plain = predict(stock.unet, **arguments)
    make_dense(stock.unet, mode)
    if motion_norm == "frame":
        plain = predict(stock.unet, **arguments)
        make_norm_of_frames(stock.unet)
    actual = predict(ours.unet, **arguments)
    assert_close(actual, predict(stock.unet, **arguments))
    assert (actual - plain).abs().max() > 1e-3, "diffusers' own attention or norm would have passed"
