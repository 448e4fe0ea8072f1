"""The mended FreeNoise: windows keep the scale of all frames, noise repeats, and new blocks keep old settings."""

import pytest
import torch
from diffusers.models.attention import FreeNoiseTransformerBlock
from diffusers.models.attention_processor import AttnProcessor

from pipeline_calls import sample
from pipeline_landscape_video.landscape_free_noise import FreeNoiseBlock


SCHEMES = ("flat", "pyramid", "delayed_reverse_sawtooth")


def identity_block(block_class, scheme):
    """Return a block whose attention and feed-forward layers add nothing."""
    block = block_class(8, 2, 4, double_self_attention=True, context_length=16, weighting_scheme=scheme)
    for layer in (block.attn1.to_out[0], block.attn2.to_out[0], block.ff.net[2]):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return block


@torch.no_grad()
@pytest.mark.parametrize("scheme", SCHEMES)
def test_identity_blocks_are_the_identity_for_every_length(scheme):
    block = identity_block(FreeNoiseBlock, scheme)
    for num_frames in range(16, 65):
        hidden_states = torch.randn(3, num_frames, 8)
        torch.testing.assert_close(block(hidden_states), hidden_states)


@torch.no_grad()
def test_blocks_of_diffusers_still_need_mending():
    # If this fails, diffusers has mended it, and `FreeNoiseBlock` can go.
    hidden_states = torch.ones(1, 19, 8)
    changed = identity_block(FreeNoiseTransformerBlock, "pyramid")(hidden_states)
    torch.testing.assert_close(changed[0, -3:, 0], torch.tensor([1, 2 / 3, 1 / 3]))


def test_repeat_context_repeats_the_noise_of_the_context(tiny_pipeline):
    pipe = tiny_pipeline()
    pipe.enable_free_noise(context_length=8, context_stride=4, noise_type="repeat_context")
    arguments = (1, 4, 20, 64, 64, torch.float32, torch.device("cpu"), torch.Generator().manual_seed(0))
    latents = pipe.prepare_latents(*arguments)
    assert latents.shape == (1, 4, 20, 8, 8)
    assert torch.equal(latents[:, :, 8:16], latents[:, :, :8]) and torch.equal(latents[:, :, 16:], latents[:, :, :4])
    assert not torch.equal(latents[:, :, 0], latents[:, :, 1])


def test_each_clip_of_a_batch_has_the_noise_of_its_generator(tiny_pipeline):
    pipe = tiny_pipeline()
    pipe.enable_free_noise(context_length=8, context_stride=4)
    size = (4, 20, 64, 64, torch.float32, torch.device("cpu"))
    batch = pipe.prepare_latents(2, *size, [torch.Generator().manual_seed(seed) for seed in (1, 2)])
    alone = [pipe.prepare_latents(1, *size, torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    assert torch.equal(batch, torch.cat(alone))


def test_new_blocks_keep_processors_and_frozen_parameters(tiny_pipeline):
    pipe = tiny_pipeline()
    processor = AttnProcessor()
    pipe.unet.set_attn_processor(processor)
    pipe.unet.requires_grad_(False)
    trained = "down_blocks.0.motion_modules.0.transformer_blocks.0.attn1.to_q.weight"
    pipe.unet.get_parameter(trained).requires_grad_(True)
    for change in (lambda: pipe.enable_free_noise(8, 4), pipe.disable_free_noise):
        change()
        assert all(each is processor for each in pipe.unet.attn_processors.values())
        assert [name for name, value in pipe.unet.named_parameters() if value.requires_grad] == [trained]


def test_fewer_frames_than_the_context_are_refused_in_words(tiny_pipeline):
    pipe = tiny_pipeline()
    pipe.enable_free_noise(context_length=8, context_stride=4)
    with pytest.raises(ValueError, match="`num_frames` must be at least 8, FreeNoise's `context_length`, got 4"):
        sample(pipe)
    with pytest.raises(ValueError, match="`closed_loop` must be False with FreeNoise"):
        sample(pipe, num_frames=12, closed_loop=True)
