"""Clips from Python: frames and metadata, progress, previews, cancelling and errors that name a setting."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from landscape_video.generation.generate_clip import (
    GenerationCancelled,
    Progress,
    animate_clip,
    generate_clip,
    run_pipeline,
    stream_clip,
)
from landscape_video.generation.settings import ImageToVideoSettings, TextToVideoSettings
from retention_models import build_image_to_video, painting


TEXT = TextToVideoSettings(num_frames=3, steps=2, seed=5, interpolate=False)
IMAGE = ImageToVideoSettings(num_frames=3, steps=2, seed=5, interpolate=False)


@pytest.fixture
def pipe(tiny_pipeline):
    return tiny_pipeline()


@pytest.fixture
def image_pipe():
    return build_image_to_video()


def test_a_clip_equals_a_call_of_the_pipeline_and_says_how_it_was_made(pipe):
    clip = generate_clip(pipe, "mist", replace(TEXT, interpolate=True, flow="dis"))
    frames = pipe(
        "mist",
        num_frames=3,
        num_inference_steps=2,
        generator=torch.Generator().manual_seed(5),
        output_type="np",
        flow_estimator="dis",
    ).frames[0]
    np.testing.assert_array_equal(clip.frames, frames)
    assert clip.fps == 16
    wanted = {"prompt": "mist", "seed": 5, "steps": 2, "guidance_scale": 8.0, "eta": 0.0, "height": 64, "width": 64}
    wanted |= {"flow": "dis", "sofp_mode": "quadratic", "dtype": "float32", "device": "cpu"}
    assert {name: clip.metadata[name] for name in wanted} == wanted


def test_a_drawn_seed_makes_the_clip_again(pipe):
    clip = generate_clip(pipe, "mist", replace(TEXT, seed=None))
    again = generate_clip(pipe, "mist", replace(TEXT, seed=clip.metadata["seed"]))
    np.testing.assert_array_equal(clip.frames, again.frames)


def test_a_clip_does_not_depend_on_its_batch(pipe):
    batch = run_pipeline(pipe, TEXT, [5, 6], prompt=["mist", "rain"])
    for index, (prompt, seed) in enumerate((("mist", 5), ("rain", 6))):
        alone = generate_clip(pipe, prompt, replace(TEXT, seed=seed)).frames
        np.testing.assert_allclose(batch[index], alone, atol=1e-4)
    assert run_pipeline(pipe, TEXT, [5], output_type="latent", prompt="mist").shape == (1, 4, 3, 8, 8)


def test_an_image_without_a_prompt_and_in_stages(image_pipe):
    image = painting(1, (96, 64))
    alone = animate_clip(image_pipe, image, settings=IMAGE)
    assert alone.frames.shape == (3, 64, 64, 3) and alone.metadata["prompts"] == [None]
    staged = animate_clip(image_pipe, image, ["mist", "rain"], IMAGE)
    assert len(staged.frames) == 6 and staged.metadata["prompts"] == ["mist", "rain"]
    one = animate_clip(image_pipe, image, ["mist"], IMAGE)
    np.testing.assert_array_equal(staged.frames[:3], one.frames)


def test_progress_tells_stage_and_step_and_shows_a_frame(image_pipe):
    seen: list[tuple[int, int, int]] = []
    previews = []

    def on_step(progress: Progress) -> None:
        seen.append((progress.stage, progress.step, progress.num_steps))
        previews.append(progress.preview())

    image = painting(1, (96, 64))
    clip = animate_clip(image_pipe, image, ["mist", "rain"], IMAGE, on_step=on_step)
    assert seen == [(0, 0, 2), (0, 1, 2), (1, 0, 2), (1, 1, 2)]
    assert all(preview.shape == (64, 64, 3) and preview.dtype == np.uint8 for preview in previews)
    # After the last step, the preview is the middle frame of the stage.
    assert np.abs(previews[1] - (clip.frames[1] * 255).round()).max() <= 1
    watched = animate_clip(image_pipe, image, ["mist", "rain"], IMAGE)
    np.testing.assert_array_equal(watched.frames, clip.frames)  # watching changes nothing


def test_cancelling_stops_between_two_steps(pipe):
    steps = []
    with pytest.raises(GenerationCancelled):
        generate_clip(
            pipe,
            "mist",
            replace(TEXT, steps=9),
            on_step=lambda progress: steps.append(progress.step),
            is_cancelled=lambda: len(steps) == 3,
        )
    assert steps == [0, 1, 2]
    assert len(generate_clip(pipe, "mist", TEXT).frames) == 3  # the pipeline is still of use


def test_errors_name_the_setting(pipe):
    with pytest.raises(ValueError, match="`steps` must be smaller .*, got 1001"):
        generate_clip(pipe, "mist", replace(TEXT, steps=1001))
    with pytest.raises(ValueError, match="`context_length` .* 32"):
        generate_clip(pipe, "mist", replace(TEXT, num_frames=34, context_length=33))


@pytest.mark.parametrize("changes", [{}, {"num_frames": 20}, {"num_frames": 20, "closed_loop": True}])
@pytest.mark.parametrize("interpolate", [True, False])
def test_streamed_frames_are_those_of_the_clip(pipe, changes, interpolate):
    settings = replace(TEXT, seed=3, interpolate=interpolate, flow="dis", **changes)
    clip, stream = generate_clip(pipe, "mist", settings), stream_clip(pipe, "mist", settings)
    frames = torch.stack(list(stream.frames)).permute(0, 2, 3, 1).numpy()
    assert np.array_equal(frames, clip.frames) and len(frames) == stream.num_frames
    assert (stream.fps, stream.metadata) == (clip.fps, clip.metadata)


def test_streamed_nan_is_not_a_clip(pipe):
    torch.nn.init.constant_(pipe.vae.decoder.conv_out.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="NaN in float32"):
        list(stream_clip(pipe, "mist", TEXT).frames)


def test_nan_is_not_a_clip(pipe):
    torch.nn.init.constant_(pipe.vae.decoder.conv_out.bias, torch.nan)
    with pytest.raises(FloatingPointError, match="NaN in float32"):
        generate_clip(pipe, "mist", TEXT)
