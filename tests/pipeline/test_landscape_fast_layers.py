"""Layers of `FastLayers` against those of diffusers."""

import pytest
import torch
from diffusers.models.upsampling import Upsample2D
from torch import nn

from pipeline_landscape_video.landscape_fast_layers import FastLayers, affine, attend


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_four_small_convolutions_are_one_of_the_doubled_image(dtype):
    torch.manual_seed(0)
    layer = Upsample2D(8, use_conv=True, out_channels=12).to(dtype)
    images = torch.randn(3, 8, 5, 7, dtype=dtype)
    actual = FastLayers().run_upsample(layer, layer.forward, images)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    torch.testing.assert_close(actual, layer(images), **tolerance)
    assert torch.equal(FastLayers().run_upsample(layer, layer.forward, images, (9, 14)), layer(images, (9, 14)))


@torch.no_grad()
@pytest.mark.parametrize("shape", [(2, 8, 5, 7), (2, 8, 3, 5, 7), (2, 8, 40, 40)])
def test_group_norm_in_half_precision(shape):
    norm = nn.GroupNorm(4, 8).to(torch.bfloat16)
    images = torch.randn(shape).to(torch.bfloat16)
    torch.testing.assert_close(FastLayers().run_group_norm(norm, norm.forward, images), norm(images))


@pytest.mark.parametrize("onednn", [True, False])
def test_what_follows_a_product(onednn, monkeypatch):
    if not onednn:
        monkeypatch.setattr("pipeline_landscape_video.landscape_fast_layers.has_onednn_linear", lambda: False)
    torch.manual_seed(0)
    tokens, other = torch.randn(2, 3, 8), torch.randn(2, 3, 4)
    for bias in (torch.randn(4), None):
        weight = torch.randn(4, 8)
        product = nn.functional.linear(tokens, weight, bias)
        torch.testing.assert_close(affine(tokens, weight, bias), product)
        torch.testing.assert_close(affine(tokens, weight, bias, "gelu"), nn.functional.gelu(product))
        torch.testing.assert_close(affine(tokens, weight, bias, "add", other), product + other)
        torch.testing.assert_close(affine(tokens, weight, bias, "mul", other), product * other)


@pytest.mark.parametrize("num_keys", [7, 200])
def test_attention_over_few_and_many_keys(num_keys):
    torch.manual_seed(0)
    query, key, value = torch.randn(2, 3, 5, 8), torch.randn(2, 3, num_keys, 8), torch.randn(2, 3, num_keys, 8)
    torch.testing.assert_close(
        attend(query, key, value), nn.functional.scaled_dot_product_attention(query, key, value)
    )
