"""Features of diffusers' own pipeline work in ours: FreeNoise, FreeInit, FreeU, decoding in chunks."""

import inspect

import pytest
import torch
from diffusers import AnimateDiffPipeline
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
    assert sample(pipe, num_frames=40, num_inference_steps=1, interpolate=False).shape[1] == 40  # in windows


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


def test_clip_skip_takes_an_earlier_layer_of_the_text_encoder(tiny_pipeline):
    pipe = tiny_pipeline()
    arguments = {"device": torch.device("cpu"), "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    tokens = pipe.tokenizer(
        "mist", padding="max_length", max_length=pipe.tokenizer.model_max_length, return_tensors="pt"
    )
    hidden_states = pipe.text_encoder(tokens.input_ids, output_hidden_states=True).hidden_states
    before = list(pipe.text_encoder.state_dict())
    for clip_skip in (0, 1):
        embeds, _ = pipe.encode_prompt("mist", clip_skip=clip_skip, **arguments)
        expected = pipe.text_encoder.final_layer_norm(hidden_states[-1 - clip_skip])
        torch.testing.assert_close(embeds, expected)
    assert list(pipe.text_encoder.state_dict()) == before
    assert not torch.equal(sample(pipe, clip_skip=1), sample(pipe))


def test_encode_prompt_has_the_signature_of_the_parent(tiny_pipeline):
    # diffusers' tests, and whoever encodes prompts apart from a call, read it.
    parameters = inspect.signature(tiny_pipeline().encode_prompt).parameters
    expected = list(inspect.signature(AnimateDiffPipeline.encode_prompt).parameters)
    assert ["self", *parameters] == expected
