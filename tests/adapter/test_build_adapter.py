"""Build motion adapters: a new one leaves the image model unchanged, and attaching one installs its attention."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from diffusers import UNetMotionModel

from motion_adapter.build import (
    attach_motion_adapter,
    create_motion_adapter,
    remove_attentions,
    warm_start_motion_adapter,
)
from motion_unets import assert_same_weights, new_adapter, predict, predict_frame_by_frame
from pipeline_landscape_video.landscape_motion_attention import SPARSE_CAUSAL_MODES, install_sparse_causal_attention
from tiny_models import build_motion_adapter, build_unet2d


pytestmark = pytest.mark.usefixtures("fixed_seed")

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
    assert config.sparse_causal_mode == "previous" and config.motion_norm == "clip"
    assert (config.motion_num_attention_heads, config.motion_max_seq_length) == (8, 32)
    assert (config.motion_transformer_layers_per_block, config.use_motion_mid_block) == (1, False)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"motion_norm": "batch"}, "`motion_norm` must be one of clip, frame, got 'batch'"),
        ({"sparse_causal_mode": "next"}, "`sparse_causal_mode` must be one of previous, .*, got 'next'"),
        ({"motion_num_attention_heads": 3}, "must divide the channels of each block, got 3 for a block of 8 channels"),
        ({"motion_num_attention_heads": (2, 5)}, "got 5 for a block of 16 channels"),
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


def test_a_new_mid_block_is_drawn_from_the_generator():
    unet, pretrained = build_unet2d(), build_motion_adapter(None)

    def weight(seed):
        generator = torch.Generator().manual_seed(seed)
        adapter = warm_start_motion_adapter(unet, pretrained, use_motion_mid_block=True, generator=generator)
        return adapter.mid_block.motion_modules[0].proj_in.weight

    assert torch.equal(weight(0), weight(0))
    assert not torch.equal(weight(0), weight(1))


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
    with pytest.raises(ValueError, match=r"must fit `unet`: down_blocks\.1"):
        warm_start_motion_adapter(build_unet2d(), build_motion_adapter(None, block_out_channels=(8, 24)))
    with pytest.raises(ValueError, match="must not have an image input"):
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


def test_a_stock_adapter_keeps_its_behavior():
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
    with pytest.raises(ValueError, match=r"must fit `unet`: down_blocks\.0 .*\(8, 4\).*got .*\(8, 2\)"):
        attach_motion_adapter(build_unet2d(), build_motion_adapter(motion_norm_num_groups=2))
    with pytest.raises(ValueError, match="'next'"):
        attach_motion_adapter(build_unet2d(), build_motion_adapter("next"))


def test_importing_the_package_imports_nothing():
    code = "import sys, motion_adapter; assert not {'torch', 'diffusers'} & set(sys.modules)"
    root = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=root, timeout=60)
