"""The denoising loop: its steps, hooks, wrappers and progress; callbacks and FreeInit in both pipelines."""

import io

import pytest
import torch
from diffusers import DDIMScheduler, HeunDiscreteScheduler, PNDMScheduler

from pipeline_calls import Steps, sample
from pipeline_landscape_video.landscape_denoising import denoise
from pipeline_landscape_video.landscape_guidance import guide_by_text_and_image
from retention_models import build_image_to_video, painting


ALL_TENSORS = ["latents", "prompt_embeds", "negative_prompt_embeds"]


class Bar:
    """Counts as `tqdm` does."""

    def __init__(self, total):
        self.total, self.count = total, 0

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def update(self):
        self.count += 1


def run(predict_noise, scheduler=None, num_inference_steps=3, on_step=None, is_interrupted=lambda: False, **kwargs):
    """Denoise latents of one frame with `kwargs` for each step; returns them, the timesteps and the progress bar."""
    scheduler = scheduler or DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(num_inference_steps)
    bars = []

    def progress_bar(total):
        bars.append(Bar(total))
        return bars[-1]

    latents = denoise(
        scheduler,
        torch.ones(1, 4, 1, 8, 8),
        scheduler.timesteps,
        predict_noise,
        kwargs,
        on_step or (lambda latents, timestep, step: latents),
        num_inference_steps=num_inference_steps,
        progress_bar=progress_bar,
        is_interrupted=is_interrupted,
    )
    return latents, scheduler.timesteps, bars[0]


def half(latents, timestep, step):
    return 0.5 * latents


# The loop


def test_the_loop_is_the_schedulers_steps():
    scheduler = DDIMScheduler(clip_sample=False)
    scheduler.set_timesteps(3)
    expected = torch.ones(1, 4, 1, 8, 8)
    for timestep in scheduler.timesteps:
        expected = scheduler.step(0.5 * expected, timestep, expected).prev_sample
    assert torch.equal(run(half)[0], expected)


@pytest.mark.parametrize("num_inference_steps", [7, 30, 50, 61, 300])
@pytest.mark.parametrize("spacing", ["trailing", "leading", "linspace"])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_perfect_model_reaches_the_clean_latents(prediction_type, spacing, num_inference_steps):
    """At 30 steps, DDIM of diffusers alone ends 1.4 to 3.4 % off with trailing spacing, 6 to 14 % with linspace."""
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="linear",
        clip_sample=False,
        steps_offset=1,
        timestep_spacing=spacing,
        prediction_type=prediction_type,
        rescale_betas_zero_snr=prediction_type == "v_prediction",
    )
    clean, noise = torch.randn(2, 1, 4, 2, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    visited = []

    def predict_truth(latents, timestep, step):
        visited.append(int(timestep))
        if prediction_type == "epsilon":
            return noise
        return scheduler.get_velocity(clean, noise, timestep[None])

    scheduler.set_timesteps(num_inference_steps)
    latents = denoise(
        scheduler,
        scheduler.add_noise(clean, noise, scheduler.timesteps[:1]),
        scheduler.timesteps,
        predict_truth,
        {},
        lambda latents, timestep, step: latents,
        num_inference_steps=num_inference_steps,
        progress_bar=Bar,
        is_interrupted=lambda: False,
    )
    assert (latents - clean).norm() < 1e-3 * clean.norm()
    assert len(visited) == num_inference_steps and min(visited) >= 0
    assert scheduler.num_inference_steps == num_inference_steps


@pytest.mark.parametrize("num_inference_steps", [10, 25, 40])
def test_steps_that_divide_the_schedule_are_those_of_diffusers_to_the_bit(num_inference_steps):
    scheduler = DDIMScheduler(clip_sample=False, timestep_spacing="trailing")
    scheduler.set_timesteps(num_inference_steps)
    generators = [torch.Generator().manual_seed(0) for _ in range(2)]
    expected = torch.ones(1, 4, 1, 8, 8)
    for timestep in scheduler.timesteps:
        expected = scheduler.step(0.5 * expected, timestep, expected, eta=0.7, generator=generators[0]).prev_sample
    latents, _, _ = run(half, scheduler, num_inference_steps, eta=0.7, generator=generators[1])
    assert torch.equal(latents, expected)


@pytest.mark.parametrize("scheduler", [DDIMScheduler, HeunDiscreteScheduler])
def test_a_wrapper_sees_each_timestep_with_its_index(scheduler):
    seen = []

    def watch(predict_noise):
        def watched(latents, timestep, step):
            seen.append((step, float(timestep)))
            return predict_noise(latents, timestep, step)

        return watched

    _, timesteps, _ = run(watch(half), scheduler())
    assert seen == list(enumerate(timesteps.tolist()))


def test_wrappers_compose_with_guidance():
    sizes = []

    def by_term(latents, timestep, step):
        sizes.append(len(latents))
        return torch.stack([index * term for index, term in enumerate(latents)])

    def only_in_the_last_step(guided, unguided):
        return lambda latents, timestep, step: (guided if step == 2 else unguided)(latents, timestep, step)

    guided = guide_by_text_and_image(by_term, [-1.0, 0.5])
    plain, _, _ = run(lambda latents, timestep, step: (0.5 if step == 2 else 0.0) * latents)
    wrapped, _, _ = run(only_in_the_last_step(guided, by_term))
    assert sizes == [1, 1, 2]
    assert torch.equal(wrapped, plain)


def test_a_hook_acts_after_the_step_and_its_latents_count():
    seen = []

    def clear(latents, timestep, step):
        seen.append(step)
        return torch.zeros_like(latents) if step == 1 else latents

    latents, _, _ = run(half, on_step=clear)
    assert seen == [0, 1, 2]
    assert not latents.any()


def test_an_interrupt_ends_the_loop_before_the_next_step():
    seen = []
    _, _, bar = run(half, on_step=lambda x, _, step: seen.append(step) or x, is_interrupted=lambda: len(seen) == 2)
    assert seen == [0, 1]
    assert (bar.count, bar.total) == (2, 3)


@pytest.mark.parametrize(
    ("scheduler", "num_timesteps"),
    [(DDIMScheduler, 4), (HeunDiscreteScheduler, 7), (PNDMScheduler, 13)],
    ids=["first order", "second order", "with warm-up steps"],
)
def test_progress_counts_the_steps_that_were_asked_for(scheduler, num_timesteps):
    _, timesteps, bar = run(half, scheduler(), num_inference_steps=4)
    assert len(timesteps) == num_timesteps
    assert (bar.count, bar.total) == (4, 4)


# In the pipelines


def test_the_bar_of_a_second_order_scheduler_fills_up(tiny_pipeline):
    pipe, written = tiny_pipeline(), io.StringIO()
    pipe.scheduler = HeunDiscreteScheduler.from_config(pipe.scheduler.config)
    pipe.set_progress_bar_config(disable=False, file=written)
    sample(pipe, num_inference_steps=3)
    assert "3/3" in written.getvalue()
    assert pipe.num_timesteps == 5


def test_a_callback_replaces_embeddings_for_the_steps_after_it(tiny_pipeline):
    pipe, given = tiny_pipeline(), []
    with torch.no_grad():
        other, negative = pipe.encode_prompt("a boat", "cpu", 1, True)
    other = torch.cat([negative, other]).repeat_interleave(4, dim=0)
    pipe.unet.register_forward_pre_hook(
        lambda unet, args, kwargs: given.append(kwargs["encoder_hidden_states"]), with_kwargs=True
    )

    def replace(pipe, step, timestep, tensors):
        assert list(tensors) == ALL_TENSORS
        assert tensors["negative_prompt_embeds"].shape == negative.shape
        return {"prompt_embeds": other} if step == 0 else {}

    arguments = {"callback_on_step_end": replace, "callback_on_step_end_tensor_inputs": ALL_TENSORS}
    sample(pipe, num_inference_steps=3, **arguments)
    assert not torch.equal(given[0], other)
    assert torch.equal(given[1], other) and torch.equal(given[2], other)
    assert not torch.equal(sample(pipe, num_inference_steps=3, **arguments), sample(pipe, num_inference_steps=3))


def test_a_callback_switches_guidance_off(tiny_pipeline):
    pipe, sizes = tiny_pipeline(), []
    pipe.unet.register_forward_pre_hook(lambda unet, args: sizes.append(len(args[0])))

    def switch_off(pipe, step, timestep, tensors):
        pipe._guidance_scale = 0.0
        return {"prompt_embeds": tensors["prompt_embeds"].chunk(2)[-1]} if step == 0 else {}

    arguments = {"callback_on_step_end": switch_off, "callback_on_step_end_tensor_inputs": ["prompt_embeds"]}
    sample(pipe, num_inference_steps=3, **arguments)
    assert sizes == [2, 1, 1]


def test_a_callback_changes_the_guidance_scale(tiny_pipeline):
    pipe = tiny_pipeline()

    def weaken(pipe, step, timestep, tensors):
        pipe._guidance_scale = 2.0
        return {}

    weakened = sample(pipe, guidance_scale=8.0, callback_on_step_end=weaken)
    assert not torch.equal(weakened, sample(pipe, guidance_scale=8.0))
    assert not torch.equal(weakened, sample(pipe, guidance_scale=2.0))


def test_a_callback_that_returns_nothing_is_told_what_to_return(tiny_pipeline):
    with pytest.raises(TypeError, match="`callback_on_step_end` must return a dictionary of tensors, got NoneType"):
        sample(tiny_pipeline(), callback_on_step_end=lambda pipe, step, timestep, tensors: None)


def test_free_init_runs_the_loop_again_with_timesteps_of_its_own(tiny_pipeline):
    pipe, lengths = tiny_pipeline(), []
    steps = Steps(pipe)
    pipe.enable_free_init(num_iters=2, use_fast_sampling=True)

    def count(pipe, step, timestep, tensors):
        lengths.append((step, pipe.num_timesteps))
        return {}

    sample(pipe, num_inference_steps=4, callback_on_step_end=count)
    assert lengths == [*((step, 2) for step in range(2)), *((step, 4) for step in range(4))]
    assert steps.count == 6


def test_an_interrupt_ends_free_init_with_the_latents_of_the_last_step(tiny_pipeline):
    pipe, seen = tiny_pipeline(), []
    pipe.enable_free_init(num_iters=3)

    def stop(pipe, step, timestep, tensors):
        seen.append(tensors["latents"])
        pipe._interrupt = step == 1
        return {}

    latents = sample(pipe, num_inference_steps=4, callback_on_step_end=stop, output_type="latent")
    assert len(seen) == 2
    assert torch.equal(latents, seen[-1])


def test_free_init_works_with_images_and_a_held_first_frame():
    pipe = build_image_to_video()
    arguments = {"image": painting(), "interpolate": False}
    plain, held = sample(pipe, **arguments), sample(pipe, **arguments, hold_first_frame=True)
    pipe.enable_free_init(num_iters=2)
    steps = Steps(pipe)
    refined, refined_held = sample(pipe, **arguments), sample(pipe, **arguments, hold_first_frame=True)
    assert steps.count == 2 * 2 * 2
    assert refined.shape == plain.shape and not torch.equal(refined, plain)
    torch.testing.assert_close(refined_held[:, 0], held[:, 0])
    assert not torch.equal(refined_held[:, 1:], held[:, 1:])


def test_the_held_first_frame_is_in_the_latents_that_a_callback_receives():
    pipe, seen = build_image_to_video(), []

    def overwrite(pipe, step, timestep, tensors):
        seen.append(tensors["latents"])
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else {}

    latents = sample(
        pipe, image=painting(), hold_first_frame=True, callback_on_step_end=overwrite, output_type="latent"
    )
    clean = sample(pipe, image=painting(), hold_first_frame=True, output_type="latent")[:, :, :1]
    assert torch.equal(seen[1][:, :, :1], clean)
    assert not latents.any()  # the callback has the last word
