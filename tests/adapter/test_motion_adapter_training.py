"""Train motion adapters: only layers with an effect train, and a removed attention stays removed."""

import pytest
import torch
from diffusers import MotionAdapter, UNetMotionModel

from motion_adapter.build import (
    ATTENTIONS,
    attach_motion_adapter,
    freeze_image_layers,
    remove_attentions,
    save_motion_modules,
)
from motion_unets import moving_unet, new_adapter, predict
from pipeline_landscape_video.landscape_motion_attention import SPARSE_CAUSAL_MODES, install_sparse_causal_attention
from tiny_models import build_motion_adapter, build_unet2d


pytestmark = pytest.mark.usefixtures("fixed_seed")

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
    with pytest.raises(ValueError, match="must be 'previous' as in the config .*, got 'full' in its motion modules"):
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
    trained = [path for path, _ in freeze_image_layers(again)]
    assert trained and not any(f".{name}." in path for path in trained)


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
    with pytest.raises(ValueError, match="must be any of versatile, sparse_causal, got 'spatial'"):
        remove_attentions(adapter, ["versatile", "spatial"])
    assert adapter.up_blocks[0].motion_modules[0].transformer_blocks[0].attn1.to_out[0].weight.any()
