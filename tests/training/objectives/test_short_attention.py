"""Attention over few tokens: equal to the fused attention of diffusers."""

from collections import Counter

import pytest
import torch
from diffusers.models.attention_processor import AttnProcessor2_0

from landscape_video.training.objectives import short_attention
from landscape_video.training.objectives.short_attention import ShortAttnProcessor, use_fast_attention
from motion_adapter.build import attach_motion_adapter
from tiny_models import build_motion_adapter, build_unet2d


@pytest.fixture
def unet():
    torch.manual_seed(0)
    return attach_motion_adapter(build_unet2d(), build_motion_adapter("first_previous"))


@pytest.mark.parametrize("most_tokens", [256, 16, 1])  # 64 and 16 places, 6 frames: all plain, some, none
def test_output_and_gradient_are_those_of_the_fused_attention(unet, monkeypatch, most_tokens):
    monkeypatch.setattr(short_attention, "MAX_SHORT_TOKENS", most_tokens)
    sample, text = torch.randn(1, 4, 6, 8, 8), torch.randn(6, 77, 16)
    short, took = ShortAttnProcessor(), Counter()
    for kind in ("plain", "fused"):
        wrapped = getattr(short, kind)
        setattr(
            short, kind, lambda *args, kind=kind, wrapped=wrapped, **kw: took.update([kind]) or wrapped(*args, **kw)
        )
    results = []
    for processor in (AttnProcessor2_0(), short):
        unet.set_attn_processor(processor)
        unet.zero_grad()
        output = unet(sample, torch.tensor([7]), encoder_hidden_states=text).sample
        output.square().mean().backward()
        results.append([output.detach(), *(parameter.grad for parameter in unet.parameters())])
    for fused, short in zip(*results, strict=True):
        assert (fused is None) == (short is None)
        if fused is not None:
            torch.testing.assert_close(short, fused, rtol=1e-4, atol=1e-5)
    assert (took["plain"] > 0, took["fused"] > 0) == (most_tokens > 1, most_tokens < 256)


def test_only_half_precision_on_a_cpu_takes_it(unet):
    for device, dtype, expected in (
        ("cpu", torch.bfloat16, True),
        ("cpu", torch.float32, False),
        ("cuda", torch.bfloat16, False),
    ):
        unet.set_attn_processor(AttnProcessor2_0())
        use_fast_attention(unet, torch.device(device), dtype)
        assert {type(processor) is ShortAttnProcessor for processor in unet.attn_processors.values()} == {expected}
