"""`pipe.optimize()`: the same clips in every state of a pipeline, and models that are as before after each call."""

import copy

import pytest
import torch
from diffusers import AnimateDiffPipeline, UNetMotionModel
from diffusers.models.attention_processor import AttnProcessor
from peft import LoraConfig

from motion_unets import NUM_FRAMES, inputs, moving_unet
from pipeline_calls import said, sample
from pipeline_changes import load_ip_adapter
from pipeline_landscape_video import SPARSE_CAUSAL_MODES, LandscapeVideoPipeline, install_motion_norm
from pipeline_landscape_video.landscape_acceleration import Acceleration, count_copies
from pipeline_landscape_video.landscape_fast_layers import FastLayers, Text
from retention_models import build_image_to_video, painting


IMAGE_EMBEDS = {"ip_adapter_image_embeds": [torch.linspace(-1, 1, 2 * 8).reshape(2, 1, 8)]}


def psnr(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Peak signal-to-noise ratio of frames in [0, 1], in dB."""
    return (-10 * torch.log10((actual.double() - expected.double()).square().mean() + 1e-20)).item()


def assert_same_clip(pipe, generate=sample, **arguments):
    """Check that a call gives the same clip with and without `optimize`, and that it took another way there."""
    arguments |= {"interpolate": False}
    pipe.optimize(False)
    expected = generate(pipe, **arguments)
    pipe.optimize()
    modules = [dict(vars(module)) for module in pipe.unet.modules()]
    actual = generate(pipe, **arguments)
    assert [dict(vars(module)).keys() for module in pipe.unet.modules()] == [module.keys() for module in modules]
    assert psnr(actual, expected) >= 60
    assert not torch.equal(actual, expected)
    assert torch.equal(generate(pipe, **arguments), actual)  # nothing of the first call is left


def add_lora(pipe):
    pipe.unet.add_adapter(
        LoraConfig(
            r=2, target_modules=["to_q", "to_v", "ff.net.0.proj", "attentions.0.proj_in"], init_lora_weights=False
        )
    )


def enable_free_noise(pipe):
    pipe.enable_free_noise(context_length=4, context_stride=2)


def split_free_noise(pipe):
    enable_free_noise(pipe)
    pipe.enable_free_noise_split_inference(spatial_split_size=48, temporal_split_size=5)


def replace_prompt(pipe, step, timestep, tensors):
    """Change the embeddings in place, which caches must notice."""
    tensors["prompt_embeds"].mul_(0.5)
    return tensors


STATES = {
    "plain": (lambda pipe: None, {}),
    "without guidance": (lambda pipe: None, {"guidance_scale": 1.0}),
    "two clips": (lambda pipe: None, {"prompt": ["mist", "rain"], "negative_prompt": ["boat", "moon"]}),
    "odd size": (lambda pipe: None, {"height": 40, "width": 56}),
    "LoRA": (add_lora, {}),
    "LoRA at half its scale": (add_lora, {"cross_attention_kwargs": {"scale": 0.5}}),
    "IP-Adapter": (load_ip_adapter, IMAGE_EMBEDS),
    "own processor": (lambda pipe: pipe.unet.set_attn_processor(AttnProcessor()), {}),
    "fused projections": (lambda pipe: pipe.unet.fuse_qkv_projections(), {}),
    "FreeNoise": (enable_free_noise, {"num_frames": 8, "prompt": {0: "mist", 4: "rain"}}),
    "FreeNoise, split": (split_free_noise, {"num_frames": 8}),
    "windows": (lambda pipe: None, {"num_frames": 40, "prompt": {0: "mist", 30: "rain"}}),
    "FreeInit": (lambda pipe: pipe.enable_free_init(num_iters=2), {}),
    "FreeU": (lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4), {}),
    "norm of each frame": (lambda pipe: install_motion_norm(pipe.unet, "frame"), {}),
    "callback": (
        lambda pipe: None,
        {"callback_on_step_end": replace_prompt, "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds"]},
    ),
    "offloading": (lambda pipe: pipe.enable_model_cpu_offload(device="cpu"), {}),
}


@pytest.mark.parametrize("state", STATES)
def test_the_clip_is_the_same(state, tiny_pipeline):
    prepare, arguments = STATES[state]
    pipe = tiny_pipeline()
    prepare(pipe)
    assert_same_clip(pipe, **arguments)


@pytest.mark.parametrize("mode", SPARSE_CAUSAL_MODES)
def test_the_clip_is_the_same_in_every_mode(mode, tiny_pipeline):
    assert_same_clip(tiny_pipeline(sparse_causal_mode=mode))


def test_a_clip_of_an_image_is_the_same():
    pipe = build_image_to_video()
    stages = {"prompt": None, "prompts": ["mist", "rain"], "image": painting(), "guidance_scale": 4.0}
    assert_same_clip(pipe, **stages)
    pipe.enable_model_cpu_offload(device="cpu")
    assert_same_clip(pipe, **stages)


def test_what_is_not_accelerated_is_said_once_and_comes_back(tiny_pipeline, caplog):
    pipe = tiny_pipeline()
    pipe.optimize()
    sample(pipe)
    assert not said(caplog)
    add_lora(pipe)
    sample(pipe), sample(pipe)
    assert [message for message in said(caplog) if "LoRA layers" in message] == said(caplog) and len(said(caplog)) == 1
    pipe.unet.delete_adapters("default")
    plain = sample(pipe)
    pipe.optimize(False)
    assert psnr(plain, sample(pipe)) >= 60


def test_pipelines_made_from_an_optimized_one_are_plain(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline()
    expected = sample(pipe, interpolate=False)
    pipe.optimize()
    sample(pipe)
    pipe.save_pretrained(tmp_path)
    assert torch.equal(sample(LandscapeVideoPipeline.from_pretrained(tmp_path), interpolate=False), expected)
    borrowed = AnimateDiffPipeline.from_pipe(pipe)
    assert borrowed.unet is pipe.unet and type(pipe.unet) is UNetMotionModel
    assert all("forward" not in vars(module) for module in borrowed.unet.modules())
    copy.deepcopy(pipe.unet)


def test_an_error_takes_the_acceleration_back(tiny_pipeline):
    pipe = tiny_pipeline()
    pipe.optimize()

    def fail(*_):
        raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        sample(pipe, callback_on_step_end=fail)
    assert all("forward" not in vars(module) for module in pipe.unet.modules())


def test_gradients_take_the_forward_pass_of_diffusers():
    unet = moving_unet()
    latents, text = inputs()
    arguments = (latents, 500, text.repeat_interleave(NUM_FRAMES, dim=0))
    expected = unet(*arguments).sample
    with Acceleration(unet, FastLayers()):
        actual = unet(*arguments).sample
    assert torch.equal(actual, expected) and actual.requires_grad


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stock_unet_with_different_clips_frames_and_residuals(dtype):
    unet = moving_unet(mode=None).to(dtype)
    latents, _ = inputs(dtype)
    text = torch.randn(2 * NUM_FRAMES, 7, 16, generator=torch.Generator().manual_seed(2)).to(dtype)
    for noisy in (latents, latents[:1].repeat(2, 1, 1, 1, 1)):  # nothing to share, and everything
        expected = unet(noisy, 500, text).sample
        with Acceleration(unet, FastLayers()):
            first, second = unet(noisy, 500, text).sample, unet(noisy, 500, text.flip(0)).sample
            assert torch.equal(unet(noisy, 500, text).sample, first)
        assert not torch.equal(first, second)
        tolerance = 1e-4 if dtype == torch.float32 else 0.1
        torch.testing.assert_close(first, expected, rtol=tolerance, atol=tolerance)


def test_keys_and_values_are_computed_once_per_clip():
    text = torch.randn(2, 7, 16).repeat_interleave(NUM_FRAMES, dim=0)
    attention = next(module for name, module in moving_unet().named_modules() if name.endswith("0.attn2"))
    prepared = Text(text, NUM_FRAMES)
    key, value = prepared.project(attention)
    assert len(key) == len(value) == 2 and prepared.project(attention)[0] is key
    assert prepared.matches(text.clone(), NUM_FRAMES) and not prepared.matches(text + 1, NUM_FRAMES)
    assert len(Text(torch.randn(2 * NUM_FRAMES, 7, 16), NUM_FRAMES).distinct) == 2 * NUM_FRAMES


@pytest.mark.parametrize(("rows", "copies"), [("a", 1), ("aa", 2), ("aaa", 3), ("abab", 2), ("aab", 1), ("ab", 1)])
def test_copies_of_guidance_terms_are_found(rows, copies):
    assert count_copies(torch.tensor([[float(ord(row))] for row in rows])) == copies
