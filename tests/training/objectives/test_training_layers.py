"""Precision, activation checkpointing and compilation of a training UNet leave its gradients unchanged."""

from collections import Counter

import pytest
import torch
from diffusers import DDPMScheduler, UNetMotionModel
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.transformers.transformer_2d import Transformer2DModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch._dynamo.testing import CompileCounter

from landscape_video.training.objectives.motion_models import checkpoint_layers, compile_unet, lower_precision
from landscape_video.training.objectives.motion_objective import motion_losses
from motion_adapter.build import attach_motion_adapter, freeze_image_layers
from tiny_models import build_motion_adapter, build_unet2d


CPU = torch.device("cpu")
KINDS = {Transformer2DModel: "attention", AnimateDiffTransformer3D: "motion", ResnetBlock2D: "residual"}


@pytest.fixture
def unet() -> UNetMotionModel:
    torch.manual_seed(0)
    unet = attach_motion_adapter(build_unet2d(), build_motion_adapter()).train()
    freeze_image_layers(unet)
    return unet


def gradients(
    unet: UNetMotionModel, dtype: torch.dtype = torch.float32, num_frames: int = 6
) -> dict[str, torch.Tensor]:
    """Gradients of a seeded batch by the names of the parameters."""
    generator = torch.Generator().manual_seed(1)
    latents, noise = (torch.randn(2, 4, num_frames, 8, 8, generator=generator) for _ in range(2))
    text = torch.randn(2, 77, 16, generator=generator).to(dtype)
    unet.zero_grad()
    motion_losses(unet, None, DDPMScheduler(), latents, text, noise, torch.tensor([7, 500]))["total"].backward()
    return {name: parameter.grad for name, parameter in unet.named_parameters() if parameter.grad is not None}


def count_calls(unet: UNetMotionModel) -> Counter:
    """Count from now on how often the first layer within each kind of layer computes."""
    calls = Counter()
    for module in unet.modules():
        if kind := KINDS.get(type(module)):
            inner = module.norm1 if kind == "residual" else module.norm
            inner.register_forward_hook(lambda *_, kind=kind: calls.update([kind]))
    return calls


def test_only_trainable_parameters_get_gradients(unet):
    needs_gradient = {}
    for name, module in unet.named_modules():
        module.register_forward_hook(
            lambda module, inputs, output, name=name: needs_gradient.update(
                {name: getattr(output, "requires_grad", 0)}
            )
        )
    names = gradients(unet).keys()
    assert names == {name for name, parameter in unet.named_parameters() if parameter.requires_grad}
    assert all(".motion_modules." in name for name in names)
    assert not any(".attn2.to_q." in name or ".attn2.to_k." in name for name in names)
    for name in (
        "conv_in",
        "time_embedding.linear_2",
        "down_blocks.0.resnets.0.conv2",
        "down_blocks.0.attentions.0.proj_out",
    ):
        assert needs_gradient[name] is False
    assert needs_gradient["down_blocks.0.motion_modules.0.proj_out"] is True


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_image_layers_compute_in_half_precision_and_motion_modules_keep_their_weights(unet, dtype):
    exact = gradients(unet)
    weights = {name: parameter.clone() for name, parameter in unet.named_parameters() if parameter.requires_grad}
    lower_precision(unet, dtype, CPU)
    outputs = set()
    for module in unet.modules():
        if not any(module.children()) and type(module).__name__ in ("Conv2d", "GroupNorm", "SiLU"):
            module.register_forward_hook(lambda module, inputs, output: outputs.add(output.dtype))
    for module in unet.modules():
        if isinstance(module, AnimateDiffTransformer3D):  # under autocast: its own affair
            module.norm._forward_hooks.clear()
    lower = gradients(unet, dtype)
    assert outputs == {dtype}
    for name, parameter in unet.named_parameters():
        assert parameter.dtype == (torch.float32 if "motion_modules" in name else dtype)
        if name in weights:
            assert torch.equal(parameter, weights[name]) and lower[name].dtype == torch.float32
    a, b = (torch.cat([grad.flatten() for _, grad in sorted(found.items())]) for found in (exact, lower))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.99
    assert 0.95 < a.norm() / b.norm() < 1.05


def test_float32_stays_as_it_was(unet):
    exact = gradients(unet)
    lower_precision(unet, torch.float32, CPU)
    same = gradients(unet)
    assert same.keys() == exact.keys() and all(torch.equal(grad, exact[name]) for name, grad in same.items())


@pytest.mark.parametrize(
    ("layers", "times"),
    [
        ("attention", {"attention": 2, "motion": 2, "residual": 1}),
        ("all", {"attention": 2, "motion": 2, "residual": 2}),
    ],
)
def test_checkpointed_layers_compute_twice_and_give_the_same_gradients(unet, layers, times):
    calls = count_calls(unet)
    plain = gradients(unet)
    once = Counter(calls)
    calls.clear()
    checkpoint_layers(unet, layers)
    thrifty = gradients(unet)
    # The residual block before the first motion module has no backward pass, so nothing of it is computed again; nor
    # is the spatial attention there.
    frozen = {"attention": 1, "motion": 0, "residual": 1}
    for kind, factor in times.items():
        assert calls[kind] == once[kind] + (factor - 1) * (once[kind] - frozen[kind]), kind
    for name, grad in plain.items():
        torch.testing.assert_close(thrifty[name], grad, rtol=1e-4, atol=1e-6)


def test_a_compiled_unet_gives_the_same_gradients_at_every_length(unet):
    lengths = (6, 4)
    plain = [gradients(unet, num_frames=length) for length in lengths]
    checkpoint_layers(unet, "attention")
    graphs = CompileCounter()  # what is traced, without the C++ compiler's minutes
    compile_unet(unet, backend=graphs)
    for length, expected in zip(lengths, plain, strict=True):
        torch.testing.assert_close(gradients(unet, num_frames=length), expected, rtol=1e-4, atol=1e-6)
    assert graphs.frame_count == len(lengths)
