"""
Fast forward passes for the layers of motion UNets, retention branches and VAE decoders, without gradients.

Each computes what the layer of diffusers computes, up to rounding. Parts that somebody else has changed, such as
linear layers with LoRA weights or attention with the processor of an IP-Adapter, are called as they are.
`docs/speed.md` has the measurements behind each choice.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.models.activations import GEGLU
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from diffusers.models.upsampling import Upsample2D
from torch import nn


MAX_SHORT_KEYS = 128  # up to here, two matrix products are faster than torch's fused attention on a CPU
MAX_SCORES = 2**24  # attention weights that may be in memory at once, 64 MiB in float32
MIN_LARGE_IMAGE = 1024  # pixels from which torch's group norm with channels last takes another algorithm
HALF = (torch.bfloat16, torch.float16)


class FastLayers:
    """
    Forward passes by the class of the layer, and the weights that they derive from those of the layers.

    Derived weights are never refreshed, so an object serves one call of a pipeline.
    """

    def __init__(self) -> None:
        self.derived: dict[nn.Module, Any] = {}
        self.forwards: dict[type, Callable] = {
            nn.GroupNorm: self.run_group_norm,
            ResnetBlock2D: self.run_resnet,
            Transformer2DModel: self.run_image_transformer,
            AnimateDiffTransformer3D: self.run_motion_module,
            Upsample2D: self.run_upsample,
        }

    def find(self, layer: nn.Module) -> Callable | None:
        """Return the fast `forward(layer, stock_forward, *args, **kwargs)` of a layer, `None` if it has none."""
        return self.forwards.get(type(layer)) if is_untouched(layer) else None

    def prepare_text(self, embeds: torch.Tensor, num_frames: int) -> "Text":
        return Text(embeds, num_frames)

    def run_group_norm(self, norm: nn.GroupNorm, stock: Callable, images: torch.Tensor) -> torch.Tensor:
        """On small images in half precision on a CPU, torch's kernel is up to ten times slower with channels last."""
        if images.device.type != "cpu" or images.dtype not in HALF or images[0, 0].numel() >= MIN_LARGE_IMAGE:
            return stock(images)
        weight, bias = (None if one is None else one.float() for one in (norm.weight, norm.bias))
        return F.group_norm(images.float(), norm.num_groups, weight, bias, norm.eps).to(images.dtype)

    def run_resnet(
        self, resnet: ResnetBlock2D, stock: Callable, input_tensor: torch.Tensor, temb: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Run a residual block without a division by one; a single time embedding is part of a bias."""
        convolution = resnet.conv1
        is_usual = (temb is None or resnet.time_embedding_norm == "default") and not resnet.skip_time_act
        is_usual &= resnet.upsample is None and resnet.downsample is None
        is_usual &= is_plain(convolution)
        if not is_usual or (resnet.training and resnet.dropout.p):
            return stock(input_tensor, temb)
        residual = in_fast_format(input_tensor)
        hidden_states = normalize(resnet.norm1, residual, resnet.nonlinearity)
        shift = None
        if temb is not None and resnet.time_emb_proj is not None:
            shift = resnet.time_emb_proj(resnet.nonlinearity(temb))
        if shift is not None and len(shift) == 1 and convolution.bias is not None:
            hidden_states = convolution._conv_forward(hidden_states, convolution.weight, convolution.bias + shift[0])
        else:
            hidden_states = convolution(hidden_states)
            hidden_states = hidden_states if shift is None else hidden_states.add_(shift[:, :, None, None])
        hidden_states = resnet.conv2(normalize(resnet.norm2, hidden_states, resnet.nonlinearity))
        if resnet.conv_shortcut is not None:
            residual = resnet.conv_shortcut(residual)
        hidden_states = hidden_states.add_(residual)
        return hidden_states if resnet.output_scale_factor == 1 else hidden_states / resnet.output_scale_factor

    def run_upsample(
        self, upsample: Upsample2D, stock: Callable, hidden_states: torch.Tensor, output_size: Any = None
    ) -> torch.Tensor:
        """
        Double the size, and convolve: four convolutions of 2 x 2 on the small image, one for each pixel of a square.

        Doubling repeats pixels, so the nine weights of a 3 x 3 kernel act on four different pixels only.
        """
        layer = upsample.conv if upsample.use_conv and upsample.name == "conv" else None
        is_usual = layer is not None and is_plain(layer) and layer.kernel_size == (3, 3)
        is_usual = is_usual and layer.padding == (1, 1) and layer.stride == (1, 1) and layer.groups == 1
        if not is_usual or output_size is not None or upsample.norm is not None or not upsample.interpolate:
            return stock(hidden_states, output_size)
        if upsample not in self.derived:
            self.derived[upsample] = quarter_kernels(layer.weight)
        rows, _, height, width = hidden_states.shape
        padded = F.pad(in_fast_format(hidden_states), (1, 1, 1, 1))
        doubled = in_fast_format(padded.new_empty(rows, layer.out_channels, 2 * height, 2 * width))
        for (i, j), kernel in self.derived[upsample].items():
            part = padded[:, :, i : i + height + 1, j : j + width + 1]
            doubled[:, :, i::2, j::2] = F.conv2d(part, kernel, layer.bias)
        return doubled

    def run_image_transformer(
        self,
        transformer: Transformer2DModel,
        stock: Callable,
        hidden_states: torch.Tensor,
        encoder_hidden_states: Any = None,
        return_dict: bool = True,
        **others: Any,
    ) -> tuple[torch.Tensor] | Any:
        """Run the attention and feed-forward layers of an image; guidance terms part where the text enters."""
        text = encoder_hidden_states if isinstance(encoder_hidden_states, Text) else None
        projections = (transformer.proj_in, transformer.proj_out)
        is_usual = transformer.is_input_continuous and all(map(is_plain_block, transformer.transformer_blocks))
        is_usual = is_usual and all(isinstance(layer, nn.Linear) or is_plain(layer) for layer in projections)
        if not is_usual or return_dict or any(value is not None and value != {} for value in others.values()):
            if text is not None:
                hidden_states, encoder_hidden_states = text.expand(hidden_states), text.embeds
            return stock(hidden_states, encoder_hidden_states, return_dict=return_dict, **others)
        residual = in_fast_format(hidden_states)
        height, width = residual.shape[-2:]
        tokens = project(transformer.proj_in, to_tokens(transformer.norm(residual)))
        residual = to_tokens(residual)
        for block in transformer.transformer_blocks:
            tokens = self_attention(block.attn1, block.norm1(tokens), tokens)
            if text is not None:
                tokens, residual = text.expand(tokens), text.expand(residual)
            tokens = cross_attention(block.attn2, block.norm2(tokens), tokens, text or encoder_hidden_states)
            tokens = feed_forward(block.ff, block.norm3(tokens), tokens)
        tokens = project(transformer.proj_out, tokens, residual)
        return (tokens.unflatten(1, (height, width)).permute(0, 3, 1, 2),)

    def run_motion_module(
        self, module: AnimateDiffTransformer3D, stock: Callable, hidden_states: torch.Tensor, **others: Any
    ) -> torch.Tensor:
        """Run a motion module on tokens `(batch, num_frames, height * width, channels)`, without reordering them."""
        num_frames = others.pop("num_frames", 1)
        is_usual = all(is_plain_block(block) and block.pos_embed is not None for block in module.transformer_blocks)
        if not is_usual or any(value is not None for value in others.values()):
            return stock(hidden_states, num_frames=num_frames, **others)
        residual = in_fast_format(hidden_states)
        height, width = residual.shape[-2:]
        clips = residual.unflatten(0, (-1, num_frames))
        tokens = project(module.proj_in, module.norm(clips.transpose(1, 2)).permute(0, 2, 3, 4, 1).flatten(2, 3))
        for block in module.transformer_blocks:
            positions = block.pos_embed.pe[0, :num_frames, None].to(tokens.dtype)
            tokens = frame_attention(block.attn1, block.norm1(tokens).add_(positions), tokens)
            tokens = self.run_second_attention(block.attn2, block.norm2(tokens).add_(positions), tokens)
            tokens = feed_forward(block.ff, block.norm3(tokens), tokens)
        tokens = project(module.proj_out, tokens, add=to_tokens(residual).unflatten(0, (-1, num_frames)))
        return tokens.unflatten(2, (height, width)).flatten(0, 1).permute(0, 3, 1, 2)

    def run_second_attention(self, attention: Attention, normed: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """NADM Eq. 8: run `attn2` of a motion block; in mode `previous`, as one linear layer of the frame before."""
        layers = (attention.to_v, attention.to_out[0])
        is_usual = getattr(attention, "sparse_causal_mode", "full") == "previous" and is_untouched(attention)
        if not is_usual or not all(map(is_plain, layers)):
            return frame_attention(attention, normed, tokens)
        to_v, to_out = layers
        if attention not in self.derived:
            merged = to_out.weight.float() @ to_v.weight.float()
            bias = to_out.bias.float() if to_out.bias is not None else merged.new_zeros(len(merged))
            bias = bias if to_v.bias is None else bias + to_out.weight.float() @ to_v.bias.float()
            self.derived[attention] = merged.to(to_v.weight.dtype), bias.to(to_v.weight.dtype)
        value = affine(normed[:, : max(1, normed.shape[1] - 1)], *self.derived[attention])
        tokens[:, 1:] += value[:, : tokens.shape[1] - 1]
        tokens[:, 0] += value[:, 0]
        return tokens


class Text:
    """
    Prompt embeddings of a UNet call, and the keys and values that attention layers make of them.

    Args:
        embeds: Prompt embeddings with a copy per frame, `(batch * num_frames, tokens, dim)`.
        num_frames: Number of frames per clip.
    """

    def __init__(self, embeds: torch.Tensor, num_frames: int) -> None:
        self.embeds, self.num_frames = embeds.clone(), num_frames  # a callback may change them in place
        clips = self.embeds.unflatten(0, (-1, num_frames))
        are_copies = torch.equal(clips, clips[:, :1].expand_as(clips))
        self.distinct = clips[:, 0] if are_copies else self.embeds
        self.keys_values: dict[Attention, tuple[torch.Tensor, torch.Tensor]] = {}

    def expand(self, rows: torch.Tensor) -> torch.Tensor:
        """Repeat rows of images or tokens until there is one for each row of the prompt embeddings."""
        return rows if len(rows) == len(self.embeds) else torch.cat([rows] * (len(self.embeds) // len(rows)))

    def matches(self, embeds: torch.Tensor, num_frames: int) -> bool:
        """Whether this object was made from such embeddings."""
        return self.num_frames == num_frames and torch.equal(self.embeds, embeds)

    def project(self, attention: Attention) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values, `(clips or frames, heads, tokens, dim)`."""
        if attention in self.keys_values:
            return self.keys_values[attention]
        layers = (attention.to_k, attention.to_v)
        projected = tuple(split_heads(project(layer, self.distinct), attention.heads) for layer in layers)
        if all(map(is_plain, layers)):  # the scale of a LoRA may change in any step
            self.keys_values[attention] = projected
        return projected


# Layers of tokens, `(..., tokens, channels)`; `tokens` without the norm is what their output is added to


def self_attention(attention: Attention, normed: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Attend to the positions of the same image, `(rows, tokens, channels)`, and add `tokens`."""
    if not is_plain_attention(attention):
        return tokens + attention(normed)
    layers = (attention.to_q, attention.to_k, attention.to_v)
    attended = attend(*(split_heads(project(layer, normed), attention.heads) for layer in layers))
    return project(attention.to_out[0], attended.transpose(1, 2).flatten(2), tokens)


def cross_attention(attention: Attention, normed: torch.Tensor, tokens: torch.Tensor, text: Any) -> torch.Tensor:
    """Attend to a `Text`, with one set of keys and values for all frames of a clip if possible, and add `tokens`."""
    if not isinstance(text, Text) or not is_plain_attention(attention):
        return tokens + attention(normed, encoder_hidden_states=text.embeds if isinstance(text, Text) else text)
    key, value = text.project(attention)
    query = project(attention.to_q, normed).view(len(key), -1, key.shape[1] * key.shape[3])
    attended = attend(split_heads(query, attention.heads), key, value).transpose(1, 2).reshape(*normed.shape[:2], -1)
    return project(attention.to_out[0], attended, tokens)


def frame_attention(attention: Attention, normed: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Attend to all frames at the same place, `(batch, num_frames, places, channels)`, and add `tokens`."""
    batch, _, places, _ = normed.shape
    if not is_plain_attention(attention):
        attended = attention(normed.transpose(1, 2).flatten(0, 1))
        return tokens + attended.unflatten(0, (batch, places)).transpose(1, 2)
    query, key, value = (
        project(layer, normed).unflatten(-1, (attention.heads, -1)).permute(0, 2, 3, 1, 4).flatten(0, 1)
        for layer in (attention.to_q, attention.to_k, attention.to_v)
    )
    attended = attend(query, key, value).unflatten(0, (batch, places)).permute(0, 3, 1, 2, 4).flatten(3)
    return project(attention.to_out[0], attended, tokens)


def feed_forward(layers: nn.Module, normed: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """Run a gated feed-forward layer, and add `tokens`; the gate is a part of its matrix products."""
    geglu, _, out = layers.net
    if not is_untouched(layers, geglu) or not is_plain(geglu.proj):
        return tokens + layers(normed)
    hidden_weight, gate_weight = geglu.proj.weight.chunk(2)
    hidden_bias, gate_bias = (None, None) if geglu.proj.bias is None else geglu.proj.bias.chunk(2)
    gate = affine(normed, gate_weight, gate_bias, "gelu")
    return project(out, affine(normed, hidden_weight, hidden_bias, "mul", gate), tokens)


def project(layer: nn.Module, tokens: torch.Tensor, add: torch.Tensor | None = None) -> torch.Tensor:
    """Apply a linear layer or a 1 x 1 convolution to tokens, and add `add`."""
    if is_plain(layer):
        return affine(tokens, layer.weight.flatten(1), layer.bias, "none" if add is None else "add", add)
    projected = layer(tokens)
    return projected if add is None else projected + add


def affine(
    tokens: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    then: str = "none",
    other: torch.Tensor | None = None,
) -> torch.Tensor:
    """
    Return `tokens @ weight.T + bias`.

    On a CPU this is oneDNN's product, also in float32, where torch takes MKL's, which is half as fast on AMD.

    Args:
        tokens: `(..., in_channels)`.
        weight: `(out_channels, in_channels)`.
        bias: `(out_channels,)` or `None`.
        then: What follows in the same kernel: `"none"`, `"gelu"`, `"mul"` (times `other`) or `"add"` (plus `other`).
        other: `(..., out_channels)`, for `"mul"` and `"add"`.
    """
    if has_onednn_linear() and tokens.device.type == "cpu" and tokens.dtype in (torch.float32, torch.bfloat16):
        if other is None:
            return torch.ops.mkldnn._linear_pointwise(tokens, weight, bias, then, [], "none")
        return torch.ops.mkldnn._linear_pointwise.binary(tokens, other, weight, bias, then)
    product = F.linear(tokens, weight, bias)
    if then == "gelu":
        return F.gelu(product)
    return product if other is None else product.mul_(other) if then == "mul" else product.add_(other)


@functools.cache
def has_onednn_linear() -> bool:
    """Whether torch has linear layers of oneDNN with a fused operation behind them."""
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """Compute softmax attention, `(rows, heads, tokens, dim)`: on a CPU, by two products if there are few keys."""
    keys, scores = key.shape[2], query.shape[:3].numel() * key.shape[2]
    if query.device.type == "cpu" and keys <= MAX_SHORT_KEYS and scores <= MAX_SCORES:
        weights = torch.matmul(query, key.transpose(-1, -2)).mul_(query.shape[-1] ** -0.5)
        # In float32: torch's softmax over few values in half precision takes three times as long.
        weights = weights.softmax(dim=-1, dtype=torch.float32).to(value.dtype)
        return torch.matmul(weights, value)
    return F.scaled_dot_product_attention(query, key, value)


def split_heads(tokens: torch.Tensor, heads: int) -> torch.Tensor:
    return tokens.unflatten(-1, (heads, -1)).transpose(1, 2)


# Layers of images, `(rows, channels, height, width)`


def in_fast_format(images: torch.Tensor) -> torch.Tensor:
    """Return images with channels last on a CPU: there, tokens are a view, and convolutions are faster."""
    return images.contiguous(memory_format=torch.channels_last) if images.device.type == "cpu" else images


def to_tokens(images: torch.Tensor) -> torch.Tensor:
    """`(rows, channels, height, width)` to `(rows, height * width, channels)`, a view with channels last."""
    return images.permute(0, 2, 3, 1).flatten(1, 2)


def normalize(norm: nn.Module, images: torch.Tensor, activation: nn.Module) -> torch.Tensor:
    """Apply a norm, then an activation, in place if possible."""
    normed = norm(images)
    return F.silu(normed, inplace=True) if type(activation) is nn.SiLU else activation(normed)


def quarter_kernels(weight: torch.Tensor) -> dict[tuple[int, int], torch.Tensor]:
    """
    Split a 3 x 3 kernel that acts on an image of doubled pixels into four kernels of 2 x 2 on the small image.

    Args:
        weight: `(out_channels, in_channels, 3, 3)`.

    Returns:
        `(out_channels, in_channels, 2, 2)` by the row and the column of a pixel in its square.
    """
    first, second, third = weight.float().unbind(2)
    rows = {0: (first, second + third), 1: (first + second, third)}
    kernels = {}
    for i, pair in rows.items():
        first, second, third = torch.stack(pair, dim=2).unbind(3)
        kernels[i, 0] = torch.stack((first, second + third), dim=3)
        kernels[i, 1] = torch.stack((first + second, third), dim=3)
    return {place: in_fast_format(kernel.to(weight.dtype)) for place, kernel in kernels.items()}


# What may be accelerated


def is_untouched(*modules: nn.Module) -> bool:
    """Whether nobody has put hooks on these modules or replaced their forward pass."""
    return not any(
        "forward" in module.__dict__ or module._forward_hooks or module._forward_pre_hooks for module in modules
    )


def is_plain(layer: nn.Module) -> bool:
    """Whether a layer is linear, or a convolution, and nothing else, such as a LoRA."""
    return type(layer) in (nn.Linear, nn.Conv2d) and is_untouched(layer)


def is_plain_attention(attention: Attention) -> bool:
    """Whether an attention layer computes nothing but softmax attention, with diffusers' default processor."""
    parts = (attention.spatial_norm, attention.group_norm, attention.norm_q, attention.norm_k, attention.norm_cross)
    return (
        type(attention.processor) is AttnProcessor2_0
        and getattr(attention, "sparse_causal_mode", "full") == "full"
        and is_untouched(attention)
        and all(part is None for part in parts)
        and not attention.residual_connection
        and attention.rescale_output_factor == 1
    )


def is_plain_block(block: nn.Module) -> bool:
    """Whether a transformer block has the layers of Stable Diffusion and AnimateDiff, and no dropout acts in it."""
    return (
        type(block) is BasicTransformerBlock
        and block.norm_type == "layer_norm"
        and not block.only_cross_attention
        and block.attn2 is not None
        and block._chunk_size is None
        and len(block.ff.net) == 3
        and type(block.ff.net[0]) is GEGLU
        and not hasattr(block, "fuser")
        and not (block.training and block.dropout)
        and is_untouched(block)
    )
