"""Sparse-causal attention: its definition and closed forms, precision, gradients, and how it is installed."""

import pytest
import torch
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.attention_processor import Attention

from dense_attention import (
    SPARSE_MODES,
    assert_close,
    assert_survives,
    build_motion_unet,
    dense_masked_attention,
    keys_of,
    make_dense,
    motion_attentions,
    predict,
)
from pipeline_landscape_video.landscape_motion_attention import (
    SPARSE_CAUSAL_MODES,
    SparseCausalAttention,
    SparseCausalBlocks,
    install_sparse_causal_attention,
    sparse_causal_mask,
)
from tiny_models import build_unet2d


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
    with pytest.raises(ValueError, match="previous, current_previous, first_previous, full, got 'next'"):
        install_sparse_causal_attention(unet, "next")
    with pytest.raises(ValueError, match="'next'"):
        sparse_causal_mask("next", 4)
    assert "sparse_causal_mode" not in unet.config and not isinstance(
        motion_attentions(unet)[0], SparseCausalAttention
    )


def test_a_unet_without_motion_modules_is_refused():
    with pytest.raises(ValueError, match="must have motion modules, got a UNet2DConditionModel"):
        install_sparse_causal_attention(build_unet2d(), "previous")


@pytest.mark.parametrize("name", ["encoder_hidden_states", "attention_mask"])
def test_other_keys_and_masks_are_refused(name):
    attention = motion_attentions(build_motion_unet("previous"))[0]
    with pytest.raises(ValueError, match=name):
        attention(torch.zeros(2, 3, 8), **{name: torch.zeros(2, 3, 8)})
