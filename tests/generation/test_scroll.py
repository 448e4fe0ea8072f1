"""Generate handscrolls with small random models."""

from dataclasses import replace

import pytest
import torch

from landscape_video.generation.generate_clip import GenerationCancelled
from landscape_video.generation.scroll import ScrollSampler, columns_of, describe_scroll, generate_scroll, windows_of
from landscape_video.generation.scroll_fusion import picture_of
from landscape_video.generation.scroll_settings import ScrollSettings
from pipeline_landscape_video import LandscapeVideoPipeline
from tiny_models import build_components


SETTINGS = ScrollSettings(
    length=3, steps=2, guidance_scale=2.0, eta=1.0, seed=3, num_frames=20, width=64, interpolate=False
)


@pytest.fixture(scope="module")
def pipe():
    pipe = LandscapeVideoPipeline(**build_components())
    pipe.set_progress_bar_config(disable=True)
    return pipe


def frames_of(scroll):
    return torch.stack(list(scroll.clip.frames))


def test_a_scroll_has_a_video_and_a_picture_and_repeats_by_its_seed(pipe):
    scroll = generate_scroll(pipe, "mist over the river", SETTINGS)
    frames = frames_of(scroll)
    assert scroll.picture.size == (3 * 64, 64) and frames.shape == (20, 3, 64, 64)
    assert (scroll.clip.num_frames, scroll.clip.size, scroll.clip.metadata["seed"]) == (20, (64, 64), 3)
    assert torch.equal(frames, frames_of(generate_scroll(pipe, "mist over the river", SETTINGS)))
    smooth = frames_of(generate_scroll(pipe, "mist over the river", replace(SETTINGS, interpolate=True, flow="dis")))
    assert len(smooth) == 39 and torch.equal(smooth[::2], frames)


def test_what_stands_still_is_the_same_in_all_frames_and_in_the_picture(pipe):
    # Everything below this level is held still, so the camera pans over one picture.
    sampler = ScrollSampler(pipe, "mist", replace(SETTINGS, stillness=1e6))
    strips = sampler.run()
    picture = picture_of(strips, sampler.path).permute(2, 0, 1)
    torch.testing.assert_close(strips, picture[sampler.path.columns()], atol=1e-4, rtol=1e-4)


def test_the_predictions_of_a_perfect_model_are_kept(pipe, monkeypatch):
    sampler = ScrollSampler(pipe, "mist", replace(SETTINGS, stillness=0))
    path = sampler.path
    truth = torch.randn(path.canvas, 4, 8, generator=torch.Generator().manual_seed(0))

    def perfect(num_frames, columns):
        clean = truth[columns].permute(1, 2, 0)[None, :, None]
        alphas = pipe.scheduler.alphas_cumprod

        def predict(latents, timestep, step):
            alpha = alphas[int(timestep)]
            return (latents - alpha.sqrt() * clean) / (1 - alpha).sqrt()

        return predict

    monkeypatch.setattr(sampler, "predictor", perfect)
    monkeypatch.setattr("landscape_video.generation.scroll.ANCHOR_UNTIL", 0)
    torch.testing.assert_close(sampler.run(), truth[path.columns()], atol=1e-3, rtol=1e-3)


def test_every_latent_is_in_a_window_in_every_step(pipe):
    path = ScrollSampler(pipe, "mist", replace(SETTINGS, num_frames=60, length=5)).path
    for step in range(12):
        seen = torch.zeros(path.num_frames, path.canvas, dtype=torch.bool)
        for frames, columns in windows_of(path, pipe, step):
            assert (len(frames), len(columns)) == (16, 8)
            seen[torch.tensor(frames)[:, None], torch.tensor(columns)] = True
        assert seen.gather(1, path.columns()).all()
    assert "windows a step" in describe_scroll(pipe, SETTINGS)


def test_prompts_along_the_scroll_act_where_they_begin(pipe):
    one, two = (
        frames_of(generate_scroll(pipe, prompt, replace(SETTINGS, stillness=0)))
        for prompt in ("snow", {0: "snow", 0.99: "rain"})
    )
    assert (one[0] - two[0]).abs().mean() < (one[-1] - two[-1]).abs().mean()
    assert columns_of({0: "snow", 0.5: "rain"}, 96) == {0: "snow, a still camera", 48: "rain, a still camera"}
    with pytest.raises(ValueError, match="from 0 to below 1, got 1"):
        generate_scroll(pipe, {0: "snow", 1: "rain"}, SETTINGS)


def test_a_scroll_can_be_cancelled_between_windows(pipe):
    answers = iter([False, True])
    with pytest.raises(GenerationCancelled):
        generate_scroll(pipe, "mist", SETTINGS, lambda: next(answers))
