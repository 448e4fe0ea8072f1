"""`LandscapeVideoPipeline`: signature, outputs, flow estimators, callbacks and interrupts."""

import inspect
import io

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline

from pipeline_calls import Steps, sample, still
from pipeline_landscape_video import LandscapeVideoPipeline


# Signature and defaults


def test_signature_is_the_parents_then_ours():
    parent = list(inspect.signature(AnimateDiffPipeline.__call__).parameters)
    ours = list(inspect.signature(LandscapeVideoPipeline.__call__).parameters)
    windows = ["context_length", "context_overlap", "context_schedule", "context_weights", "closed_loop"]
    prompts = ["transition", "prompt_per_window", "shared_colors"]
    assert ours == [*parent[:-1], "interpolate", "sofp_mode", "flow_estimator", *windows, *prompts, "kwargs"]
    assert issubclass(LandscapeVideoPipeline, AnimateDiffPipeline)
    constructor = list(inspect.signature(AnimateDiffPipeline.__init__).parameters)
    assert list(inspect.signature(LandscapeVideoPipeline.__init__).parameters) == constructor


def test_defaults_are_those_of_the_paper(tiny_pipeline):
    pipe = tiny_pipeline()
    steps = Steps(pipe)
    frames = pipe("misty mountains", flow_estimator=still).frames
    assert steps.count == 25
    assert pipe.guidance_scale == 8
    assert len(frames) == 1 and len(frames[0]) == 2 * 16 - 1
    assert frames[0][0].size == (64, 64)


# Outputs


def test_interpolation_leaves_the_sampled_frames_untouched(tiny_pipeline):
    pipe = tiny_pipeline()
    frames = sample(pipe, interpolate=False)
    interpolated = sample(pipe, flow_estimator="dis")
    assert frames.shape == (1, 4, 3, 64, 64)
    assert interpolated.shape == (1, 7, 3, 64, 64)
    assert torch.equal(interpolated[:, ::2], frames)
    assert frames.min() >= 0 and frames.max() <= 1 and frames.std() > 0


def test_frames_equal_the_parents_with_a_stock_adapter(tiny_components):
    components = tiny_components(sparse_causal_mode=None)
    stock = sample_stock(AnimateDiffPipeline(**components))
    assert torch.equal(sample(LandscapeVideoPipeline(**components), interpolate=False), stock)


def sample_stock(pipe):
    return pipe(
        "misty mountains",
        num_frames=4,
        num_inference_steps=2,
        guidance_scale=8,
        generator=torch.Generator().manual_seed(0),
        output_type="pt",
    ).frames


@pytest.mark.parametrize("interpolate", [True, False])
def test_output_types_hold_the_same_frames(tiny_pipeline, interpolate):
    pipe = tiny_pipeline()
    num_frames = 7 if interpolate else 4
    tensor, array, images = (
        sample(pipe, output_type=output_type, interpolate=interpolate) for output_type in ("pt", "np", "pil")
    )
    assert tensor.shape == (1, num_frames, 3, 64, 64)
    assert array.shape == (1, num_frames, 64, 64, 3)
    assert len(images) == 1 and len(images[0]) == num_frames
    assert np.array_equal(array, tensor.permute(0, 1, 3, 4, 2).numpy())
    for image, frame in zip(images[0], array[0], strict=True):
        assert np.array_equal(np.asarray(image), (frame * 255).round().astype("uint8"))


def test_latents_are_not_interpolated_and_decode_to_the_frames(tiny_pipeline):
    pipe = tiny_pipeline()
    latents = sample(pipe, output_type="latent", interpolate=True)
    assert latents.shape == (1, 4, 4, 8, 8)
    with torch.no_grad():
        frames = (pipe.decode_latents(latents) / 2 + 0.5).clamp(0, 1).transpose(1, 2)
    torch.testing.assert_close(frames, sample(pipe, interpolate=False))


def test_return_dict_false_gives_a_tuple(tiny_pipeline):
    pipe = tiny_pipeline()
    arguments = {"num_frames": 2, "num_inference_steps": 1, "output_type": "np", "flow_estimator": still}
    output = pipe("mist", return_dict=False, generator=torch.Generator().manual_seed(0), **arguments)
    assert isinstance(output, tuple) and len(output) == 1
    frames = pipe("mist", generator=torch.Generator().manual_seed(0), **arguments).frames
    assert np.array_equal(output[0], frames)


def test_batch_equals_single_prompts_with_their_generators(tiny_pipeline):
    pipe = tiny_pipeline()
    prompts = ["mist over the river", "a boat"]
    generators = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    batch = sample(pipe, prompt=prompts, negative_prompt=["rain", "snow"], generator=generators)
    assert batch.shape == (2, 7, 3, 64, 64)
    for index, (prompt, negative_prompt) in enumerate(zip(prompts, ["rain", "snow"], strict=True)):
        generator = torch.Generator().manual_seed(index + 1)
        single = sample(pipe, prompt=prompt, negative_prompt=negative_prompt, generator=generator)
        torch.testing.assert_close(batch[index], single[0], atol=1e-4, rtol=1e-4)


def test_too_few_generators_are_refused(tiny_pipeline):
    with pytest.raises(ValueError, match="list of generators of length 1"):
        sample(tiny_pipeline(), prompt=["mist", "rain"], generator=[torch.Generator()])


def test_one_frame_stays_one_frame(tiny_pipeline):
    assert sample(tiny_pipeline(), num_frames=1).shape == (1, 1, 3, 64, 64)


def test_height_and_width_are_obeyed(tiny_pipeline):
    assert sample(tiny_pipeline(), height=48, width=72, flow_estimator="dis").shape == (1, 7, 3, 48, 72)


def test_prompt_embeddings_need_no_text_encoder(tiny_pipeline, tiny_components):
    pipe = tiny_pipeline()
    without_text = LandscapeVideoPipeline(**tiny_components(tokenizer=None, text_encoder=None))
    with torch.no_grad():
        prompt_embeds, negative_prompt_embeds = pipe.encode_prompt("misty mountains", "cpu", 1, True)
    frames = sample(without_text, prompt_embeds=prompt_embeds, negative_prompt_embeds=negative_prompt_embeds)
    assert torch.equal(frames, sample(pipe))


def test_bfloat16_works_with_interpolation(tiny_pipeline):
    pipe = tiny_pipeline().to(torch.bfloat16)
    frames = sample(pipe, flow_estimator="dis")
    assert frames.dtype == torch.float32 and torch.isfinite(frames).all()


def test_nothing_is_recorded_for_gradients(tiny_pipeline):
    assert not sample(tiny_pipeline()).requires_grad


# Flow estimators


def test_flow_estimator_sees_frames_between_0_and_1(tiny_pipeline):
    seen = []

    def estimator(frames_a, frames_b):
        seen.extend([frames_a, frames_b])
        return still(frames_a, frames_b)

    sample(tiny_pipeline(), flow_estimator=estimator)
    assert seen and all(frames.shape[1:] == (3, 64, 64) for frames in seen)
    assert all(frames.min() >= 0 and frames.max() <= 1 for frames in seen)


def test_sofp_mode_reaches_the_interpolation(tiny_pipeline):
    pipe = tiny_pipeline()
    frames = sample(pipe, interpolate=False)[0]

    def braking(frames_a, frames_b):
        """To the right, ever slower: each mode places that differently."""
        time_a, time_b = (
            torch.stack([(frames - one).abs().sum((1, 2, 3)).argmin() for one in some])
            for some in (frames_a, frames_b)
        )
        flow = torch.zeros_like(frames_a[:, :2])
        position_a, position_b = (4 * time - 0.5 * time**2 for time in (time_a, time_b))
        flow[:, 0] = (position_b - position_a)[:, None, None]
        return flow

    modes = [sample(pipe, flow_estimator=braking, sofp_mode=mode) for mode in ("quadratic", "projection", "linear")]
    assert all(torch.equal(mode[0, ::2], frames) for mode in modes)
    assert not torch.equal(modes[0], modes[1])
    assert not torch.equal(modes[0], modes[2])
    assert not torch.equal(modes[1], modes[2])


def test_flow_estimator_is_made_once_and_is_no_component(tiny_pipeline):
    pipe = tiny_pipeline()
    assert pipe.get_flow_estimator("dis") is pipe.get_flow_estimator("dis")
    assert pipe.get_flow_estimator(still) is still
    assert set(pipe.components) == set(inspect.signature(AnimateDiffPipeline.__init__).parameters) - {"self"}
    pipe.to(torch.float64).to("cpu")


# Callbacks, interrupts, progress


def test_callback_sees_and_changes_latents(tiny_pipeline):
    seen = []

    def blank(pipe, step, timestep, tensors):
        seen.append((step, tensors["latents"].shape))
        return {"latents": torch.zeros_like(tensors["latents"])}

    pipe = tiny_pipeline()
    latents = sample(pipe, output_type="latent", callback_on_step_end=blank)
    assert seen == [(0, (1, 4, 4, 8, 8)), (1, (1, 4, 4, 8, 8))]
    assert not latents.any()
    frames = sample(pipe, callback_on_step_end=blank)[0]
    assert len(frames) == 7 and torch.equal(frames, frames[:1].expand_as(frames))  # nothing moves: all were blank
    with pytest.raises(ValueError, match="callback_on_step_end_tensor_inputs"):
        sample(pipe, callback_on_step_end=blank, callback_on_step_end_tensor_inputs=["noise"])


def test_interrupt_ends_sampling_and_skips_interpolation(tiny_pipeline):
    def stop(pipe, step, timestep, tensors):
        pipe._interrupt = step == 1
        return tensors

    pipe = tiny_pipeline()
    steps = Steps(pipe)
    assert sample(pipe, num_inference_steps=5, callback_on_step_end=stop).shape == (1, 4, 3, 64, 64)
    assert steps.count == 2
    assert sample(pipe, num_inference_steps=5).shape == (1, 7, 3, 64, 64)  # the next call is whole again


def test_deprecated_callback_of_the_parent_still_works(tiny_pipeline):
    seen = []
    with pytest.warns(FutureWarning, match="callback"):
        sample(tiny_pipeline(), callback=lambda step, timestep, latents: seen.append(step), callback_steps=1)
    assert seen == [0, 1]


def test_progress_bar_counts_the_steps(tiny_pipeline):
    pipe = tiny_pipeline()
    written = io.StringIO()
    pipe.set_progress_bar_config(disable=False, file=written)
    sample(pipe, num_inference_steps=3)
    assert "3/3" in written.getvalue()


def test_hooks_are_freed_when_interpolation_fails(tiny_pipeline, monkeypatch):
    def broken(frames_a, frames_b):
        raise RuntimeError("no flow today")

    pipe = tiny_pipeline()
    freed = []
    free = pipe.maybe_free_model_hooks
    monkeypatch.setattr(pipe, "maybe_free_model_hooks", lambda: (freed.append(pipe.interrupt), free()))
    with pytest.raises(RuntimeError, match="no flow today"):
        sample(pipe, flow_estimator=broken)
    assert len(freed) == 1
