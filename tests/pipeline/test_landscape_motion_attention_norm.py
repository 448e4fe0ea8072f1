"""The motion modules' norm of each frame: its definition, causality, and that it survives what diffusers does."""

import copy
import pickle

import pytest
import torch
from accelerate import cpu_offload
from diffusers import AnimateDiffPipeline, AnimateDiffVideoToVideoPipeline, UNetMotionModel
from diffusers.models.unets.unet_motion_model import AnimateDiffTransformer3D
from torch import nn

from dense_attention import (
    assert_close,
    assert_survives,
    build_motion_unet,
    build_pipelines,
    make_dense,
    make_norm_of_frames,
    motion_norms,
    norm_frame_by_frame,
    predict,
)
from motion_adapter.build import remove_attentions
from pipeline_changes import IMAGE_PROMPT, load_ip_adapter, save_motion_lora
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.landscape_motion_attention import (
    SPARSE_CAUSAL_MODES,
    FrameGroupNorm,
    ensure_motion_config,
    install_motion_norm,
)
from tiny_models import build_components, build_unet2d


def unet_of(mode: str | None, motion_norm: str) -> UNetMotionModel:
    unet = build_motion_unet(mode)
    install_motion_norm(unet, motion_norm)
    return unet


def fading_clip(*shape: int) -> torch.Tensor:
    """Return `(batch, channels, num_frames, height, width)` with another mean and spread in each frame."""
    frames = torch.arange(1.0, shape[2] + 1).view(1, 1, -1, 1, 1)
    return frames * torch.randn(shape, generator=torch.Generator().manual_seed(0)) - frames


# Definition


@pytest.mark.parametrize("num_frames", [1, 2, 7])
def test_the_norm_of_frames_is_that_of_frames_folded_into_the_batch(num_frames):
    norm = motion_norms(unet_of(None, "frame"))[0]
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    clip = fading_clip(3, 8, num_frames, 5, 4)
    plain = nn.GroupNorm(norm.num_groups, 8, norm.eps)
    plain.load_state_dict(norm.state_dict())
    folded = clip.transpose(1, 2).flatten(0, 1)
    expected = plain(folded).unflatten(0, (3, num_frames)).transpose(1, 2)
    assert_close(norm(clip), expected, 1e-6)
    assert_close(norm(clip), norm_frame_by_frame(norm, clip), 1e-6)
    # In double precision as well, where 1e-6 leaves no room for another definition
    assert_close(norm.double()(clip.double()), norm_frame_by_frame(norm, clip.double()), 1e-12)
    differs = (norm.float()(clip) - plain.float()(clip)).abs().max() > 0.1
    assert differs == (num_frames > 1), "one frame is a clip"


def test_a_motion_module_computes_what_animatediff_computes():
    """AnimateDiff folds the frames into the batch before the norm (`motion_module.py`), here written out."""
    module = next(m for m in unet_of(None, "frame").modules() if isinstance(m, AnimateDiffTransformer3D))
    frames = fading_clip(2, 8, 6, 4, 4).transpose(1, 2).flatten(0, 1)  # (batch * frames, channels, height, width)
    normed = nn.GroupNorm.forward(module.norm, frames)
    tokens = module.proj_in(normed.flatten(2).transpose(1, 2))  # (batch * frames, height * width, channels)
    tokens = tokens.unflatten(0, (2, 6)).transpose(1, 2).flatten(0, 1)  # (batch * height * width, frames, channels)
    for block in module.transformer_blocks:
        tokens = block(tokens)
    residual = module.proj_out(tokens.unflatten(0, (2, 16)).transpose(1, 2).flatten(0, 1))
    expected = frames + residual.transpose(1, 2).unflatten(2, (4, 4))
    assert_close(module(frames, num_frames=6), expected, 1e-6)


@pytest.mark.parametrize("mode", SPARSE_CAUSAL_MODES)
def test_the_whole_unet_equals_one_with_the_norm_of_each_frame(mode):
    ours, stock = unet_of(mode, "frame"), build_motion_unet(None)
    if mode != "full":
        make_dense(stock, mode)
    with_clip = predict(stock)
    make_norm_of_frames(stock)
    assert_close(predict(ours), predict(stock))
    assert (predict(ours) - with_clip).abs().max() > 1e-3


def test_clip_is_stock_diffusers_bit_for_bit():
    stock = predict(build_motion_unet(None))
    assert torch.equal(predict(unet_of(None, "clip")), stock)
    unet = unet_of("full", "frame")
    install_motion_norm(unet, "clip")
    assert all(type(norm) is nn.GroupNorm for norm in motion_norms(unet)) and torch.equal(predict(unet), stock)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close_and_finite(dtype):
    norm = motion_norms(unet_of(None, "frame"))[0]
    clip = fading_clip(2, 8, 6, 4, 4)
    expected = norm(clip)
    actual = norm.to(dtype)(clip.to(dtype))
    assert actual.dtype == dtype and actual.isfinite().all()
    assert_close(actual.float(), expected, 0.03)


def test_gradients_equal_those_of_the_norm_of_each_frame():
    norm = motion_norms(unet_of(None, "frame"))[0]
    gradients = []
    for function in (norm, lambda clip: norm_frame_by_frame(norm, clip)):
        clip = fading_clip(2, 8, 3, 4, 4).requires_grad_()
        (function(clip) * fading_clip(2, 8, 3, 4, 4)).sum().backward()
        gradients.append((clip.grad, norm.weight.grad.clone(), norm.bias.grad.clone()))
        norm.zero_grad()
    for ours, reference in zip(*gradients, strict=True):
        assert_close(ours, reference, 1e-4)


# Causality


def frames_that_move(unet: UNetMotionModel, changed: int, num_frames: int = 6) -> set[int]:
    """Return the frames of the prediction that change when one frame of the latents does."""
    latents = torch.randn(1, 4, num_frames, 8, 8, generator=torch.Generator().manual_seed(1))
    other = latents.clone()
    other[:, :, changed] = 3 * other[:, :, changed] + 1
    text = torch.ones(num_frames, 5, 16)
    with torch.no_grad():
        moved = (unet(latents, 500, text).sample - unet(other, 500, text).sample).abs().amax(dim=(0, 1, 3, 4)) > 0
    return set(moved.nonzero().flatten().tolist())


@pytest.mark.parametrize("mode", ["previous", "current_previous", "first_previous"])
def test_with_the_norm_of_frames_no_frame_depends_on_a_later_one(mode):
    unet = unet_of(mode, "frame")
    assert frames_that_move(unet, 4) == set(range(6)), "attn1 sees every frame"
    remove_attentions(unet, ["versatile"])
    for changed in range(6):
        moved = frames_that_move(unet, changed)
        assert changed in moved and min(moved) == changed
    assert 5 in frames_that_move(unet, 4)


def test_with_the_norm_of_the_clip_every_frame_depends_on_every_other():
    unet = unet_of("previous", "clip")
    remove_attentions(unet, ["versatile"])
    assert frames_that_move(unet, 4) == set(range(6))


# Installing


def test_installing_changes_no_parameter_and_no_name():
    unet, stock = unet_of("previous", "frame"), build_motion_unet(None)
    assert list(unet.state_dict()) == list(stock.state_dict())
    for name, weight in stock.state_dict().items():
        assert torch.equal(unet.state_dict()[name], weight)
    assert unet.config.motion_norm == "frame" and unet.config.sparse_causal_mode == "previous"


def test_only_the_norm_of_motion_modules_changes():
    changed = {name for name, module in unet_of(None, "frame").named_modules() if isinstance(module, FrameGroupNorm)}
    names = [name for name, _ in build_motion_unet(None).named_modules()]
    expected = {name for name in names if "motion_modules" in name and name.count(".") == 4 and name.endswith(".norm")}
    assert changed == expected and changed
    assert "motion_norm='frame'" in repr(unet_of(None, "frame"))


def test_what_is_refused():
    unet = build_motion_unet(None)
    with pytest.raises(ValueError, match="`motion_norm` must be one of clip, frame, got 'batch'"):
        install_motion_norm(unet, "batch")
    assert "motion_norm" not in unet.config
    with pytest.raises(ValueError, match="must have motion modules, got a UNet2DConditionModel"):
        install_motion_norm(build_unet2d(), "frame")
    with pytest.raises(ValueError, match="`motion_norm` must be one of clip, frame, got 'batch'"):
        LandscapeVideoPipeline(**build_components(motion_norm="batch"))


def test_the_unets_norm_comes_before_the_adapters_and_an_installed_unet_is_kept():
    components = build_components(motion_norm="frame")
    adapter = components["motion_adapter"]
    unet = UNetMotionModel.from_unet2d(components["unet"], adapter)
    assert ensure_motion_config(unet, None) is unet
    installed = ensure_motion_config(unet, adapter)
    assert installed is not unet and type(motion_norms(unet)[0]) is nn.GroupNorm
    assert installed.config.motion_norm == "frame" and ensure_motion_config(installed, adapter) is installed
    adapter.register_to_config(motion_norm="clip")
    assert ensure_motion_config(installed, adapter) is installed
    unet.register_to_config(motion_norm="clip")
    adapter.register_to_config(motion_norm="frame", sparse_causal_mode="full")
    assert ensure_motion_config(unet, adapter) is unet


# What diffusers does to a UNet


def switch_free_noise_on_and_off(pipe: LandscapeVideoPipeline) -> None:
    pipe.enable_free_noise(context_length=4, context_stride=2)
    pipe.disable_free_noise()


SURVIVED = {
    "default processors": lambda pipe: pipe.unet.set_default_attn_processor(),
    "fused projections": lambda pipe: pipe.unet.fuse_qkv_projections(),
    "attention slicing": lambda pipe: pipe.enable_attention_slicing(1),
    "freeu": lambda pipe: pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4),
    "free noise": lambda pipe: pipe.enable_free_noise(context_length=4, context_stride=2),
}


@pytest.mark.parametrize("state", SURVIVED)
def test_survives(state):
    assert_survives("previous", SURVIVED[state], num_frames=8, motion_norm="frame")


def test_survives_free_noise_split_or_switched_off():
    def enable_and_split(pipe: LandscapeVideoPipeline) -> None:
        SURVIVED["free noise"](pipe)
        pipe.enable_free_noise_split_inference(spatial_split_size=48, temporal_split_size=5)

    assert_survives("previous", enable_and_split, SURVIVED["free noise"], num_frames=8, motion_norm="frame")
    assert_survives("previous", switch_free_noise_on_and_off, lambda pipe: None, motion_norm="frame")


def test_survives_an_ip_adapter_and_a_lora(tmp_path):
    assert_survives("previous", load_ip_adapter, added_cond_kwargs=IMAGE_PROMPT, motion_norm="frame")
    save_motion_lora(str(tmp_path))
    assert_survives("previous", lambda pipe: pipe.load_lora_weights(str(tmp_path)), motion_norm="frame")


def test_survives_saving_and_loading_the_pipeline(tmp_path):
    ours, stock = build_pipelines("previous", motion_norm="frame")
    ours.save_pretrained(tmp_path)
    loaded = LandscapeVideoPipeline.from_pretrained(tmp_path)
    assert loaded.unet.config.motion_norm == loaded.motion_adapter.config.motion_norm == "frame"
    make_dense(stock.unet, "previous")
    make_norm_of_frames(stock.unet)
    assert_close(predict(loaded.unet), predict(stock.unet))


@pytest.mark.parametrize("target", [AnimateDiffPipeline, AnimateDiffVideoToVideoPipeline, LandscapeVideoPipeline])
def test_from_pipe_keeps_the_norm_and_the_source(target):
    ours, _ = build_pipelines("previous", motion_norm="frame")
    before = predict(ours.unet)
    assert torch.equal(predict(target.from_pipe(ours).unet), before) and torch.equal(predict(ours.unet), before)


def test_from_pipe_of_a_stock_pipeline_leaves_it_as_it_was():
    expected, stock = build_pipelines("full", motion_norm="frame")
    stock.motion_adapter.register_to_config(motion_norm="frame")  # stock code ignores it
    before = predict(stock.unet)
    assert torch.equal(predict(LandscapeVideoPipeline.from_pipe(stock).unet), predict(expected.unet))
    assert torch.equal(predict(stock.unet), before) and not torch.equal(predict(expected.unet), before)


def test_the_motion_unet_file_keeps_the_norm_for_the_next_installation(tmp_path):
    unet_of("previous", "frame").save_pretrained(tmp_path)
    loaded = UNetMotionModel.from_pretrained(tmp_path)
    assert torch.equal(predict(loaded), predict(build_motion_unet(None))), "stock code ignores it"
    assert torch.equal(predict(ensure_motion_config(loaded)), predict(unet_of("previous", "frame")))


def test_survives_offloading():
    unet = unet_of("previous", "frame")
    expected = predict(unet)
    cpu_offload(unet, execution_device="cpu")
    assert torch.equal(predict(unet), expected)


def test_survives_copy_and_pickle():
    unet = unet_of("previous", "frame")
    expected = predict(unet)
    for other in (copy.deepcopy(unet), pickle.loads(pickle.dumps(unet))):
        assert other.config.motion_norm == "frame"
        assert torch.equal(predict(other), expected)


def test_the_unet_compiles_without_graph_breaks():
    torch.compiler.reset()
    unet = unet_of("previous", "frame")
    expected = predict(unet)
    assert_close(predict(torch.compile(unet, fullgraph=True, backend="eager")), expected)


def test_gradient_checkpointing_changes_nothing():
    gradients = []
    for checkpointing in (False, True):
        unet = unet_of("previous", "frame").train()
        if checkpointing:
            unet.enable_gradient_checkpointing()
        unet(torch.ones(1, 4, 4, 8, 8), 500, torch.ones(4, 5, 16)).sample.square().mean().backward()
        gradients.append(motion_norms(unet)[0].bias.grad)
    assert gradients[0].abs().max() > 0
    assert_close(gradients[0], gradients[1])
