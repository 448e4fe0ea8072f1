"""The modules of Consistency tuning on small random models: each alone, and in their order."""

from dataclasses import replace

import pytest
import torch

from landscape_video.generation.consistent_clip import (
    FrameSampler,
    Modules,
    SourceClip,
    TunedPipeline,
    consistent_clip,
    fit_frames,
    without_motion,
)
from landscape_video.generation.consistent_settings import ConsistentClipSettings
from landscape_video.generation.generate_clip import GenerationCancelled
from pipeline_landscape_video import LandscapeVideoPipeline
from tiny_models import build_components


SETTINGS = ConsistentClipSettings(steps=4, guidance_scale=2.0, eta=0.0, seed=3, fps=8.0, context_length=4)
FRAMES = torch.rand(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
MASKS = torch.zeros(1, 6, 64, 64)
MASKS[:, :, 16:32, 16:32] = 1


@pytest.fixture(scope="module")
def pipe():
    pipe = LandscapeVideoPipeline(**build_components())
    pipe.set_progress_bar_config(disable=True)
    return pipe


SOURCE = SourceClip(FRAMES, MASKS)


def frames_of(pipe, source=SOURCE, settings=SETTINGS, **parts):
    names = []
    modules = Modules(on_module=names.append, **{key: parts.pop(key) for key in ("tune", "segment") if key in parts})
    clip = consistent_clip(pipe, source, "mist over the river", settings, modules, **parts)
    return torch.stack(list(clip.frames)), names, clip


def test_all_modules_run_in_order(pipe):
    def tune(latents, background):
        assert latents.shape == (6, 4, 8, 8) and background.shape == (6, 1, 8, 8)
        return TunedPipeline(pipe)

    frames, names, clip = frames_of(pipe, tune=tune)
    assert names == ["separate tuning", "average fusion", "combined tuning", "inter-frame consistency"]
    assert frames.shape == (6, 3, 64, 64)
    assert (clip.num_frames, clip.size, clip.fps) == (6, (64, 64), 8.0)
    recorded = {"strength": 0.6, "final_strength": 0.5, "seed": 3, "prompt": "mist over the river"}
    assert {name: clip.metadata[name] for name in recorded} == recorded
    assert torch.equal(frames, frames_of(pipe, tune=tune)[0])


@pytest.mark.parametrize("switched_off", ["separate", "fuse", "windows"])
def test_each_module_can_be_switched_off(pipe, switched_off):
    frames, names, _ = frames_of(pipe, settings=replace(SETTINGS, **{switched_off: False}))
    gone = {"separate": "separate tuning", "fuse": "average fusion", "windows": "inter-frame consistency"}
    assert gone[switched_off] not in names
    assert not torch.equal(frames, frames_of(pipe)[0])


def test_with_all_modules_off_the_clip_is_decoded(pipe):
    frames, _, _ = frames_of(pipe, settings=replace(SETTINGS, separate=False, fuse=False, windows=False))
    encoded = pipe.encode_images(2 * FRAMES - 1, FRAMES)[:, :, 0]
    decoded = pipe.decode_frames(encoded.transpose(0, 1)[None], 16)[0].transpose(0, 1)
    torch.testing.assert_close(frames, decoded, atol=1e-5, rtol=0)


def test_without_motion_frames_are_those_of_the_image_model():
    components = build_components()
    pipe = LandscapeVideoPipeline(**components)
    latents = torch.randn(1, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    text = torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(1))
    timestep = torch.tensor(500)
    with torch.no_grad():
        with without_motion(pipe.unet):
            found = pipe.unet(latents, timestep, encoder_hidden_states=text.repeat(3, 1, 1)).sample
        after = pipe.unet(latents, timestep, encoder_hidden_states=text.repeat(3, 1, 1)).sample
        images = latents[0].transpose(0, 1)
        expected = components["unet"](images, timestep, encoder_hidden_states=text.repeat(3, 1, 1)).sample
    torch.testing.assert_close(found[0].transpose(0, 1), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(after, found, atol=1e-3)


def test_backgrounds_agree_after_the_fusion(pipe):
    settings = replace(SETTINGS, num_frames=6, height=64, width=64, strength=0.6, final_strength=0.5)
    with torch.no_grad():
        sampler = FrameSampler(pipe, "mist", settings)
        begin, middle, end = sampler.steps(0.6)
        assert (begin, middle, end) == (2, 3, 4)
        noisy = sampler.add_noise(sampler.encode(FRAMES), middle)
        fused = sampler.fuse(noisy, middle, torch.ones(6, 1, 8, 8))
        spread = [sampler.run(latents, middle, end).std(dim=2).mean() for latents in (noisy, fused)]
    assert spread[1] < 0.8 * spread[0]


def test_masks_can_be_made_from_the_generated_frames(pipe):
    seen = []

    def segment(frames):
        seen.append(frames)
        return MASKS

    frames, _, _ = frames_of(pipe, SourceClip(FRAMES), segment=segment)
    assert seen[0].shape == FRAMES.shape and not torch.allclose(seen[0], FRAMES, atol=0.05)
    assert torch.equal(frames, frames_of(pipe)[0])


def test_the_clip_follows_its_source_less_with_more_strength(pipe):
    changes = []
    for strength in (0.25, 1.0):
        settings = replace(SETTINGS, fuse=False, windows=False, strength=strength)
        changes.append([frames_of(pipe, SourceClip(source), settings)[0] for source in (FRAMES, 1 - FRAMES)])
    differences = [float((one - other).abs().mean()) for one, other in changes]
    assert differences[0] > 0 and differences[1] == 0


def test_a_fusion_needs_masks(pipe):
    with pytest.raises(ValueError, match="`masks` must be given to fuse backgrounds"):
        frames_of(pipe, SourceClip(FRAMES))


def test_cancelling_stops_after_a_step(pipe):
    steps = []
    with pytest.raises(GenerationCancelled):
        frames_of(pipe, on_step=steps.append, is_cancelled=lambda: len(steps) == 2)
    assert len(steps) == 2


def test_fitted_frames_are_cropped_not_distorted():
    frames = torch.zeros(2, 1, 20, 40)
    frames[..., 10:30] = 1
    fitted = fit_frames(frames, 10, 10)
    assert fitted.shape == (2, 1, 10, 10)
    assert fitted.min() > 0.9
    assert torch.equal(fit_frames(frames, 20, 40), frames)
