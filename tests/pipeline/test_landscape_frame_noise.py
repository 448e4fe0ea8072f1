"""A longer clip begins with the noise of a shorter one, and clips of up to 16 frames have that of `torch.randn`."""

import pytest
import torch
from diffusers import DDIMScheduler, EulerAncestralDiscreteScheduler

from pipeline_landscape_video.landscape_frame_noise import FrameNoise


CPU = torch.device("cpu")


def noises(num_frames, seed=0, batch_size=1, steps=2):
    """Return the noise of the latents and of two steps."""
    generator = torch.Generator().manual_seed(seed)
    noise = FrameNoise(generator, num_frames)
    return [noise.draw((batch_size, 4, num_frames, 2, 3), CPU, torch.float32) for _ in range(1 + steps)]


@pytest.mark.parametrize("num_frames", [1, 8, 16])
def test_short_clips_keep_their_noise(num_frames):
    generator = torch.Generator().manual_seed(0)
    expected = [torch.randn(1, 4, num_frames, 2, 3, generator=generator) for _ in range(3)]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(noises(num_frames), expected, strict=True))


@pytest.mark.parametrize("batch_size", [1, 2])
def test_longer_clips_begin_with_the_noise_of_shorter_ones(batch_size):
    longest = noises(70, batch_size=batch_size)
    for num_frames in (16, 17, 32, 47, 64):
        for short, long in zip(noises(num_frames, batch_size=batch_size), longest, strict=True):
            assert torch.equal(short, long[:, :, :num_frames])
    everything = torch.cat([noise.transpose(1, 2).flatten(0, 1) for noise in longest]).flatten(1)
    assert len(everything.unique(dim=0)) == len(everything)  # no frame's noise comes twice
    assert abs(everything.std() - 1) < 0.03


def test_each_clip_of_a_batch_has_its_generator():
    shape = (2, 4, 40, 2, 3)
    generators = [torch.Generator().manual_seed(seed) for seed in (0, 1)]
    batch = FrameNoise(generators, 40).draw(shape, CPU, torch.float32)
    assert torch.equal(batch, torch.cat([noises(40, seed)[0] for seed in (0, 1)]))


def test_a_generator_in_use_gives_other_noise_to_the_next_clip():
    generator = torch.Generator().manual_seed(0)
    first, second = (FrameNoise(generator, 40).draw((1, 4, 40, 2, 3), CPU, torch.float32) for _ in range(2))
    assert not torch.isin(first, second).any()


def test_only_ddim_with_fresh_noise_takes_it_as_an_argument():
    noise = FrameNoise(torch.Generator().manual_seed(0), 40)
    kwargs = {"eta": 1.0, "generator": noise.blocks[0]}
    assert noise.step_kwargs(EulerAncestralDiscreteScheduler(), kwargs) is kwargs
    assert noise.step_kwargs(DDIMScheduler(), kwargs | {"eta": 0.0})["generator"] is noise.blocks[0]
    assert FrameNoise(None, 40).step_kwargs(DDIMScheduler(), kwargs) is kwargs
    latents = torch.zeros(1, 4, 40, 2, 3)
    of_step = noise.step_kwargs(DDIMScheduler(), kwargs)
    first, second = of_step(latents), of_step(latents)
    assert first.keys() == {"eta", "variance_noise"}
    assert not torch.equal(first["variance_noise"], second["variance_noise"])
