"""`LandscapeImageToVideoPipeline`: guidance in closed form, a held first frame, stages, batches, outputs, refusals."""

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler
from PIL import Image

from pipeline_calls import Steps, sample, still
from pipeline_landscape_video import LandscapeImageToVideoPipeline, LandscapeVideoPipeline
from pipeline_landscape_video.landscape_guidance import guidance_terms
from pipeline_landscape_video.landscape_pictures import images_to_tensor
from pipeline_landscape_video.landscape_prompt_schedule import PromptSchedule
from pipeline_landscape_video.landscape_windows import WindowPlan
from retention_models import branch_for, build_image_to_video, painting, randomize_branch


WHITE = Image.new("RGB", (64, 64), "white")


def frames_of(pipe, **arguments):
    return sample(pipe, **({"interpolate": False, "image": painting()} | arguments))


class Batches(Steps):
    """Counts UNet calls and stores their batch sizes."""

    def __init__(self, pipe):
        self.sizes = []
        super().__init__(pipe)

    def add(self, _, arguments):
        super().add()
        self.sizes.append(len(arguments[0]))


# Guidance


@torch.no_grad()
@pytest.mark.parametrize("guidance_order", ["text_first", "picture_first"])
def test_the_guided_prediction_is_equation_five_or_that_of_instruct_pix2pix(guidance_order):
    pipe = build_image_to_video()
    pipe._cross_attention_kwargs = pipe._clip_skip = None
    latents = torch.randn(1, 4, 4, 8, 8, generator=torch.Generator().manual_seed(5))
    image, white = torch.rand(1, 3, 64, 64) * 2 - 1, torch.ones(1, 3, 64, 64)
    prompts = PromptSchedule("boat", None, batch_size=1, plan=WindowPlan(4))
    text = pipe.encode_for_frames(prompts, [(True, True)])["prompt_embeds"]
    null = pipe.encode_for_frames(prompts, [(False, False)])["prompt_embeds"]

    def f(states, image):
        down, mid = pipe.image_retention(latents, 500, states, image)
        residuals = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
        return pipe.unet(latents, 500, states, **residuals).sample

    nothing, by_text, by_image, by_both = f(null, white), f(text, white), f(null, image), f(text, image)
    assert not torch.allclose(by_both, by_text, atol=1e-3)
    assert not torch.allclose(by_both, by_image, atol=1e-3)
    if guidance_order == "text_first":
        states, images = [null, text, text], [white, white, image]
        expected = nothing + 8 * (by_text - nothing) + 1.5 * (by_both - by_text)
    else:
        states, images = [null, null, text], [white, image, image]
        expected = nothing + 1.5 * (by_image - nothing) + 8 * (by_both - by_image)
    terms = guidance_terms(8, 1.5, True, True, guidance_order)
    embeds = {"prompt_embeds": torch.cat(states)}
    predict_noise = pipe.predictor_for(embeds, prompts, torch.cat(images), terms, 1.0, frames=range(4))
    guided = predict_noise(latents, torch.tensor(500), 0)
    torch.testing.assert_close(guided, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "size"),
    [
        ({}, 3),
        ({"guidance_scale": 2.0, "image_guidance_scale": 2.0}, 2),
        ({"guidance_scale": 1.0, "image_guidance_scale": 1.0}, 1),
        ({"guidance_scale": 1.0}, 2),
        ({"guidance_order": "picture_first"}, 3),
        ({"guidance_order": "picture_first", "image_guidance_scale": 1.0}, 2),
        ({"image": None}, 2),
        ({"prompt": None}, 2),
        ({"prompt": None, "image_guidance_scale": 1.0}, 1),
        ({"retention_scale": 0.0}, 2),
    ],
)
def test_branches_run_in_one_batch_and_only_if_they_count(arguments, size):
    pipe = build_image_to_video()
    batches = Batches(pipe)
    frames_of(pipe, **arguments)
    assert batches.sizes == [size, size]  # two steps


def test_text_alone_is_the_white_image():
    pipe = build_image_to_video()
    torch.testing.assert_close(frames_of(pipe, image=None), frames_of(pipe, image=WHITE), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(frames_of(pipe, image=None), frames_of(pipe), atol=1e-3)


def test_image_alone_needs_no_text_and_text_still_counts():
    pipe = build_image_to_video()
    alone = frames_of(pipe, prompt=None)
    assert torch.equal(frames_of(pipe, prompt=None, guidance_scale=3.0), alone)  # of a text that is not there
    torch.testing.assert_close(frames_of(pipe, prompt=""), alone, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(frames_of(pipe, prompt="a boat"), frames_of(pipe, prompt="rain"), atol=1e-3)


def test_without_retention_it_is_the_base_model(tiny_components):
    base = LandscapeVideoPipeline(**tiny_components())
    base.set_progress_bar_config(disable=True)
    expected = sample(base, negative_prompt="snow")
    pipe = build_image_to_video()
    arguments = {"retention_scale": 0.0, "negative_prompt": "snow", "interpolate": True}
    torch.testing.assert_close(frames_of(pipe, **arguments), expected, atol=1e-4, rtol=1e-4)
    bare = build_image_to_video(image_retention=None)
    torch.testing.assert_close(frames_of(bare, **arguments), expected, atol=1e-4, rtol=1e-4)


def test_a_fresh_branch_changes_no_frame():
    pipe = build_image_to_video(fresh=True)
    assert torch.equal(frames_of(pipe, image=None), frames_of(pipe, image=None, retention_scale=0.0))
    # With an image the same predictions come in a batch of three.
    torch.testing.assert_close(frames_of(pipe), frames_of(pipe, retention_scale=0.0), atol=1e-4, rtol=1e-4)


# A first frame that is held


def decoded_image(pipe, image: torch.Tensor) -> torch.Tensor:
    """Return the VAE's reconstruction of an image, `(3, height, width)` in [0, 1]."""
    with torch.no_grad():
        latents = pipe.vae.encode(image[None] * 2 - 1).latent_dist.mode()
        return (pipe.vae.decode(latents).sample[0] / 2 + 0.5).clamp(0, 1)


def test_a_held_first_frame_is_the_image_and_the_others_see_it():
    pipe = build_image_to_video()
    free, held = frames_of(pipe), frames_of(pipe, hold_first_frame=True)
    image = torch.from_numpy(np.array(painting())).permute(2, 0, 1) / 255
    torch.testing.assert_close(held[0, 0], decoded_image(pipe, image), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(held[0, 1:], free[0, 1:], atol=1e-3)
    for arguments in ({"image": None}, {"retention_scale": 0.0}):
        assert torch.equal(frames_of(pipe, **arguments, hold_first_frame=True), frames_of(pipe, **arguments))
    latents = frames_of(pipe, hold_first_frame=True, output_type="latent", prompt=["mist", "rain"])
    assert torch.equal(latents[0, :, 0], latents[1, :, 0]) and not torch.equal(latents[0, :, 1], latents[1, :, 1])


@pytest.mark.parametrize("scheduler", [DDIMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler])
def test_a_held_frame_has_the_noise_of_each_step(scheduler):
    pipe = build_image_to_video()
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    seen = []

    def watch(pipe, step, timestep, tensors):
        seen.append(tensors["latents"])
        return {}

    generator = torch.Generator().manual_seed(0)
    end = frames_of(pipe, hold_first_frame=True, generator=generator, output_type="latent", callback_on_step_end=watch)
    noise = torch.randn(end.shape, generator=torch.Generator().manual_seed(0))[:, :, :1]
    clean, timesteps = end[:, :, :1], pipe.scheduler.timesteps
    torch.testing.assert_close(seen[0][:, :, :1], pipe.scheduler.add_noise(clean, noise, timesteps[1:2]))
    assert torch.equal(seen[1][:, :, :1], clean)


def test_a_held_stage_begins_with_the_end_of_the_one_before():
    pipe = build_image_to_video()
    frames = frames_of(pipe, prompt=None, prompts=["mist", "rain"], hold_first_frame=True)
    torch.testing.assert_close(frames[0, 4], decoded_image(pipe, frames[0, 3]), atol=1e-4, rtol=1e-4)


# Stages


def test_a_stage_begins_with_the_last_frame_of_the_one_before():
    pipe = build_image_to_video()
    together = frames_of(pipe, prompt=None, prompts=["mist", "rain"])
    assert together.shape == (1, 8, 3, 64, 64)
    generator = torch.Generator().manual_seed(0)
    first = frames_of(pipe, prompt="mist", generator=generator)
    second = frames_of(pipe, prompt="rain", generator=generator, image=first[:, -1])
    torch.testing.assert_close(together, torch.cat([first, second], dim=1), atol=1e-4, rtol=1e-4)
    shorter = frames_of(pipe, prompt=None, prompts=["mist", "rain"], drop_duplicate_frame=True)
    assert torch.equal(shorter, torch.cat([together[:, :4], together[:, 5:]], dim=1))


def test_latents_of_stages_are_those_of_their_frames():
    pipe = build_image_to_video()
    latents = frames_of(pipe, prompt=None, prompts=["mist", "rain"], output_type="latent")
    assert latents.shape == (1, 4, 8, 8, 8)
    with torch.no_grad():
        frames = (pipe.decode_latents(latents) / 2 + 0.5).clamp(0, 1).transpose(1, 2)
    expected = frames_of(pipe, prompt=None, prompts=["mist", "rain"])
    torch.testing.assert_close(frames, expected, atol=1e-4, rtol=1e-4)


def test_stages_can_be_without_a_first_image_and_take_its_colors():
    pipe = build_image_to_video()
    arguments = {"prompt": None, "prompts": ["mist", "rain"], "image": None}
    plain, matched = frames_of(pipe, **arguments), frames_of(pipe, **arguments, match_stage_colors=True)
    assert torch.equal(plain[:, :4], matched[:, :4])
    end, begin, before = matched[0, 3], matched[0, 4], plain[0, 4]
    distance = (begin.mean((1, 2)) - end.mean((1, 2))).abs().max()
    assert distance < 0.01
    assert distance < (before.mean((1, 2)) - end.mean((1, 2))).abs().max()


def test_a_callback_sees_each_stage_and_can_stop_it():
    pipe = build_image_to_video()
    calls = []

    def watch(pipe, step, timestep, tensors):
        calls.append((pipe.stage, step, sorted(tensors)))
        pipe._interrupt = len(calls) == 3
        return {}

    names = ["latents", "prompt_embeds"]
    arguments = {"callback_on_step_end": watch, "callback_on_step_end_tensor_inputs": names, "interpolate": True}
    frames = frames_of(pipe, prompt=None, prompts=["mist", "rain", "snow"], **arguments)
    assert calls == [(0, 0, names), (0, 1, names), (1, 0, names)]
    assert frames.shape[1] == 8  # two stages, not interpolated


def test_a_callback_can_change_latents():
    pipe = build_image_to_video()
    halve = frames_of(
        pipe, callback_on_step_end=lambda pipe, step, timestep, tensors: {"latents": 0 * tensors["latents"]}
    )
    assert (halve - halve[:, :1]).abs().max() < 1e-5  # all latents zero: all frames the same


# Batches, outputs


def test_batches_equal_single_calls():
    pipe = build_image_to_video()
    prompts, images = ["mist", "rain"], [painting(1), painting(2, (80, 64))]

    def generators():
        return [torch.Generator().manual_seed(seed) for seed in (4, 5)]

    both = frames_of(pipe, prompt=prompts, image=images, generator=generators())
    for index, generator in enumerate(generators()):
        one = frames_of(pipe, prompt=prompts[index], image=images[index], generator=generator)
        torch.testing.assert_close(both[index : index + 1], one, atol=1e-4, rtol=1e-4)
    same_text = frames_of(pipe, prompt="mist", image=images, generator=generators())
    torch.testing.assert_close(same_text[0], both[0], atol=1e-4, rtol=1e-4)
    same_image = frames_of(pipe, prompt=prompts, image=images[:1], generator=generators(), negative_prompt="a boat")
    for index, generator in enumerate(generators()):
        one = frames_of(pipe, prompt=prompts[index], image=images[0], generator=generator, negative_prompt="a boat")
        torch.testing.assert_close(same_image[index : index + 1], one, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
def test_output_types(output_type):
    pipe = build_image_to_video()
    frames = frames_of(pipe, output_type="pt", interpolate=True)
    (other,) = frames_of_tuple(pipe, output_type=output_type, interpolate=True)
    assert frames.shape == (1, 7, 3, 64, 64)
    if output_type == "pil":
        assert [frame.size for frame in other[0]] == [(64, 64)] * 7
        other = np.stack([np.stack([np.asarray(frame) for frame in clip]) for clip in other]) / 255
    if output_type != "pt":
        other = torch.from_numpy(other).movedim(-1, 2)
    torch.testing.assert_close(other.float(), frames, atol=0.5 / 255 + 1e-6, rtol=0)


def frames_of_tuple(pipe, **arguments):
    defaults = {"num_frames": 4, "num_inference_steps": 2, "generator": torch.Generator().manual_seed(0)}
    defaults |= {"prompt": "misty mountains", "image": painting(), "flow_estimator": still, "return_dict": False}
    return pipe(**(defaults | arguments))


def test_another_size_than_the_models_own():
    pipe = build_image_to_video()
    assert frames_of(pipe, height=48, width=80).shape == (1, 4, 3, 48, 80)
    cut, whole = (frames_of(pipe, image=painting(1, (128, 64)), fit=fit) for fit in ("crop", "pad"))
    assert not torch.allclose(cut, whole, atol=1e-3)


def test_half_precision():
    pipe = build_image_to_video().to(torch.bfloat16)
    frames = frames_of(pipe)
    assert torch.isfinite(frames).all()
    assert frames.dtype == torch.float32


def test_the_progress_bar_has_one_step_for_each_of_a_stage(capsys):
    pipe = build_image_to_video()
    pipe.set_progress_bar_config(disable=False)
    frames_of(pipe, prompt=None, prompts=["mist", "rain"])
    shown = capsys.readouterr().err
    assert shown.count("0/2") == 2 and "2/2" in shown


# Files and other pipelines


def test_saved_and_loaded_it_generates_the_same(tmp_path, caplog):
    pipe = build_image_to_video(motion_norm="frame")
    expected = frames_of(pipe)
    pipe.save_pretrained(tmp_path)
    loaded = LandscapeImageToVideoPipeline.from_pretrained(tmp_path)
    loaded.set_progress_bar_config(disable=True)
    assert loaded.image_retention.config.sparse_causal_mode == "previous"
    assert loaded.image_retention.config.motion_norm == loaded.unet.config.motion_norm == "frame"
    assert torch.equal(frames_of(loaded), expected)
    text_only = LandscapeVideoPipeline.from_pretrained(tmp_path)
    text_only.set_progress_bar_config(disable=True)
    torch.testing.assert_close(sample(text_only, interpolate=False), frames_of(pipe, retention_scale=0.0))
    assert "image_retention" not in caplog.text


def test_a_branch_put_into_a_folder_is_found(tiny_pipeline, tmp_path):
    base, pipe = tiny_pipeline(), build_image_to_video()
    base.save_pretrained(tmp_path)
    assert LandscapeImageToVideoPipeline.from_pretrained(tmp_path).image_retention is None
    pipe.image_retention.save_pretrained(tmp_path / "image_retention")
    found = LandscapeImageToVideoPipeline.from_pretrained(tmp_path)
    found.set_progress_bar_config(disable=True)
    assert torch.equal(frames_of(found), frames_of(pipe))


def test_from_pipe_adds_a_branch(tiny_pipeline):
    base = tiny_pipeline()
    expected = sample(base)
    pipe = LandscapeImageToVideoPipeline.from_pipe(base, image_retention=randomize_branch(branch_for(base.unet)))
    pipe.set_progress_bar_config(disable=True)
    assert torch.equal(frames_of(pipe), frames_of(build_image_to_video()))
    assert torch.equal(sample(base), expected)


def test_the_first_frame_is_held_with_a_vae_that_has_no_distribution():
    pipe = build_image_to_video()
    layers = {"block_out_channels": (8,) * 4, "blocks": (1,) * 4}
    sizes = {f"{side}_block_out_channels": layers["block_out_channels"] for side in ("encoder", "decoder")}
    counts = {f"num_{side}_blocks": layers["blocks"] for side in ("encoder", "decoder")}
    torch.manual_seed(0)
    pipe.vae = AutoencoderTiny(**sizes, **counts)
    held, free = (frames_of(pipe, output_type="latent", hold_first_frame=hold) for hold in (True, False))
    image = pipe.vae.encode(images_to_tensor(painting(), 64, 64)).latents
    assert torch.allclose(held[0, :, 0], image[0], atol=1e-5) and not torch.allclose(free, held, atol=0.1)


def test_a_branch_that_attends_as_it_should_is_not_touched():
    pipe = build_image_to_video()
    config = pipe.image_retention.config
    frames_of(pipe)
    assert pipe.image_retention.config is config  # `torch.compile` would begin anew with another


# What is refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompt": None, "image": None}, "`prompt` or `image` must be given, got neither"),
        ({"prompts": ["mist"]}, "`prompt` must be None when `prompts` is given"),
        ({"prompt": None, "prompts": []}, r"`prompts` must be a list with the text of each stage, got \[\]"),
        ({"prompt": None, "prompts": "mist"}, "`prompts` must be a list with the text of each stage, got 'mist'"),
        ({"prompt": None, "prompts": [None]}, "`prompts` must hold a string per stage, .* got None for a stage"),
        ({"prompt": []}, "`prompt` must hold at least one string, got an empty list"),
        (
            {"prompt": ["mist"] * 3, "image": [painting()] * 2},
            "must have one entry for all clips or one per clip, got lists of 2, 3",
        ),
        ({"prompt": None, "prompts": ["mist", "rain"], "retention_scale": 0.0}, "would not see the end"),
        (
            {"prompt": None, "prompts": ["mist", "rain"], "latents": torch.zeros(1, 4, 4, 8, 8)},
            "`latents` must be None with several stages, got 2 `prompts`",
        ),
        ({"output_type": "latent", "match_stage_colors": True}, "`match_stage_colors` needs frames"),
        ({"guidance_order": "both"}, "`guidance_order` must be one of text_first, picture_first, got 'both'"),
        ({"fit": "stretch"}, "`fit` must be one of crop, pad, got 'stretch'"),
        ({"output_type": "gif"}, "`output_type` must be one of pil, np, pt, latent, got 'gif'"),
        ({"sofp_mode": "cubic"}, "`sofp_mode` must be one of .*, got 'cubic'"),
        ({"flow_estimator": "farneback"}, "`flow_estimator` must be one of .*, got 'farneback'"),
        ({"image_guidance_scale": float("nan")}, "`image_guidance_scale` must be a finite number, got nan"),
        ({"retention_scale": float("inf")}, "`retention_scale` must be a finite number, got inf"),
        ({"num_frames": 40, "context_length": 33}, "`context_length` must be at most 32, .*, got 33"),
        ({"num_inference_steps": 0}, "`num_inference_steps` must be a whole number of at least 1, got 0"),
        ({"height": 60}, "`height` must be a positive multiple of 8, got 60"),
        ({"latents": torch.zeros(1, 4, 5, 8, 8)}, r"must have the shape \(1, 4, 4, 8, 8\), .*, got \(1, 4, 5, 8, 8\)"),
        ({"image": [painting()] * 2, "latents": torch.zeros(1, 4, 4, 8, 8)}, r"must have the shape \(2, 4, 4, 8, 8\)"),
        ({"prompt": None, "retention_scale": 0}, "`retention_scale` must not be 0 without a `prompt`"),
        ({"prompt": ("mist", "rain")}, r"`prompt` must be a string, a dictionary or a list, got \('mist', 'rain'\)"),
        (
            {"negative_prompt": ("mist",)},
            r"`negative_prompt` must be a string, a dictionary or a list, got \('mist',\)",
        ),
        ({"eta": -0.1}, "`eta` must be between 0 and 1, got -0.1"),
        ({"decode_chunk_size": 0}, "`decode_chunk_size` must be a whole number of at least 1, got 0"),
        ({"image": np.zeros((64, 64), np.float32)}, r"must have the shape \(batch, 3, 64, 64\), got \(64, 64\)"),
        ({"image": torch.full((3, 64, 64), torch.nan)}, r"must be in \[0, 1\], got torch.float32 from nan to nan"),
        ({"callback_on_step_end_tensor_inputs": ["images"]}, "must be among latents, prompt_embeds, got 'images'"),
        ({"image": torch.zeros(3, 32, 32)}, r"must have the shape \(batch, 3, 64, 64\), got \(1, 3, 32, 32\)"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line_before_any_step(arguments, message):
    pipe = build_image_to_video()
    steps = Steps(pipe)
    with pytest.raises(ValueError, match=message) as caught:
        frames_of(pipe, **arguments)
    assert "\n" not in str(caught.value)
    assert steps.count == 0


def test_unknown_keywords_and_other_objects_are_refused():
    pipe = build_image_to_video()
    with pytest.raises(TypeError, match="interpolat"):
        frames_of(pipe, interpolat=False)
    with pytest.raises(TypeError, match="`image` must be a PIL image, a list of them, or a tensor, got str"):
        frames_of(pipe, image="painting.png")


def test_a_branch_that_does_not_belong_here_is_refused(tiny_components):
    pipe = build_image_to_video()
    other = branch_for(pipe.unet)
    other.register_to_config(cross_attention_dim=32)
    with pytest.raises(ValueError, match="`image_retention` must fit `unet`: cross_attention_dim must be 16, got 32"):
        LandscapeImageToVideoPipeline(**tiny_components(), image_retention=other)
    pipe.image_retention = other
    with pytest.raises(ValueError, match="must fit `unet`"):
        frames_of(pipe)
    pipe.image_retention = randomize_branch(branch_for(pipe.unet, image_channels=(8, 8, 8)))
    with pytest.raises(ValueError, match="must take images 8 times as large as the latents, .* a branch for 4 times"):
        frames_of(pipe)
    pipe.image_retention = None
    with pytest.raises(
        ValueError, match="`image_retention` must be a component of this pipeline, or `retention_scale` must be 0"
    ):
        frames_of(pipe)


def test_free_noise_and_ip_adapters_are_refused():
    pipe = build_image_to_video()
    pipe.enable_free_noise(context_length=8, context_stride=4)
    with pytest.raises(ValueError, match="FreeNoise is not supported with images; call `pipe.disable_free_noise"):
        frames_of(pipe)
    pipe.disable_free_noise()
    pipe.unet.config.encoder_hid_dim_type = "ip_image_proj"  # as `load_ip_adapter` leaves it
    with pytest.raises(ValueError, match="IP-Adapters are not supported with images"):
        frames_of(pipe)


def test_a_long_text_of_any_stage_is_told_before_the_first_step(caplog):
    pipe, told = build_image_to_video(), []

    def listen(pipe, step, timestep, tensors):
        told.append([record.getMessage() for record in caplog.records if "truncated" in record.getMessage()])
        return tensors

    frames_of(pipe, prompt=None, prompts=["mist", "misty mountains " * 38 + "boat"], callback_on_step_end=listen)
    assert all(len(messages) == 1 and "mountains boat" in messages[0] for messages in told) and told


@pytest.mark.parametrize("with_image", [True, False], ids=["image to video", "text to video"])
def test_offloading_changes_no_frame(with_image, tiny_pipeline):
    norm = {"motion_norm": "frame"}
    pipe = build_image_to_video(**norm) if with_image else tiny_pipeline(**norm)
    generate = frames_of if with_image else sample
    expected = generate(pipe)
    pipe.enable_model_cpu_offload(device="cpu")  # sequential offloading fails on a CPU in stock diffusers, too
    assert torch.equal(generate(pipe), expected)
    used = [pipe.text_encoder, pipe.unet, pipe.vae, *([pipe.image_retention] if with_image else [])]
    assert all(hasattr(module, "_hf_hook") for module in used)
