"""Motion adapters: a new one is silent, one that learns moves only what has an effect, and the file keeps it all."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from peft import LoraConfig
from safetensors.torch import load_file

from motion_adapter.build import (
    ATTENTIONS,
    attach_motion_adapter,
    create_motion_adapter,
    extract_motion_adapter,
    freeze_image_layers,
    remove_attentions,
    save_motion_modules,
    warm_start_motion_adapter,
)
from pipeline_landscape_video.landscape_motion_attention import SPARSE_CAUSAL_MODES, install_sparse_causal_attention
from tiny_models import build_motion_adapter, build_unet2d


NUM_FRAMES = 5


@pytest.fixture(autouse=True)
def fixed_seed() -> None:
    torch.manual_seed(0)


def inputs(dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents `(2, 4, NUM_FRAMES, 8, 8)` and text states `(2, 7, 16)`."""
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(2, 4, NUM_FRAMES, 8, 8, generator=generator)
    return latents.to(dtype), torch.randn(2, 7, 16, generator=generator).to(dtype)


def predict(unet: UNetMotionModel, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    latents, text = inputs(dtype)
    return unet(latents, 500, text.repeat_interleave(NUM_FRAMES, dim=0)).sample


@torch.no_grad()
def predict_frame_by_frame(unet: UNet2DConditionModel) -> torch.Tensor:
    latents, text = inputs()
    return torch.stack([unet(frame, 500, text).sample for frame in latents.unbind(dim=2)], dim=2)


def new_adapter(unet: UNet2DConditionModel, mode: str = "previous", **arguments) -> MotionAdapter:
    generator = torch.Generator().manual_seed(0)
    return create_motion_adapter(unet, mode, motion_num_attention_heads=2, generator=generator, **arguments)


def moving_unet(mode: str | None = "previous", **adapter_config) -> UNetMotionModel:
    """A motion UNet whose motion modules are random in every layer, `proj_out` included."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return attach_motion_adapter(build_unet2d(), build_motion_adapter(mode, **adapter_config))


def assert_same_weights(actual: MotionAdapter, expected: MotionAdapter) -> None:
    assert list(actual.state_dict()) == list(expected.state_dict())
    for name, weight in expected.state_dict().items():
        assert torch.equal(actual.state_dict()[name], weight), name


# A new adapter


@pytest.mark.parametrize("mode", SPARSE_CAUSAL_MODES)
@pytest.mark.parametrize("use_motion_mid_block", [False, True])
def test_a_new_adapter_leaves_the_image_model_as_it_was(mode, use_motion_mid_block):
    unet = build_unet2d()
    motion_unet = attach_motion_adapter(unet, new_adapter(unet, mode, use_motion_mid_block=use_motion_mid_block))
    assert hasattr(motion_unet.mid_block, "motion_modules") == use_motion_mid_block
    with torch.no_grad():
        torch.testing.assert_close(predict(motion_unet), predict_frame_by_frame(unet), atol=1e-5, rtol=1e-5)


def test_a_new_adapter_fits_unets_of_other_shapes():
    unet = build_unet2d(
        block_out_channels=(8, 16, 24),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=(1, 2, 1),
        norm_num_groups=2,
    )
    adapter = new_adapter(unet, motion_transformer_layers_per_block=2)
    with torch.no_grad():
        prediction = predict(attach_motion_adapter(unet, adapter))
    torch.testing.assert_close(prediction, predict_frame_by_frame(unet), atol=1e-5, rtol=1e-5)


def test_a_new_adapter_is_random_but_for_a_zero_output():
    adapter = new_adapter(build_unet2d(), use_motion_mid_block=True)
    outputs = [weight for name, weight in adapter.named_parameters() if ".proj_out." in name]
    assert len(outputs) == 2 * (2 + 4 + 1) and not any(weight.any() for weight in outputs)
    for name, weight in adapter.named_parameters():
        if name.endswith("weight") and weight.ndim == 2 and ".proj_out." not in name:
            bound = weight.shape[1] ** -0.5
            assert 0.8 * bound < weight.abs().max() <= bound, name  # the range of `nn.Linear`
    assert adapter.dtype == torch.float32


def test_the_generator_decides_the_weights():
    unet = build_unet2d()
    torch.manual_seed(0)
    first = new_adapter(unet)
    torch.manual_seed(1)
    assert_same_weights(new_adapter(unet), first)
    other = create_motion_adapter(unet, motion_num_attention_heads=2, generator=torch.Generator().manual_seed(5))
    name = "down_blocks.0.motion_modules.0.proj_in.weight"
    assert not torch.equal(other.state_dict()[name], first.state_dict()[name])


def test_defaults_are_those_of_the_paper():
    config = create_motion_adapter(build_unet2d()).config
    assert config.sparse_causal_mode == "previous"
    assert (config.motion_num_attention_heads, config.motion_max_seq_length) == (8, 32)
    assert (config.motion_transformer_layers_per_block, config.use_motion_mid_block) == (1, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sparse_causal_mode": "next"}, "`sparse_causal_mode` is 'next', must be one of previous"),
        ({"motion_num_attention_heads": 3}, "block of 8 channels, which is no multiple of 3 heads"),
        ({"motion_num_attention_heads": (2, 5)}, "block of 16 channels, which is no multiple of 5 heads"),
    ],
)
def test_an_adapter_that_cannot_be_built_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_motion_adapter(build_unet2d(), **arguments)


# A warm start


def test_warm_start_takes_the_weights_over_under_another_mode():
    unet, pretrained = build_unet2d(), build_motion_adapter(None)
    adapter = warm_start_motion_adapter(unet, pretrained, "first_previous")
    assert_same_weights(adapter, pretrained)
    assert adapter.config.sparse_causal_mode == "first_previous" and "sparse_causal_mode" not in pretrained.config
    expected = UNetMotionModel.from_unet2d(unet, pretrained).eval()
    install_sparse_causal_attention(expected, "first_previous")
    with torch.no_grad():
        assert torch.equal(predict(attach_motion_adapter(unet, adapter)), predict(expected))
        adapter.down_blocks[0].motion_modules[0].proj_in.weight.zero_()
    assert pretrained.down_blocks[0].motion_modules[0].proj_in.weight.any(), "the pretrained adapter was changed"


@pytest.mark.parametrize("motion_max_seq_length", [16, 48])
def test_warm_start_with_another_number_of_positions(motion_max_seq_length):
    unet, pretrained = build_unet2d(), build_motion_adapter(None)
    adapter = warm_start_motion_adapter(unet, pretrained, "full", motion_max_seq_length)
    table = adapter.down_blocks[0].motion_modules[0].transformer_blocks[0].pos_embed.pe
    assert table.shape == (1, motion_max_seq_length, 8)
    with torch.no_grad():
        expected = predict(UNetMotionModel.from_unet2d(unet, pretrained))
        torch.testing.assert_close(predict(attach_motion_adapter(unet, adapter)), expected)


def test_warm_start_without_or_with_a_mid_block():
    unet = build_unet2d()
    with_mid_block = build_motion_adapter(None, use_motion_mid_block=True)
    assert warm_start_motion_adapter(unet, with_mid_block).mid_block is None
    kept = warm_start_motion_adapter(unet, with_mid_block, use_motion_mid_block=True)
    assert_same_weights(kept, with_mid_block)
    added = warm_start_motion_adapter(unet, build_motion_adapter(None), use_motion_mid_block=True)
    assert not added.mid_block.motion_modules[0].proj_out.weight.any()
    assert added.down_blocks[0].motion_modules[0].proj_out.weight.any()


def test_warm_start_keeps_heads_and_depth():
    pretrained = build_motion_adapter(
        None, motion_num_attention_heads=4, motion_transformer_layers_per_block=2, use_motion_mid_block=True
    )
    adapter = warm_start_motion_adapter(build_unet2d(), pretrained)
    assert adapter.config.motion_num_attention_heads == 4
    assert len(adapter.down_blocks[0].motion_modules[0].transformer_blocks) == 2


def test_warm_start_keeps_an_ablation():
    pretrained = build_motion_adapter()
    remove_attentions(pretrained, ["versatile"])
    adapter = warm_start_motion_adapter(build_unet2d(), pretrained, use_motion_mid_block=True)
    assert adapter.config.removed_attentions == ["versatile"]
    added = adapter.mid_block.motion_modules[0].transformer_blocks[0]
    assert not added.attn1.to_out[0].weight.any() and added.attn2.to_out[0].weight.any()


def test_warm_start_refuses_what_it_cannot_take_over():
    with pytest.raises(ValueError, match=r"does not fit `unet`: down_blocks\.1"):
        warm_start_motion_adapter(build_unet2d(), build_motion_adapter(None, block_out_channels=(8, 24)))
    with pytest.raises(ValueError, match="differ in 2 weights, such as conv_in"):
        warm_start_motion_adapter(build_unet2d(), build_motion_adapter(None, conv_in_channels=9))


# Attaching


@pytest.mark.parametrize("mode", SPARSE_CAUSAL_MODES)
def test_attaching_installs_the_mode_of_the_adapter(mode):
    unet, adapter = build_unet2d(), build_motion_adapter(mode)
    motion_unet = attach_motion_adapter(unet, adapter)
    expected = UNetMotionModel.from_unet2d(unet, adapter)
    install_sparse_causal_attention(expected, mode)
    assert motion_unet.config.sparse_causal_mode == mode
    with torch.no_grad():
        assert torch.equal(predict(motion_unet), predict(expected))


def test_a_stock_adapter_keeps_its_behaviour():
    unet, adapter = build_unet2d(), build_motion_adapter(None)
    with torch.no_grad():
        assert torch.equal(
            predict(attach_motion_adapter(unet, adapter)), predict(UNetMotionModel.from_unet2d(unet, adapter))
        )


def test_attaching_copies_and_keeps_train_or_eval():
    unet, adapter = build_unet2d(), build_motion_adapter()
    for training in (False, True):
        motion_unet = attach_motion_adapter(unet.train(training), adapter)
        assert all(module.training == training for module in motion_unet.modules())
    for parameter in motion_unet.parameters():
        parameter.data.zero_()
    assert unet.conv_in.weight.any() and adapter.down_blocks[0].motion_modules[0].proj_in.weight.any()


def test_attaching_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"does not fit `unet`: down_blocks\.0 .*\(8, 2\).*\(8, 4\)"):
        attach_motion_adapter(build_unet2d(), build_motion_adapter(motion_norm_num_groups=2))
    with pytest.raises(ValueError, match="'next'"):
        attach_motion_adapter(build_unet2d(), build_motion_adapter("next"))


# What trains


@pytest.mark.parametrize("mode", SPARSE_CAUSAL_MODES)
@pytest.mark.parametrize("removed", [(), ("versatile",), ("sparse_causal",), ATTENTIONS])
def test_gradients_reach_what_should_learn_and_nothing_else(mode, removed):
    unet = moving_unet(mode)
    remove_attentions(unet, removed)
    trainable = dict(freeze_image_layers(unet))
    predict(unet).square().mean().backward()
    for name, parameter in unet.named_parameters():
        should_learn = "motion_modules" in name
        if mode == "previous" and (".attn2.to_q." in name or ".attn2.to_k." in name):
            should_learn = False
        if "versatile" in removed and (".attn1." in name or ".norm1." in name):
            should_learn = False
        if "sparse_causal" in removed and (".attn2." in name or ".norm2." in name):
            should_learn = False
        assert (name in trainable) == should_learn, name
        if should_learn:
            assert trainable[name] is parameter and parameter.grad.any(), name
        else:
            assert not parameter.requires_grad and parameter.grad is None, name
    assert trainable


def test_an_optimizer_with_weight_decay_changes_what_trains_and_nothing_else():
    unet = moving_unet("previous")
    remove_attentions(unet, ["versatile"])
    trainable = dict(freeze_image_layers(unet))
    before = {name: weight.clone() for name, weight in unet.state_dict().items()}
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-2, weight_decay=0.1)
    predict(unet).square().mean().backward()
    optimizer.step()
    for name, weight in unet.state_dict().items():
        assert torch.equal(weight, before[name]) == (name not in trainable), name


def test_a_new_adapter_learns():
    unet2d = build_unet2d()
    unet = attach_motion_adapter(unet2d, new_adapter(unet2d))
    trainable = dict(freeze_image_layers(unet))
    optimizer = torch.optim.AdamW(trainable.values(), lr=1e-2)
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = predict(unet).square().mean()
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    assert losses[0] > losses[1] > losses[2]
    assert all(parameter.grad.any() for parameter in trainable.values()), "zero outputs must not block gradients"


def test_freezing_refuses_a_unet_that_does_not_run_its_mode(tmp_path):
    moving_unet("previous").save_pretrained(tmp_path)
    loaded = UNetMotionModel.from_pretrained(tmp_path)  # rebuilt with plain attention
    with pytest.raises(ValueError, match="says sparse_causal_mode='previous', its motion modules run 'full'"):
        freeze_image_layers(loaded)
    install_sparse_causal_attention(loaded, "previous")
    assert freeze_image_layers(loaded)


# The ablations of the paper


@pytest.mark.parametrize("attention", ATTENTIONS)
def test_a_removed_attention_adds_nothing(attention, tmp_path):
    unet, expected = moving_unet("previous"), moving_unet("previous")
    name = {"versatile": "attn1", "sparse_causal": "attn2"}[attention]
    for path, module in expected.named_modules():
        if "motion_modules" in path and path.endswith(name):
            module.register_forward_hook(lambda module, inputs, output: torch.zeros_like(output))
    with torch.no_grad():
        whole = predict(unet)
        remove_attentions(unet, [attention])
        removed = predict(unet)
        torch.testing.assert_close(removed, predict(expected))
        assert (removed - whole).abs().max() > 1e-3

        # The file is a plain adapter that keeps the ablation, also for the next training.
        save_motion_modules(unet, tmp_path)
        loaded = MotionAdapter.from_pretrained(tmp_path)
        assert list(loaded.state_dict()) == list(build_motion_adapter().state_dict())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            again = attach_motion_adapter(build_unet2d(), loaded)
        assert torch.equal(predict(again), removed)
    assert not any(f".{name}." in trained for trained, _ in freeze_image_layers(again))


def test_removing_from_an_adapter_and_one_after_the_other():
    adapter = build_motion_adapter()
    remove_attentions(adapter, [])
    assert "removed_attentions" not in adapter.config
    remove_attentions(adapter, ["versatile"])
    remove_attentions(adapter, ["sparse_causal"])
    assert adapter.config.removed_attentions == ["sparse_causal", "versatile"]
    block = adapter.up_blocks[0].motion_modules[0].transformer_blocks[0]
    for attention in (block.attn1, block.attn2):
        assert not attention.to_out[0].weight.any() and not attention.to_out[0].bias.any()


def test_removing_an_unknown_attention_is_refused():
    adapter = build_motion_adapter()
    with pytest.raises(ValueError, match="'spatial', only versatile and sparse_causal"):
        remove_attentions(adapter, ["versatile", "spatial"])
    assert adapter.up_blocks[0].motion_modules[0].transformer_blocks[0].attn1.to_out[0].weight.any()


# The file


@pytest.mark.parametrize("mode", [*SPARSE_CAUSAL_MODES, None])
def test_a_saved_adapter_is_a_plain_motion_adapter_with_the_mode(mode, tmp_path):
    unet = moving_unet(mode)
    save_motion_modules(unet, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "MotionAdapter" and "_name_or_path" not in config
    assert config["sparse_causal_mode"] == (mode or "full")
    loaded = MotionAdapter.from_pretrained(tmp_path)
    assert type(loaded) is MotionAdapter and loaded.config.sparse_causal_mode == (mode or "full")
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, unet.state_dict()[name]), name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        again = attach_motion_adapter(build_unet2d(), loaded)
    with torch.no_grad():
        assert torch.equal(predict(again), predict(unet))


def test_the_file_holds_the_position_tables(tmp_path):
    save_motion_modules(moving_unet(), tmp_path)
    weights = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    tables = {name: table for name, table in weights.items() if name.endswith("pos_embed.pe")}
    assert len(tables) == 2 + 4 and all(table.shape[:2] == (1, 32) and table.any() for table in tables.values())
    assert sorted(weights) == sorted(build_motion_adapter().state_dict())


@pytest.mark.parametrize(
    "config",
    [
        {"motion_transformer_layers_per_block": 2, "motion_transformer_layers_per_mid_block": 2},
        {"use_motion_mid_block": True},
        {"motion_max_seq_length": 24, "motion_num_attention_heads": 4},
    ],
)
def test_saving_keeps_the_shape_of_the_motion_modules(config, tmp_path):
    unet = moving_unet("previous", **config)
    save_motion_modules(unet, tmp_path)
    loaded = MotionAdapter.from_pretrained(tmp_path)
    assert {name: loaded.config[name] for name in config} == config
    assert_same_weights(loaded, extract_motion_adapter(unet))


def test_saving_keeps_the_dtype_of_the_motion_modules(tmp_path):
    unet = moving_unet().to(torch.bfloat16)
    save_motion_modules(unet, tmp_path)
    weights = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


def test_an_extracted_adapter_shares_its_tensors():
    unet = moving_unet()
    adapter = extract_motion_adapter(unet)
    for name, parameter in adapter.named_parameters():
        assert parameter.data_ptr() == unet.get_parameter(name).data_ptr(), name


def test_saving_refuses_what_a_motion_adapter_cannot_hold(tmp_path):
    unet = moving_unet()
    unet.fuse_qkv_projections()
    with pytest.raises(ValueError, match="such as .*to_qkv.*fuse_qkv_projections"):
        save_motion_modules(unet, tmp_path / "fused")
    unet = moving_unet()
    unet.add_adapter(LoraConfig(r=2, target_modules=r".*motion_modules.*to_v"))
    with pytest.raises(ValueError, match="Unload or fuse LoRA"):
        save_motion_modules(unet, tmp_path / "lora")
    assert not list(tmp_path.iterdir())


def test_saving_into_a_file_is_refused(tmp_path):
    path = tmp_path / "adapter"
    path.write_text("not a directory")
    with pytest.raises(NotADirectoryError, match="is a file"):
        save_motion_modules(moving_unet(), path)


def test_importing_the_package_imports_nothing():
    code = "import sys, motion_adapter; assert not {'torch', 'diffusers'} & set(sys.modules)"
    root = Path(__file__).parents[1]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)
