"""Sparse-causal attention against a dense masked attention that is written out here, in every state a UNet gets into.

The reference is always a *stock* diffusers model with the same weights that went through the same calls. Only then do
hooks replace what its `attn2` returns, by an attention over all frames with a mask listed frame by frame.
"""

import copy
import functools
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from diffusers import AnimateDiffPipeline, AnimateDiffVideoToVideoPipeline, UNetMotionModel
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from peft import LoraConfig, get_peft_model_state_dict
from torch import nn

from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.landscape_motion_attention import (
    SPARSE_CAUSAL_MODES,
    SparseCausalAttention,
    SparseCausalBlocks,
    check_adapter_fits,
    install_sparse_causal_attention,
    sparse_causal_mask,
)
from tiny_models import build_components, build_motion_adapter, build_unet2d


SPARSE_MODES = ("previous", "current_previous", "first_previous")


def keys_of(frame: int, mode: str) -> set[int]:
    """The frames that `frame` sees."""
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


@functools.cache
def stock_components(use_motion_mid_block: bool = False) -> dict[str, Any]:
    """The components of a stock pipeline, with a motion UNet; never changed, since building them takes its time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        adapter = build_motion_adapter(None, use_motion_mid_block=use_motion_mid_block)
    components = build_components(None, motion_adapter=adapter)
    unet = UNetMotionModel.from_unet2d(components["unet"], components["motion_adapter"]).eval()
    return components | {"unet": unet}


def build_motion_unet(mode: str | None) -> UNetMotionModel:
    """A motion UNet that moves; stock with mode None, with the same weights."""
    unet = copy.deepcopy(stock_components()["unet"])
    if mode is not None:
        install_sparse_causal_attention(unet, mode)
    return unet


def build_pipelines(
    mode: str, use_motion_mid_block: bool = False
) -> tuple[LandscapeVideoPipeline, AnimateDiffPipeline]:
    """Ours in `mode`, and a stock pipeline of the same weights."""
    components, stock = (copy.deepcopy(stock_components(use_motion_mid_block)) for _ in range(2))
    components["motion_adapter"].register_to_config(sparse_causal_mode=mode)
    return LandscapeVideoPipeline(**components), AnimateDiffPipeline(**stock)


@torch.no_grad()
def predict(
    unet: UNetMotionModel, num_frames: int = 6, dtype: torch.dtype = torch.float32, **arguments
) -> torch.Tensor:
    """The prediction for one fixed clip of 8 x 8 latents, `(2, 4, num_frames, 8, 8)`, in float32."""
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
    **arguments,
) -> None:
    """After `change`, ours predicts what the stock pipeline does with masks put on after the same `change`."""
    ours, stock = build_pipelines(mode, use_motion_mid_block)
    change(ours)
    (change_reference or change)(stock)
    plain = predict(stock.unet, **arguments)
    make_dense(stock.unet, mode)
    actual = predict(ours.unet, **arguments)
    assert_close(actual, predict(stock.unet, **arguments))
    assert (actual - plain).abs().max() > 1e-3, "plain attention would have passed"


# Definition and closed forms


def test_mask_of_every_mode():
    expected = {
        "previous": ["1000", "1000", "0100", "0010"],
        "current_previous": ["1000", "1100", "0110", "0011"],
        "first_previous": ["1000", "1000", "1100", "1010"],
        "full": ["1111"] * 4,
    }
    assert set(expected) == set(SPARSE_CAUSAL_MODES)
    for mode, rows in expected.items():
        mask = sparse_causal_mask(mode, 4)
        assert mask.dtype == torch.bool
        assert ["".join(str(int(cell)) for cell in row) for row in mask] == rows
        assert sparse_causal_mask(mode, 1).tolist() == [[True]]


@pytest.mark.parametrize("mode", SPARSE_MODES)
@pytest.mark.parametrize("num_frames", [1, 2, 3, 16])
def test_attention_equals_dense_masked_attention(mode, num_frames):
    attention = motion_attentions(build_motion_unet(mode))[0]
    hidden_states = torch.randn(5, num_frames, 8, generator=torch.Generator().manual_seed(0))
    assert_close(attention(hidden_states), dense_masked_attention(attention, hidden_states, mode), 1e-6)


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_the_mask_is_the_definition_of_the_mode(mode):
    attention = motion_attentions(build_motion_unet(mode))[0]
    hidden_states = torch.randn(5, 7, 8, generator=torch.Generator().manual_seed(0))
    stock = motion_attentions(build_motion_unet(None))[0]
    mask = torch.zeros(7, 7).masked_fill(~sparse_causal_mask(mode, 7), float("-inf")).expand(5, 7, 7)
    assert_close(attention(hidden_states), stock(hidden_states, attention_mask=mask), 1e-6)


def test_previous_is_the_value_of_the_frame_before():
    attention = motion_attentions(build_motion_unet("previous"))[0]
    hidden_states = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(0))
    actual = attention(hidden_states)
    for frame in range(6):
        value = attention.to_out[0](attention.to_v(hidden_states[:, max(frame - 1, 0)]))
        assert_close(actual[:, frame], value, 1e-6)


def test_previous_never_asks_for_queries_and_keys():
    attention = motion_attentions(build_motion_unet("previous"))[0]
    attention.to_q = attention.to_k = None
    assert attention(torch.randn(2, 3, 8)).shape == (2, 3, 8)


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_a_frame_sees_its_keys_and_no_other(mode):
    attention = motion_attentions(build_motion_unet(mode))[0]
    hidden_states = torch.randn(3, 6, 8, generator=torch.Generator().manual_seed(0))
    before = attention(hidden_states)
    for changed in range(6):
        other = hidden_states.clone()
        other[:, changed] += 1.0
        moved = (attention(other) - before).abs().amax(dim=(0, 2)) > 0
        # The query of `first_previous` is of a frame that is not among its keys, and moves their weights, too.
        expected = {
            frame
            for frame in range(6)
            if changed in keys_of(frame, mode) or (frame == changed and len(keys_of(frame, mode)) > 1)
        }
        assert set(moved.nonzero().flatten().tolist()) == expected


@pytest.mark.parametrize("state", ["as built", "sliced", "fused", "default processor"])
def test_full_is_stock_diffusers_bit_for_bit(state):
    ours, stock = build_motion_unet("full"), build_motion_unet(None)
    for unet in (ours, stock):
        if state == "sliced":
            for attention in motion_attentions(unet):
                attention.set_attention_slice(1)
        elif state == "fused":
            unet.fuse_qkv_projections()
        elif state == "default processor":
            unet.set_default_attn_processor()
    assert torch.equal(predict(ours), predict(stock))


def test_full_after_another_mode_is_stock_again():
    unet = build_motion_unet("previous")
    install_sparse_causal_attention(unet, "full")
    assert torch.equal(predict(unet), predict(build_motion_unet(None)))


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_whole_unet_equals_dense_masked_unet(mode):
    assert_survives(mode, lambda pipe: None)


def test_modes_differ():
    predictions = [predict(build_motion_unet(mode)) for mode in SPARSE_CAUSAL_MODES]
    for index, prediction in enumerate(predictions):
        for other in predictions[index + 1 :]:
            assert (prediction - other).abs().max() > 1e-3


# Precision and gradients


@pytest.mark.parametrize("mode", SPARSE_CAUSAL_MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close_and_finite(mode, dtype):
    attention = motion_attentions(build_motion_unet(mode))[0]
    hidden_states = torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(0))
    expected = attention(hidden_states)
    attention.to(dtype)
    for num_frames in (1, 2, 8):
        assert attention(hidden_states[:, :num_frames].to(dtype)).isfinite().all()
    assert attention(1000 * hidden_states.to(dtype)).isfinite().all()  # a softmax that picks one key
    assert_close(attention(hidden_states.to(dtype)).float(), expected, 0.02)


@pytest.mark.parametrize("mode", SPARSE_MODES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_survives_a_change_of_dtype(mode, dtype):
    ours, stock = build_motion_unet(mode).to(dtype), build_motion_unet(None).to(dtype)
    make_dense(stock, mode)
    actual = predict(ours, dtype=dtype)
    assert actual.isfinite().all()
    assert_close(actual, predict(stock, dtype=dtype), 0.05)
    make_dense(double := build_motion_unet(None), mode)
    assert_close(predict(ours.to(torch.float32)), predict(double), 0.05)


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_gradients_equal_those_of_dense_masked_attention(mode):
    attention, stock = (motion_attentions(build_motion_unet(which))[0] for which in (mode, None))
    weights = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(2))
    gradients = []
    for module, function in ((attention, attention), (stock, lambda x: dense_masked_attention(stock, x, mode))):
        hidden_states = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
        (function(hidden_states) * weights).sum().backward()
        named = {name: parameter.grad for name, parameter in module.named_parameters()}
        gradients.append(named | {"hidden_states": hidden_states.grad})
    for name, expected in gradients[1].items():
        if mode == "previous" and name in ("to_q.weight", "to_k.weight"):
            assert gradients[0][name] is None and expected.abs().max() < 1e-6
        else:
            assert expected.abs().max() > 1e-4
            assert_close(gradients[0][name], expected)


def test_gradient_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        unet = build_motion_unet("previous").train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        latents, text = torch.ones(1, 4, 4, 8, 8), torch.ones(4, 5, 16)
        unet(latents, 500, text).sample.square().mean().backward()
        gradients.append(motion_attentions(unet)[0].to_v.weight.grad)
    assert gradients[0].abs().max() > 0
    assert_close(gradients[0], gradients[1])


# What diffusers does to a UNet


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_survives_default_attention_processors(mode):
    assert_survives(mode, lambda pipe: pipe.unet.set_default_attn_processor())


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_survives_fused_projections(mode):
    assert_survives(mode, lambda pipe: pipe.unet.fuse_qkv_projections())


def test_survives_unfused_projections():
    assert_survives("previous", lambda pipe: (pipe.unet.fuse_qkv_projections(), pipe.unet.unfuse_qkv_projections()))


@pytest.mark.parametrize("mode", SPARSE_MODES)
@pytest.mark.parametrize("slice_size", ["auto", 1])
def test_survives_attention_slicing(mode, slice_size):
    assert_survives(mode, lambda pipe: pipe.enable_attention_slicing(slice_size))


def test_survives_attention_slicing_switched_off():
    assert_survives("previous", lambda pipe: (pipe.enable_attention_slicing(), pipe.disable_attention_slicing()))


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_survives_free_noise(mode):
    # 9 frames in windows of 4 every 2: the last window is shifted back; each window begins with a frame of its own
    assert_survives(mode, lambda pipe: pipe.enable_free_noise(context_length=4, context_stride=2), num_frames=9)


def test_survives_free_noise_enabled_twice():
    def enable_twice(pipe: AnimateDiffPipeline) -> None:
        pipe.enable_free_noise(context_length=6, context_stride=3)
        pipe.enable_free_noise(context_length=4, context_stride=2)

    assert_survives("previous", enable_twice, num_frames=8)


def test_survives_free_noise_split_inference():
    def split(pipe: AnimateDiffPipeline) -> None:
        pipe.enable_free_noise(context_length=4, context_stride=2)
        pipe.enable_free_noise_split_inference(spatial_split_size=48, temporal_split_size=5)

    # diffusers' split inference fails on a mid block without a motion module
    assert_survives("previous", split, use_motion_mid_block=True, num_frames=8)


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_survives_free_noise_switched_off(mode):
    def switch_on_and_off(pipe: LandscapeVideoPipeline) -> None:
        pipe.enable_free_noise(context_length=4, context_stride=2)
        pipe.disable_free_noise()

    # The stock pipeline fails here when the mid block has no motion module; it was never switched on.
    assert_survives(mode, switch_on_and_off, lambda pipe: None)


def test_free_noise_of_a_stock_pipeline_keeps_the_mode_of_our_unet():
    ours, stock = build_pipelines("previous")
    borrowed = AnimateDiffPipeline.from_pipe(ours)
    for pipe in (borrowed, stock):
        pipe.enable_free_noise(context_length=4, context_stride=2)
    make_dense(stock.unet, "previous")
    assert_close(predict(borrowed.unet, num_frames=8), predict(stock.unet, num_frames=8))


def ip_adapter_weights(pipe: AnimateDiffPipeline) -> dict[str, dict[str, torch.Tensor]]:
    """A random IP-Adapter for the tiny UNet: 8 image channels in, 4 tokens of 16 out."""
    generator = torch.Generator().manual_seed(3)
    image_proj = {
        "proj.weight": torch.randn(4 * 16, 8, generator=generator),
        "proj.bias": torch.zeros(4 * 16),
        "norm.weight": torch.ones(16),
        "norm.bias": torch.zeros(16),
    }
    ip_adapter = {}
    # diffusers counts text attentions in this order, by odd numbers
    names = [name for name in pipe.unet.attn_processors if "motion_modules" not in name and "attn2" in name]
    for index, name in enumerate(names):
        channels = pipe.unet.get_submodule(name.removesuffix(".processor")).inner_dim
        for projection in ("to_k_ip", "to_v_ip"):
            weight = torch.randn(channels, 16, generator=generator)
            ip_adapter[f"{2 * index + 1}.{projection}.weight"] = weight
    return {"image_proj": image_proj, "ip_adapter": ip_adapter}


def load_ip_adapter(pipe: AnimateDiffPipeline) -> None:
    pipe.load_ip_adapter(ip_adapter_weights(pipe), subfolder="", weight_name="", image_encoder_folder=None)


IMAGE_PROMPT = {"image_embeds": [torch.linspace(-1, 1, 2 * 8).reshape(2, 1, 8)]}


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_survives_an_ip_adapter(mode):
    assert_survives(mode, load_ip_adapter, added_cond_kwargs=IMAGE_PROMPT)


def test_survives_an_ip_adapter_unloaded():
    assert_survives("previous", lambda pipe: (load_ip_adapter(pipe), pipe.unload_ip_adapter()))


def test_installing_again_keeps_the_image_prompt():
    ours, stock = build_pipelines("previous")
    for pipe in (ours, stock):
        load_ip_adapter(pipe)
    install_sparse_causal_attention(ours.unet, "first_previous")
    make_dense(stock.unet, "first_previous")
    actual = predict(ours.unet, added_cond_kwargs=IMAGE_PROMPT)
    assert_close(actual, predict(stock.unet, added_cond_kwargs=IMAGE_PROMPT))
    without = {"image_embeds": [torch.zeros(2, 1, 8)]}
    assert (actual - predict(ours.unet, added_cond_kwargs=without)).abs().max() > 1e-3


def save_motion_lora(directory: str) -> None:
    """A LoRA on all temporal attentions, as AnimateDiff's motion LoRAs."""
    unet = build_motion_unet(None)
    unet.add_adapter(
        LoraConfig(r=2, target_modules=r".*motion_modules.*(to_q|to_k|to_v|to_out\.0)", init_lora_weights=False)
    )
    with torch.no_grad():
        for index, (name, parameter) in enumerate(unet.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    layers = {name: weight.contiguous() for name, weight in get_peft_model_state_dict(unet).items()}
    AnimateDiffPipeline.save_lora_weights(directory, unet_lora_layers=layers)


@pytest.mark.parametrize("mode", ["previous", "first_previous"])
def test_survives_lora(mode, tmp_path):
    save_motion_lora(str(tmp_path))
    ours, stock = build_pipelines(mode)
    make_dense(stock.unet, mode)  # the hooks call the projections of the moment, so one reference does for all states
    without = predict(ours.unet)

    predictions = []
    for change in (
        lambda pipe: pipe.load_lora_weights(str(tmp_path), adapter_name="drift"),
        lambda pipe: pipe.set_adapters("drift", 0.3),
        lambda pipe: pipe.fuse_lora(),
    ):
        change(ours)
        change(stock)
        predictions.append(predict(ours.unet))
        assert_close(predictions[-1], predict(stock.unet))
    assert (predictions[0] - without).abs().max() > 1e-3 and (predictions[0] - predictions[1]).abs().max() > 1e-3
    ours.unfuse_lora()
    ours.unload_lora_weights()
    assert_close(predict(ours.unet), without)


def test_lora_acts_after_fused_projections(tmp_path):
    """Stock attention ignores a LoRA once the projections are fused; ours calls the projections themselves."""
    save_motion_lora(str(tmp_path))
    ours, stock = build_pipelines("previous")
    for pipe in (ours, stock):
        pipe.unet.fuse_qkv_projections()
        pipe.load_lora_weights(str(tmp_path))
    make_dense(stock.unet, "previous")
    assert_close(predict(ours.unet), predict(stock.unet))


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_survives_saving_and_loading_the_pipeline(mode, tmp_path):
    ours, stock = build_pipelines(mode)
    ours.save_pretrained(tmp_path)
    loaded = LandscapeVideoPipeline.from_pretrained(tmp_path)
    assert loaded.unet.config.sparse_causal_mode == mode
    assert loaded.motion_adapter.config.sparse_causal_mode == mode
    make_dense(stock.unet, mode)
    assert_close(predict(loaded.unet), predict(stock.unet))


def test_the_motion_unet_file_keeps_the_mode_for_the_next_installation(tmp_path):
    build_motion_unet("first_previous").save_pretrained(tmp_path)
    loaded = UNetMotionModel.from_pretrained(tmp_path)
    assert torch.equal(predict(loaded), predict(build_motion_unet(None))), "stock code runs it as plain attention"
    install_sparse_causal_attention(loaded, loaded.config.sparse_causal_mode)
    make_dense(stock := build_motion_unet(None), "first_previous")
    assert_close(predict(loaded), predict(stock))


@pytest.mark.parametrize("target", [AnimateDiffPipeline, AnimateDiffVideoToVideoPipeline, LandscapeVideoPipeline])
def test_from_pipe_keeps_the_mode_and_the_source(target):
    ours, stock = build_pipelines("previous")
    before = predict(ours.unet)
    other = target.from_pipe(ours)
    make_dense(stock.unet, "previous")
    assert_close(predict(other.unet), predict(stock.unet))
    assert torch.equal(predict(ours.unet), before)


def test_from_pipe_of_a_stock_pipeline_leaves_it_as_it_was():
    _, stock = build_pipelines("full")
    stock.motion_adapter.register_to_config(sparse_causal_mode="previous")  # stock code pays no heed to it
    before = predict(stock.unet)
    ours = LandscapeVideoPipeline.from_pipe(stock)
    assert torch.equal(predict(stock.unet), before)
    make_dense(stock.unet, "previous")
    assert_close(predict(ours.unet), predict(stock.unet))


def test_from_unet2d_rebuilds_plain_attention_until_it_is_installed_again():
    unet2d, adapter = build_unet2d(), build_motion_adapter("previous")
    ours, stock = (UNetMotionModel.from_unet2d(unet2d, adapter).eval() for _ in range(2))
    assert torch.equal(predict(ours), predict(stock))
    install_sparse_causal_attention(ours, "previous")
    make_dense(stock, "previous")
    assert_close(predict(ours), predict(stock))


def test_survives_copy_and_pickle():
    unet = build_motion_unet("first_previous")
    expected = predict(unet)
    for other in (copy.deepcopy(unet), pickle.loads(pickle.dumps(unet))):
        assert other.config.sparse_causal_mode == "first_previous"
        assert torch.equal(predict(other), expected)


def test_the_unet_compiles_without_graph_breaks():
    torch.compiler.reset()
    compiled = torch.compile(build_motion_unet("previous"), fullgraph=True, backend="eager")
    make_dense(stock := build_motion_unet(None), "previous")
    assert_close(predict(compiled), predict(stock))


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_a_motion_module_compiles_without_graph_breaks(mode):
    torch.compiler.reset()
    ours, stock = (build_motion_unet(which).down_blocks[0].motion_modules[0] for which in (mode, None))
    make_dense(stock, mode)
    features = torch.randn(6, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        actual = torch.compile(ours, fullgraph=True, backend="eager")(features, num_frames=6)
        assert_close(actual, stock(features, num_frames=6))


def test_inductor_code_computes_the_same():
    torch.compiler.reset()
    attention = motion_attentions(build_motion_unet("previous"))[0]
    hidden_states = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        actual = torch.compile(attention, fullgraph=True)(hidden_states)
    assert_close(actual, dense_masked_attention(attention, hidden_states, "previous"))


def test_another_mode_after_compilation_takes_effect():
    torch.compiler.reset()
    attention = motion_attentions(build_motion_unet("previous"))[0]
    compiled = torch.compile(attention, backend="eager")
    hidden_states = torch.randn(5, 6, 8, generator=torch.Generator().manual_seed(0))
    for mode in SPARSE_MODES:
        attention.sparse_causal_mode = mode
        assert_close(compiled(hidden_states), dense_masked_attention(attention, hidden_states, mode))


# Installing


def test_installing_changes_no_parameter_and_no_name():
    unet, stock = build_motion_unet("previous"), build_motion_unet(None)
    assert list(unet.state_dict()) == list(stock.state_dict())
    for name, weight in stock.state_dict().items():
        assert torch.equal(unet.state_dict()[name], weight)


def test_only_the_second_attention_of_motion_modules_changes():
    unet = build_motion_unet("previous")
    changed = {name for name, module in unet.named_modules() if isinstance(module, SparseCausalAttention)}
    expected = {name for name, _ in unet.named_modules() if "motion_modules" in name and name.endswith(".attn2")}
    assert changed == expected and changed


def test_installing_twice_or_another_mode():
    unet = build_motion_unet("previous")
    install_sparse_causal_attention(unet, "previous")
    assert torch.equal(predict(unet), predict(build_motion_unet("previous")))
    install_sparse_causal_attention(unet, "current_previous")
    assert unet.config.sparse_causal_mode == "current_previous"
    assert torch.equal(predict(unet), predict(build_motion_unet("current_previous")))


def test_blocks_put_into_the_list_take_its_mode():
    def block() -> BasicTransformerBlock:
        return BasicTransformerBlock(8, 2, 4, double_self_attention=True)

    blocks = build_motion_unet("previous").down_blocks[0].motion_modules[0].transformer_blocks
    blocks[0] = block()
    blocks.append(block())
    blocks.insert(0, block())
    blocks.extend([block(), block()])
    blocks += [block()]
    assert len(blocks) == 6
    for part in (blocks, blocks[1:3]):
        assert isinstance(part, SparseCausalBlocks)
        assert [each.attn2.sparse_causal_mode for each in part] == ["previous"] * len(part)
        assert all(type(each.attn1) is Attention for each in part)


def test_unknown_mode_is_refused():
    unet = build_motion_unet(None)
    with pytest.raises(ValueError, match="'next'.*previous, current_previous, first_previous, full"):
        install_sparse_causal_attention(unet, "next")
    with pytest.raises(ValueError, match="'next'"):
        sparse_causal_mask("next", 4)
    assert "sparse_causal_mode" not in unet.config and not isinstance(
        motion_attentions(unet)[0], SparseCausalAttention
    )


def test_a_unet_without_motion_modules_is_refused():
    with pytest.raises(ValueError, match="UNet2DConditionModel without motion modules"):
        install_sparse_causal_attention(build_unet2d(), "previous")


@pytest.mark.parametrize("name", ["encoder_hidden_states", "attention_mask"])
def test_other_keys_and_masks_are_refused(name):
    attention = motion_attentions(build_motion_unet("previous"))[0]
    with pytest.raises(ValueError, match=name):
        attention(torch.zeros(2, 3, 8), **{name: torch.zeros(2, 3, 8)})


# What `from_unet2d` would take over wrongly


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"block_out_channels": (8, 8)}, r"down_blocks\.1 .*\[\(8, 4\)\] in the adapter, \[\(16, 4\)\] in the UNet"),
        ({"motion_norm_num_groups": 2}, r"down_blocks\.0 .*\[\(8, 2\)\] in the adapter, \[\(8, 4\)\] in the UNet"),
        ({"motion_layers_per_block": 2}, r"down_blocks\.0 "),
        ({"block_out_channels": (8, 16, 16)}, r"up_blocks\.1 has layers"),
        ({"use_motion_mid_block": True, "motion_mid_block_layers_per_block": 2}, "mid_block"),
    ],
)
def test_an_adapter_that_does_not_fit_is_refused(adapter, message):
    with pytest.raises(ValueError, match=message):
        check_adapter_fits(build_unet2d(), build_motion_adapter(**adapter))


@pytest.mark.parametrize(
    ("unet", "message"),
    [
        ({"flip_sin_to_cos": False}, "flip_sin_to_cos=False"),
        ({"freq_shift": 1}, "freq_shift=1"),
        ({"class_embed_type": "timestep"}, "class_embed_type='timestep'"),
        ({"down_block_types": ("AttnDownBlock2D", "DownBlock2D")}, "AttnDownBlock2D"),
    ],
)
def test_an_image_unet_that_a_motion_unet_cannot_reproduce_is_refused(unet, message):
    with pytest.raises(ValueError, match=message):
        check_adapter_fits(build_unet2d(**unet), build_motion_adapter())


@pytest.mark.parametrize("use_motion_mid_block", [False, True])
def test_an_adapter_that_fits_passes(use_motion_mid_block):
    check_adapter_fits(build_unet2d(), build_motion_adapter(use_motion_mid_block=use_motion_mid_block))
