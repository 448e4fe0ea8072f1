"""The image retention branch: a copy of the UNet's encoder that changes nothing until it is trained."""

import pytest
import torch
from accelerate import cpu_offload
from diffusers import UNetMotionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from peft import LoraConfig
from torch import nn

from motion_adapter.build import freeze_idle_layers
from motion_unets import NUM_FRAMES, inputs, moving_unet
from pipeline_landscape_video import SHANSHUI_TINY, ImageRetention, LandscapeVideoPipeline
from pipeline_landscape_video.landscape_motion_attention import (
    ensure_motion_config,
    install_motion_norm,
    install_sparse_causal_attention,
)
from retention_models import branch_for, fuse_projections, randomize_branch


def image_batch(dtype=torch.float32):
    return torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(2)).to(dtype) * 2 - 1


def residuals(branch, image=None, dtype=torch.float32, **arguments):
    latents, text = inputs(dtype)
    image = image_batch(dtype) if image is None else image
    return branch(latents, 500, text.repeat_interleave(NUM_FRAMES, dim=0), image, **arguments)


@torch.no_grad()
def predict(unet, branch=None, dtype=torch.float32, **arguments):
    latents, text = inputs(dtype)
    extra = {}
    if branch is not None:
        down, mid = residuals(branch, dtype=dtype, **arguments)
        extra = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
    return unet(latents, 500, text.repeat_interleave(NUM_FRAMES, dim=0), **extra).sample


@torch.no_grad()
def own_skips(unet):
    """Return a UNet's skip connections in the order of the blocks, and the output of its mid block."""
    skips, middle = [], []
    hooks = [
        block.register_forward_pre_hook(
            lambda _, __, kwargs: skips.insert(0, kwargs["res_hidden_states_tuple"]), with_kwargs=True
        )
        for block in unet.up_blocks
    ]
    hooks.append(unet.mid_block.register_forward_hook(lambda _, __, output: middle.append(output)))
    predict(unet)
    for hook in hooks:
        hook.remove()
    return [skip for group in skips for skip in group], middle[0]


# What a new branch is


@pytest.mark.parametrize("use_motion_mid_block", [False, True])
@pytest.mark.parametrize("mode", ["previous", "first_previous", "full"])
def test_a_new_branch_changes_nothing_to_the_bit(mode, use_motion_mid_block):
    unet = moving_unet(mode, use_motion_mid_block=use_motion_mid_block)
    branch = branch_for(unet)
    assert torch.equal(predict(unet, branch), predict(unet))
    assert not torch.equal(predict(unet, randomize_branch(branch)), predict(unet))


@pytest.mark.parametrize("use_motion_mid_block", [False, True])
@pytest.mark.parametrize("mode", ["previous", "current_previous", "first_previous", "full"])
def test_before_training_its_layers_compute_what_the_unets_compute(mode, use_motion_mid_block):
    unet = moving_unet(mode, use_motion_mid_block=use_motion_mid_block)
    branch = branch_for(unet)
    for layer in (*branch.zero_convs, branch.zero_conv_mid):
        nn.init.dirac_(layer.weight)  # lets everything through as it is
    with torch.no_grad():
        down, mid = residuals(branch)
    skips, middle = own_skips(unet)
    assert len(down) == len(skips)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(down, skips, strict=True))
    assert torch.equal(mid, middle)


def test_the_image_is_added_behind_conv_in_for_every_frame():
    branch = randomize_branch(branch_for(moving_unet()))
    nn.init.dirac_(branch.zero_convs[0].weight)
    latents, _ = inputs()
    with torch.no_grad():
        first = residuals(branch)[0][0].unflatten(0, (2, NUM_FRAMES))
        noise = torch.stack([branch.conv_in(frame) for frame in latents.unbind(2)], dim=1)
        seen = branch.image_embedding(image_batch())
    assert seen.shape == (2, 8, 8, 8)
    assert seen.std() > 0.01
    torch.testing.assert_close(first, noise + seen[:, None])


def test_it_is_a_copy():
    unet = moving_unet()
    branch, before = randomize_branch(branch_for(unet)), predict(unet)
    with torch.no_grad():
        for parameter in branch.parameters():
            parameter.add_(1)
    assert torch.equal(predict(unet), before)


def test_all_of_it_trains_though_the_unet_is_frozen():
    branch = branch_for(moving_unet().requires_grad_(False))
    assert all(parameter.requires_grad for parameter in branch.parameters())
    assert not branch.training


def test_the_generator_decides_what_is_new():
    unet = moving_unet()
    first, second = branch_for(unet).state_dict(), branch_for(unet).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)
    other = ImageRetention.from_unet(unet, generator=torch.Generator().manual_seed(1)).state_dict()
    assert not torch.equal(first["image_embedding.conv_in.weight"], other["image_embedding.conv_in.weight"])


def test_text_and_image_and_scale_reach_the_residuals():
    unet = moving_unet()
    branch = randomize_branch(branch_for(unet))
    down, mid = residuals(branch)
    for other_down, other_mid in (
        residuals(branch, image=torch.ones(2, 3, 64, 64)),
        branch(inputs()[0], 500, torch.zeros(2 * NUM_FRAMES, 7, 16), image_batch()),
        branch(inputs()[0], 20, inputs()[1].repeat_interleave(NUM_FRAMES, dim=0), image_batch()),
    ):
        assert not torch.allclose(other_mid, mid)
        assert not torch.allclose(other_down[-1], down[-1])
    half_down, half_mid = residuals(branch, retention_scale=0.5)
    torch.testing.assert_close(half_mid, 0.5 * mid)
    torch.testing.assert_close(half_down[1], 0.5 * down[1])
    assert torch.equal(predict(unet, branch, retention_scale=0.0), predict(unet))


# Training


def test_gradients_reach_everything_and_checkpointing_changes_none():
    def gradients(checkpointing):
        branch = randomize_branch(branch_for(moving_unet())).train()
        if checkpointing:
            branch.enable_gradient_checkpointing()
            assert any(getattr(module, "gradient_checkpointing", False) for module in branch.modules())
        down, mid = residuals(branch)
        (sum(residual.square().sum() for residual in down) + mid.square().sum()).backward()
        return {name: parameter.grad for name, parameter in branch.named_parameters()}

    plain, checkpointed = gradients(False), gradients(True)
    idle = {name for name, gradient in plain.items() if gradient is None or not gradient.any()}
    assert all("attn2.to_q" in name or "attn2.to_k" in name for name in idle if ".motion_modules." in name)
    assert not {name for name in idle if ".motion_modules." not in name}
    for name, gradient in plain.items():
        if gradient is not None:
            torch.testing.assert_close(checkpointed[name], gradient)


def test_a_new_branch_learns_from_its_first_step_on():
    branch = branch_for(moving_unet()).train()
    down, mid = residuals(branch)
    (sum(residual.sum() for residual in down) + mid.sum()).backward()
    assert all(layer.weight.grad.any() for layer in (*branch.zero_convs, branch.zero_conv_mid))


def test_only_layers_without_effect_are_kept_from_training():
    branch = branch_for(moving_unet())
    freeze_idle_layers(branch)
    frozen = {name for name, parameter in branch.named_parameters() if not parameter.requires_grad}
    assert frozen
    assert all(".motion_modules." in name and (".attn2.to_q." in name or ".attn2.to_k." in name) for name in frozen)


# Precision, processors, memory


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_rounds_no_more_than_the_unet_alone_does(dtype):
    unet = moving_unet().to(dtype)
    branch = randomize_branch(branch_for(unet))
    assert {parameter.dtype for parameter in branch.parameters()} == {dtype}
    rounded = [predict(unet, branch, dtype), predict(unet, None, dtype)]
    assert {sample.dtype for sample in rounded} == {dtype}
    exact = [predict(unet.float(), branch.float()), predict(unet)]  # the same weights
    with_branch, alone = (
        ((sample.float() - expected).norm() / expected.norm()).item()
        for sample, expected in zip(rounded, exact, strict=True)
    )
    assert 0 < with_branch < 2 * alone < 0.03


@pytest.mark.parametrize("change", ["processor", "fused", "slicing"])
def test_attention_processors_change_nothing(change):
    branch = randomize_branch(branch_for(moving_unet()))
    with torch.no_grad():
        before = residuals(branch)[1]
        assert {type(processor) for processor in branch.attn_processors.values()} == {AttnProcessor2_0}
        if change == "processor":
            branch.set_attn_processor(AttnProcessor())
            assert {type(processor) for processor in branch.attn_processors.values()} == {AttnProcessor}
        elif change == "fused":
            fuse_projections(branch)
            assert any(hasattr(module, "to_qkv") for module in branch.modules())
        else:
            for module in branch.modules():
                if hasattr(module, "set_attention_slice"):
                    module.set_attention_slice(1)
        torch.testing.assert_close(residuals(branch)[1], before)


@torch.no_grad()
def test_layers_may_wait_elsewhere_until_they_are_needed():
    branch = randomize_branch(branch_for(moving_unet()))
    before = residuals(branch)[1]
    cpu_offload(branch, execution_device="cpu")
    assert branch.conv_in.weight.is_meta
    torch.testing.assert_close(residuals(branch)[1], before)


# Files


@pytest.mark.parametrize("mode", ["previous", "full"])
@torch.no_grad()
def test_saved_and_loaded_it_is_the_same_once_its_attention_is_installed(mode, tmp_path):
    branch = randomize_branch(branch_for(moving_unet(mode), image_channels=(8, 16, 16, 24)))
    branch.save_pretrained(tmp_path / "branch")
    assert sorted(file.name for file in (tmp_path / "branch").iterdir()) == [
        "config.json",
        "diffusion_pytorch_model.safetensors",
    ]
    loaded = ImageRetention.from_pretrained(tmp_path / "branch")
    assert loaded.config.sparse_causal_mode == mode
    assert tuple(loaded.config.image_channels) == (8, 16, 16, 24)
    if mode != "full":
        with pytest.raises(
            RuntimeError, match="must run the mode 'previous' of the config, got 'full'; call `install_sparse"
        ):
            residuals(loaded)
        install_sparse_causal_attention(loaded, mode)
    (down, mid), (before_down, before_mid) = residuals(loaded), residuals(branch)
    assert torch.equal(mid, before_mid)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(down, before_down, strict=True))


@torch.no_grad()
def test_a_branch_has_the_norm_of_its_unet(tmp_path):
    unet = moving_unet("full")
    install_motion_norm(unet, "frame")
    branch = randomize_branch(branch_for(unet))
    branch.save_pretrained(tmp_path)
    loaded = ImageRetention.from_pretrained(tmp_path)
    assert loaded.config.motion_norm == "frame"
    with pytest.raises(RuntimeError, match="the norm 'frame' of the config, got 'clip'; call `install_motion_norm"):
        residuals(loaded)
    assert ensure_motion_config(loaded) is loaded
    assert torch.equal(residuals(loaded)[1], residuals(branch)[1])
    install_motion_norm(loaded, "clip")
    assert not torch.equal(residuals(loaded)[1], residuals(branch)[1])


def test_the_branch_of_the_embedded_model_leaves_the_weights_under_their_limit(tmp_path):
    pipe = LandscapeVideoPipeline.from_pretrained(SHANSHUI_TINY)
    branch = ImageRetention.from_unet(pipe.unet)
    size = 2 * sum(tensor.numel() for tensor in branch.state_dict().values())
    others = sum(
        file.stat().st_size for file in SHANSHUI_TINY.rglob("*.safetensors") if "image_retention" not in file.parts
    )
    assert size + others < 60e6


# What is refused


def test_an_image_of_another_size_is_refused():
    branch = branch_for(moving_unet())
    with pytest.raises(
        ValueError, match=r"`image` must have the shape \(2, 3, 64, 64\) for latents .*, got \(2, 3, 64, 72\)"
    ):
        residuals(branch, image=torch.ones(2, 3, 64, 72))
    with pytest.raises(ValueError, match=r"`image` must have the shape \(2, 3, 64, 64\) .*, got \(1, 3, 64, 64\)"):
        residuals(branch, image=torch.ones(1, 3, 64, 64))


def test_a_unet_with_lora_is_refused():
    unet = moving_unet()
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q"]))
    with pytest.raises(ValueError, match="got .* others, such as .*base_layer.*; unload or fuse LoRA"):
        branch_for(unet)


def test_a_unet_with_an_input_of_its_own_is_refused():
    unet = UNetMotionModel(
        block_out_channels=(8,),
        down_block_types=("DownBlockMotion",),
        up_block_types=("UpBlockMotion",),
        norm_num_groups=4,
        motion_num_attention_heads=2,
        num_attention_heads=2,
        time_cond_proj_dim=4,
    )
    with pytest.raises(ValueError, match="`unet` must not have time_cond_proj_dim=4"):
        branch_for(unet)


def test_a_branch_of_another_unet_is_refused(tmp_path):
    unet, branch = moving_unet(), branch_for(moving_unet())
    branch.check_fits(unet)
    branch.save_pretrained(tmp_path)
    ImageRetention.from_pretrained(tmp_path).check_fits(unet)  # lists where there were tuples
    branch.register_to_config(block_out_channels=(8, 32))
    with pytest.raises(ValueError, match=r"block_out_channels must be \[8, 16\], got \[8, 32\]"):
        branch.check_fits(unet)
