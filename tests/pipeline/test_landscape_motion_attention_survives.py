"""Sparse-causal attention survives what diffusers does to a UNet: in every state it equals dense masked attention."""

import copy
import pickle

import pytest
import torch
from diffusers import AnimateDiffPipeline, AnimateDiffVideoToVideoPipeline, UNetMotionModel
from diffusers.models.attention import FreeNoiseTransformerBlock

from dense_attention import (
    SPARSE_MODES,
    assert_close,
    assert_survives,
    build_motion_unet,
    build_pipelines,
    dense_masked_attention,
    make_dense,
    motion_attentions,
    predict,
)
from pipeline_changes import IMAGE_PROMPT, load_ip_adapter, save_motion_lora
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.landscape_free_noise import FreeNoiseBlock
from pipeline_landscape_video.landscape_motion_attention import install_sparse_causal_attention
from tiny_models import build_components, build_motion_adapter, build_unet2d


# Attention processors


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


# FreeNoise


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_survives_free_noise(mode):
    # 9 frames in windows of 4 every 2: the last window is shifted back; each window begins with a frame of its own
    def enable(pipe: AnimateDiffPipeline) -> None:
        pipe.enable_free_noise(context_length=4, context_stride=2)
        for block in pipe.unet.modules():  # the last window of diffusers' own blocks is wrong
            if isinstance(block, FreeNoiseTransformerBlock):
                block.__class__ = FreeNoiseBlock

    assert_survives(mode, enable, num_frames=9)


def test_survives_free_noise_enabled_twice():
    def enable_twice(pipe: AnimateDiffPipeline) -> None:
        pipe.enable_free_noise(context_length=6, context_stride=3)
        pipe.enable_free_noise(context_length=4, context_stride=2)

    assert_survives("previous", enable_twice, num_frames=8)


@pytest.mark.parametrize("use_motion_mid_block", [False, True])
def test_survives_free_noise_split_inference(use_motion_mid_block):
    def enable(pipe: AnimateDiffPipeline) -> None:
        pipe.enable_free_noise(context_length=4, context_stride=2)

    def enable_and_split(pipe: LandscapeVideoPipeline) -> None:
        enable(pipe)
        pipe.enable_free_noise_split_inference(spatial_split_size=48, temporal_split_size=5)

    # The reference is not split, which is to change nothing: diffusers fails where the mid block has no motion module.
    assert_survives("previous", enable_and_split, enable, use_motion_mid_block, num_frames=8)


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


# IP-Adapter


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


# LoRA


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


# Files, other pipelines, copies


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_survives_saving_and_loading_the_pipeline(mode, tmp_path):
    ours, stock = build_pipelines(mode)
    ours.save_pretrained(tmp_path)
    loaded = LandscapeVideoPipeline.from_pretrained(tmp_path)
    assert loaded.unet.config.sparse_causal_mode == mode
    assert loaded.motion_adapter.config.sparse_causal_mode == mode
    make_dense(stock.unet, mode)
    assert_close(predict(loaded.unet), predict(stock.unet))


def test_another_mode_after_saving_takes_effect(tmp_path):
    unet = build_motion_unet("previous")
    unet.save_pretrained(tmp_path)  # writes entries into the config that are none of its attributes
    install_sparse_causal_attention(unet, "full")
    assert unet.config.sparse_causal_mode == "full"
    assert {attention.sparse_causal_mode for attention in motion_attentions(unet)} == {"full"}


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


@pytest.mark.parametrize("mode", SPARSE_MODES)
def test_the_pipeline_installs_the_mode_when_it_builds_the_motion_unet(mode):
    components = build_components(mode)
    unet = UNetMotionModel.from_unet2d(components["unet"], components["motion_adapter"])
    make_dense(unet, mode)
    assert_close(predict(LandscapeVideoPipeline(**components).unet), predict(unet))


def test_survives_copy_and_pickle():
    unet = build_motion_unet("first_previous")
    expected = predict(unet)
    for other in (copy.deepcopy(unet), pickle.loads(pickle.dumps(unet))):
        assert other.config.sparse_causal_mode == "first_previous"
        assert torch.equal(predict(other), expected)


# torch.compile


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
