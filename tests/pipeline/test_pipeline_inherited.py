"""Features of diffusers' own pipeline work in ours: FreeNoise, FreeInit, FreeU, decoding in chunks."""

import pytest
import torch
from diffusers.pipelines.free_noise_utils import SplitInferenceModule

from pipeline_calls import sample


def test_free_noise_makes_longer_clips_and_can_be_disabled(tiny_pipeline):
    pipe = tiny_pipeline()
    before = sample(pipe, num_frames=8)
    pipe.enable_free_noise(context_length=8, context_stride=4)
    assert sample(pipe, num_frames=40, num_inference_steps=1, interpolate=False).shape[1] == 40
    with pytest.raises(ValueError, match="`num_frames` must be a whole number of at least 1, got 0"):
        sample(pipe, num_frames=0)
    pipe.disable_free_noise()
    assert not pipe.free_noise_enabled
    assert torch.equal(sample(pipe, num_frames=8), before)
    with pytest.raises(ValueError, match="at most 32"):
        sample(pipe, num_frames=40)


def test_split_inference_gives_the_same_frames(tiny_pipeline):
    pipe = tiny_pipeline()
    pipe.enable_free_noise(context_length=8, context_stride=4)
    whole, mid_block = sample(pipe, num_frames=12), pipe.unet.mid_block
    pipe.enable_free_noise_split_inference(spatial_split_size=48, temporal_split_size=5)
    assert pipe.unet.mid_block is mid_block
    for block in (*pipe.unet.down_blocks, *pipe.unet.up_blocks):
        assert all(isinstance(layer, SplitInferenceModule) for layer in block.resnets)
    torch.testing.assert_close(sample(pipe, num_frames=12), whole)


def test_free_noise_window_must_fit_the_positions(tiny_pipeline):
    pipe = tiny_pipeline()
    pipe.enable_free_noise(context_length=48, context_stride=4)
    with pytest.raises(ValueError, match="`context_length` must be at most 32, .*, got 48"):
        sample(pipe, num_frames=64)


def test_free_noise_takes_a_prompt_for_each_part(tiny_pipeline):
    pipe = tiny_pipeline()
    pipe.enable_free_noise(context_length=8, context_stride=4)
    frames = sample(pipe, prompt={0: "mist", 8: "rain"}, num_frames=12, num_inference_steps=1)
    assert frames.shape[1] == 23


def test_free_init_and_freeu_work_with_interpolation(tiny_pipeline):
    pipe = tiny_pipeline()
    plain = sample(pipe)
    pipe.enable_free_init(num_iters=2)
    refined = sample(pipe)
    pipe.disable_free_init()
    pipe.enable_freeu(s1=0.9, s2=0.2, b1=1.2, b2=1.4)
    scaled = sample(pipe)
    pipe.disable_freeu()
    assert refined.shape == scaled.shape == plain.shape
    assert not torch.equal(refined, plain)
    assert torch.equal(sample(pipe), plain)


def test_chunked_decoding_gives_the_same_frames(tiny_pipeline):
    pipe = tiny_pipeline()
    torch.testing.assert_close(sample(pipe, decode_chunk_size=1), sample(pipe), atol=1e-5, rtol=1e-5)
