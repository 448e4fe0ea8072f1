"""Both pipelines sample clips of any length in windows."""

import logging

import pytest
import torch

from pipeline_calls import PIPELINE_LOGGER, Steps, said, sample
from pipeline_landscape_video.landscape_motion_attention import SPARSE_CAUSAL_MODES
from retention_models import build_image_to_video, painting


def long(pipe, **arguments):
    return sample(pipe, **({"num_frames": 40, "output_type": "latent"} | arguments))


def test_clips_that_fit_one_window_are_sampled_as_ever(tiny_pipeline, caplog):
    pipe = tiny_pipeline()
    steps = Steps(pipe)
    with caplog.at_level(logging.INFO, PIPELINE_LOGGER):
        short = sample(pipe, num_frames=16, context_overlap=7, context_schedule="static", context_weights="flat")
        assert torch.equal(sample(pipe, num_frames=16), short) and steps.count == 4
        sample(pipe, num_frames=24, context_length=24)
        assert steps.count == 6 and not said(caplog)
        sample(pipe, num_frames=24)
    assert steps.count == 6 + 2 + 3  # 2 windows, then 3
    assert said(caplog) == ["24 frames are sampled in windows of 16 frames, moved."]


@pytest.mark.parametrize("mode", SPARSE_CAUSAL_MODES)
@pytest.mark.parametrize("closed_loop", [False, True])
def test_a_zeroed_adapter_gives_the_frames_of_the_image_model(tiny_pipeline, mode, closed_loop):
    pipe = tiny_pipeline(sparse_causal_mode=mode)
    for name, parameter in pipe.unet.named_parameters():
        if "motion_modules" in name and "proj_out" in name:
            torch.nn.init.zeros_(parameter)
    latents = torch.randn(1, 4, 40, 8, 8, generator=torch.Generator().manual_seed(1))
    windows = long(pipe, latents=latents, closed_loop=closed_loop)
    # All frames as a batch of clips of one frame
    alone = sample(
        pipe, prompt=["misty mountains"] * 40, latents=latents[0].transpose(0, 1)[:, :, None], num_frames=1,
        output_type="latent", generator=None,
    )  # fmt: skip
    torch.testing.assert_close(windows[0], alone[:, :, 0].transpose(0, 1), atol=1e-4, rtol=1e-4)


def test_guided_predictions_of_windows_are_averaged_before_the_step(tiny_pipeline):
    pipe = tiny_pipeline()
    latents = torch.randn(1, 4, 20, 8, 8, generator=torch.Generator().manual_seed(1))
    arguments = {"num_inference_steps": 1, "context_schedule": "static", "context_weights": "flat", "eta": 0.0}
    ours = long(pipe, latents=latents, num_frames=20, **arguments)
    first, last = (
        long(pipe, latents=latents[:, :, start : start + 16], num_frames=16, num_inference_steps=1, eta=0.0)
        for start in (0, 4)
    )
    average = torch.cat([first[:, :, :4], (first[:, :, 4:] + last[:, :, :12]) / 2, last[:, :, 12:]], dim=2)
    torch.testing.assert_close(ours, average, atol=1e-5, rtol=1e-5)


def test_a_batch_equals_its_clips_with_prompts_over_time(tiny_pipeline):
    pipe = tiny_pipeline()
    prompts = [{0: "mist", 20: "rain"}, "a boat"]
    negative_prompts = ["snow", {0: "pine", 16: "moon"}]
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    batch = long(pipe, prompt=prompts, negative_prompt=negative_prompts, generator=generators, eta=1.0)
    for index in range(2):
        generator = torch.Generator().manual_seed(index + 1)
        alone = long(
            pipe, prompt=prompts[index], negative_prompt=negative_prompts[index], generator=generator, eta=1.0
        )
        torch.testing.assert_close(batch[index], alone[0], atol=1e-4, rtol=1e-4)


def test_prompts_act_on_their_frames_only(tiny_pipeline):
    pipe = tiny_pipeline()
    arguments = {"num_frames": 64, "transition": 0, "num_inference_steps": 1}
    mist, rain, both = (long(pipe, prompt=prompt, **arguments) for prompt in ("mist", "rain", {0: "mist", 32: "rain"}))
    assert not torch.allclose(mist, rain)
    torch.testing.assert_close(both[:, :, :16], mist[:, :, :16])
    torch.testing.assert_close(both[:, :, -16:], rain[:, :, -16:])


def test_callbacks_replace_embeddings_of_clips_rather_than_frames(tiny_pipeline):
    pipe, shapes = tiny_pipeline(), []

    def callback(pipe, step, timestep, tensors):
        shapes.append(tuple(tensors["prompt_embeds"].shape))
        pipe._guidance_scale = 1.0
        return {"prompt_embeds": tensors["prompt_embeds"].chunk(2)[-1]} if step == 0 else {}

    inputs = {"callback_on_step_end": callback, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    assert long(pipe, prompt={0: "mist", 20: "rain"}, **inputs).isfinite().all()
    assert shapes == [(2 * 2, 77, 16), (2, 77, 16)]


def test_a_longer_clip_begins_like_a_shorter_one_without_motion(tiny_pipeline):
    pipe = tiny_pipeline()
    for name, parameter in pipe.unet.named_parameters():
        if "motion_modules" in name and "proj_out" in name:
            torch.nn.init.zeros_(parameter)
    latents = [long(pipe, num_frames=num_frames, eta=1.0) for num_frames in (16, 24, 40)]
    torch.testing.assert_close(latents[2][:, :, :24], latents[1], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(latents[2][:, :, :16], latents[0], atol=1e-4, rtol=1e-4)


def test_an_image_begins_a_long_clip():
    pipe = build_image_to_video()
    frames = sample(pipe, image=painting(), num_frames=24, hold_first_frame=True, interpolate=False)
    short = sample(pipe, image=painting(), num_frames=8, hold_first_frame=True, interpolate=False)
    assert frames.shape[1] == 24
    torch.testing.assert_close(frames[:, 0], short[:, 0], atol=1e-4, rtol=1e-4)  # the image through the VAE
    other = sample(pipe, image=painting().rotate(90), num_frames=24, interpolate=False)
    assert not torch.allclose(frames, other, atol=1e-3)


def test_prompt_stages_may_change_over_time():
    pipe = build_image_to_video()
    prompts = [{0: "mist", 12: "rain"}, "snow"]
    frames = sample(pipe, prompt=None, prompts=prompts, image=painting(), num_frames=20, interpolate=False)
    assert frames.shape[1] == 40


def test_shared_colors_act_on_windows_only(tiny_pipeline):
    pipe = tiny_pipeline()
    short, shared_short = (sample(pipe, num_frames=16, shared_colors=shared) for shared in (False, True))
    assert torch.equal(short, shared_short)
    own, shared = (long(pipe, shared_colors=shared).mean(dim=(3, 4)).std(dim=2).mean() for shared in (False, True))
    assert shared < own
