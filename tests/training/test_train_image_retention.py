"""`train_image_retention.py`: trained parameters, exports, resumed runs, validation."""

import json
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, MotionAdapter
from PIL import Image
from safetensors.torch import load_file

from landscape_video.training.data.first_frames import WithFirstFrames
from landscape_video.training.data.latent_store import LatentCache, write_first_frames, write_shard
from landscape_video.training.objectives.motion_models import load_motion_unet, load_noise_scheduler
from landscape_video.training.objectives.motion_objective import motion_losses
from landscape_video.training.objectives.retention_recipe import (
    UNetWithImageRetention,
    build_unet_with_image_retention,
    image_channels_for,
    load_branch,
)
from landscape_video.training.settings.training import RetentionTraining
from motion_unets import inputs, moving_unet
from pipeline_landscape_video import ImageRetention
from pipeline_landscape_video.video_io import iterate_video, write_video
from retention_runs import run_retention, write_cache_with_first_frames, write_motion_adapter
from tiny_models import build_motion_adapter, build_scheduler
from training_runs import WEIGHTS, digest, log_of, status_of, write_latent_cache
from video_files import moving_frames


@pytest.fixture(scope="module")
def adapter(tmp_path_factory) -> Path:
    return write_motion_adapter(tmp_path_factory.mktemp("adapter"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_cache_with_first_frames(tmp_path_factory.mktemp("clips"))


@pytest.fixture
def train(image_model, adapter, clips, tmp_path):
    """Run the trainer in this process: `train(name, *flags, data=clips)` gives (exit code, output folder)."""

    def train(name: str, *flags: str, data: Path = clips) -> tuple[int, Path]:
        return run_retention(image_model, adapter, data, tmp_path / name, *flags), tmp_path / name

    return train


def test_the_branch_is_exported_and_frozen_motion_modules_do_not_change(train, adapter):
    code, output = train("run", "--max_train_steps", "3", "--use_ema", "--freeze_motion", "--seed", "5")
    assert code == 0 and status_of(output) == {"status": "finished", "step": 3, "exit_code": 0, "reason": None}
    branch = ImageRetention.from_pretrained(output / "image_retention")
    assert branch.config.sparse_causal_mode == "previous" and branch.image_factor == 8
    assert not (output / "motion_adapter").exists()

    state = load_file(output / "checkpoint-3" / "training_state.safetensors")
    trained = {key.removeprefix("weights/") for key in state if key.startswith("weights/")}
    assert trained and all(name.startswith("image_retention.") for name in trained)
    weights = load_file(output / "image_retention" / WEIGHTS)
    assert all(weight.dtype == torch.float32 for weight in weights.values())
    averages = {key.removeprefix("ema/image_retention."): state[key] for key in state if key.startswith("ema/")}
    assert all(torch.equal(weights[name], average) for name, average in averages.items())
    idle = {name for name in weights if ".attn2.to_q." in name or ".attn2.to_k." in name if "motion_modules" in name}
    assert idle and {f"image_retention.{name}" for name in weights.keys() - idle if "pos_embed" not in name} == trained
    assert all(weights[name].abs().max() > 0 for name in weights if name.startswith("zero_conv"))
    record = json.loads((output / "image_retention" / "training.json").read_text())
    assert record["settings"]["image_dropout_prob"] == 0.1 and record["figures"]["clips"] == 5


def test_motion_modules_train_with_the_branch_by_default(train, adapter):
    code, output = train("run", "--max_train_steps", "2", "--learning_rate", "1e-2", "--contrastive_weight", "0.07")
    assert code == 0 and log_of(output)[-1]["contrastive_loss"] > 0
    before, after = (load_file(folder / WEIGHTS) for folder in (adapter, output / "motion_adapter"))
    assert before.keys() == after.keys()
    assert any((before[name] - after[name]).abs().max() > 1e-3 for name in before if ".proj_out." in name)
    assert MotionAdapter.from_pretrained(output / "motion_adapter").config.sparse_causal_mode == "previous"
    assert (output / "checkpoint-2" / "image_retention" / WEIGHTS).is_file()
    assert digest(output / "checkpoint-2" / "motion_adapter" / WEIGHTS) == digest(output / "motion_adapter" / WEIGHTS)


def test_a_resumed_run_ends_with_the_same_bits(train):
    flags = ("--use_ema", "--logging_steps", "1", "--image_dropout_prob", "0.5", "--optimizer", "muon")
    code, whole = train("whole", *flags, "--max_train_steps", "4")
    assert code == 0
    code, parts = train("parts", *flags, "--max_train_minutes", "1e-9")
    assert code == 0 and status_of(parts)["status"] == "time_over"
    flags = (*flags, "--max_train_steps", "4", "--resume_from_checkpoint", "latest", "--dataloader_num_workers", "1")
    code, parts = train("parts", *flags)
    assert code == 0 and [line["step"] for line in log_of(parts)] == [1, 2, 3, 4]
    files = ("checkpoint-4/training_state.safetensors", f"image_retention/{WEIGHTS}", f"motion_adapter/{WEIGHTS}")
    for file in files:
        assert digest(whole / file) == digest(parts / file), file


def test_first_frame_weight_changes_the_loss(train):
    flags = ("--max_train_steps", "1", "--freeze_motion")
    losses = [
        log_of(train(f"run{weight}", *flags, "--first_frame_weight", weight)[1])[-1]["diffusion_loss"]
        for weight in ("1", "20")
    ]
    assert losses[0] != losses[1]


def test_clips_are_slowed_down_around_their_first_frame(train, monkeypatch):
    asked = []

    def recorded(*arguments, **keywords):
        asked.append(keywords)
        return motion_losses(*arguments, **keywords)

    monkeypatch.setattr("landscape_video.training.objectives.motion_objective.motion_losses", recorded)
    flags = ("--max_train_steps", "1", "--freeze_motion", "--caption_dropout_prob", "0", "--slow_motion_prob")
    losses = [log_of(train(f"run{share}", *flags, share)[1])[-1]["diffusion_loss"] for share in "01"]
    assert losses[0] != losses[1]
    assert asked[0]["speed"] is None and (asked[1]["speed"] < 1).all()
    assert asked[1]["speed_anchor"] == 0


def test_a_branch_trained_on_single_frames_can_continue_on_clips(train, caplog):
    flags = ("--max_train_steps", "1", "--freeze_motion")
    validation = ("--validation_steps", "1", "--validation_inference_steps", "1")
    code, frames = train("frames", *flags, "--num_frames_range", "1", *validation)
    assert code == 0
    (row,) = [json.loads(line) for line in (frames / "validation.jsonl").read_text().splitlines()]
    assert "fff_ssim" in row and "dynamic_degree" not in row and "does not move" not in caplog.text
    begins_with = ("--image_retention_name_or_path", str(frames / "image_retention"))
    assert train("clips", *flags, *begins_with)[0] == 0


def test_all_parameters_are_on_the_device(image_model, adapter):
    settings = RetentionTraining.from_options(
        pretrained_model_name_or_path=str(image_model),
        motion_adapter_name_or_path=str(adapter),
        train_data_dir=Path("clips"),
        freeze_motion=True,
    )
    device = torch.device("meta")  # another than the CPU, and available everywhere
    model = build_unet_with_image_retention(settings, (4, 8, 8), (64, 64), torch.float32, device)
    assert {tensor.device for tensor in (*model.parameters(), *model.buffers())} == {device}
    assert any(parameter.requires_grad for parameter in model.parameters())


def test_the_branch_learns_to_follow_the_image(image_model, adapter, tmp_path):
    """Train on clips with one value in all latents, which only the gray level of the first frame tells."""
    model, data = tmp_path / "model", tmp_path / "levels"
    shutil.copytree(image_model, model)
    DDIMScheduler.from_config(build_scheduler().config, prediction_type="v_prediction").save_pretrained(
        model / "scheduler"
    )
    data.mkdir()
    levels = torch.tensor([-2.0, 2.0])
    latents = levels[:, None, None, None, None].expand(-1, 4, 4, 8, 8)  # (clips, frames, channels, height, width)
    gray = (levels * 50 + 128).to(torch.uint8)
    write_first_frames(write_shard(data, 0, latents), gray[:, None, None, None, None].expand(-1, 1, 3, 64, 64))
    (data / "captions.jsonl").write_text('{"text": "mist"}\n' * 2)
    flags = ("--freeze_motion", "--num_frames_range", "4", "--max_train_steps", "40", "--learning_rate", "3e-3")
    assert run_retention(model, adapter, data, tmp_path / "run", *flags) == 0

    unet = load_motion_unet(str(model), motion_adapter=str(adapter))
    branch = load_branch(str(tmp_path / "run" / "image_retention"), unet, (16, 32, 96, 256))
    unet_with_image_retention = UNetWithImageRetention(unet, branch).eval()
    clips = WithFirstFrames(LatentCache(data), None)
    image = torch.stack([clips.read(0, 0), clips.read(1, 0)])
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def loss(image: torch.Tensor) -> float:
        text, timesteps, scheduler = torch.zeros(2, 7, 16), torch.tensor([900, 900]), load_noise_scheduler(str(model))
        seeing = partial(unet_with_image_retention, image=image)
        return motion_losses(seeing, None, scheduler, latents, text, noise, timesteps)["total"].item()

    assert loss(image) < 0.75 * loss(image.flip(0))


def test_a_new_branch_changes_nothing_and_a_missing_image_is_white():
    unet = moving_unet()
    latents, text = inputs()
    text = text.repeat_interleave(latents.shape[2], dim=0)
    branch = ImageRetention.from_unet(unet, generator=torch.Generator().manual_seed(0))
    model = UNetWithImageRetention(unet, branch)
    with torch.no_grad():
        plain = unet(latents, 500, text).sample
        assert torch.equal(model(latents, 500, text, torch.zeros(2, 3, 64, 64)).sample, plain)
        for layer in (branch.image_embedding.conv_out, *branch.zero_convs):
            torch.nn.init.normal_(layer.weight)
        assert torch.equal(
            model(latents, 500, text).sample, model(latents, 500, text, torch.ones(2, 3, 64, 64)).sample
        )
        assert not torch.equal(model(latents, 500, text, torch.zeros(2, 3, 64, 64)).sample, plain)


def test_images_must_be_2_4_or_8_times_as_large_as_latents():
    assert image_channels_for((4, 8, 8), (64, 64)) == (16, 32, 96, 256)
    assert image_channels_for((4, 16, 8), (64, 32)) == (16, 32, 96)
    for size in ((128, 128), (8, 8), (40, 40), (64, 32)):
        with pytest.raises(ValueError, match="must be 2, 4 or 8 times as large"):
            image_channels_for((4, 8, 8), size)


def test_a_branch_of_another_model_is_refused(tmp_path):
    unet = moving_unet()
    ImageRetention.from_unet(unet, (16, 32)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="2 times as large as the latents, but the images of the clips are 8 times"):
        load_branch(str(tmp_path), unet, (16, 32, 96, 256))
    assert load_branch(str(tmp_path), unet, (16, 32)).training is False


@pytest.mark.parametrize("precision", ["no", "bf16"])
def test_gradient_checkpointing_changes_weights_only_by_rounding(train, precision):
    flags = ("--max_train_steps", "2", "--freeze_motion", "--mixed_precision", precision)
    _, plain = train("plain", *flags)
    code, checkpointed = train("checkpointed", *flags, "--gradient_checkpointing")
    assert code == 0
    first, second = (load_file(path / "image_retention" / WEIGHTS) for path in (plain, checkpointed))
    for name, weight in first.items():
        torch.testing.assert_close(second[name], weight, atol=2e-3, rtol=0, msg=name)
        assert weight.dtype == torch.float32


def test_validation_animates_images_and_measures_their_similarity(train, tmp_path, caplog):
    files = [str(tmp_path / f"{name}.png") for name in ("wide", "gray")]
    Image.new("RGB", (90, 70), (200, 120, 40)).save(files[0])
    Image.new("L", (64, 64), 90).save(files[1])
    flags = ("--max_train_steps", "2", "--use_ema", "--freeze_motion", "--mixed_precision", "bf16")
    _, plain = train("plain", *flags)
    flags += ("--validation_steps", "1", "--validation_inference_steps", "1", "--validation_images", *files)
    code, output = train("run", *flags, "--validation_prompts", "mist", "a boat")
    assert code == 0
    assert digest(output / "image_retention" / WEIGHTS) == digest(plain / "image_retention" / WEIGHTS)
    rows = [json.loads(line) for line in (output / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and all(-1 <= row["fff_ssim"] <= 1 for row in rows)
    assert "FFF-SSIM of the autoencoder's reconstructions: " in caplog.text
    frames = [frame.pixels for frame in iterate_video(output / "validation" / "step-000002-2.mp4")]
    assert len(frames) == 8 and frames[0].shape == (64, 64, 3)


def test_unreadable_images_end_the_run_before_videos_are_encoded(train, tmp_path):
    broken, videos = tmp_path / "broken.png", tmp_path / "videos"
    broken.write_bytes(b"not an image")
    videos.mkdir()
    write_video(videos / "0.mp4", np.stack(moving_frames(8, 64, 64)), fps=8)
    (videos / "metadata.jsonl").write_text('{"file_name": "0.mp4", "text": "mist"}\n')
    flags = ("--validation_steps", "1", "--validation_images", str(broken), "--validation_prompts", "mist")
    flags += ("--max_train_steps", "1", "--resolution", "64", "--sample_stride", "1")
    code, output = train("broken", *flags, "--cache_dir", str(tmp_path / "cache"), data=videos)
    assert code == 1 and "broken.png: not a usable image: cannot identify image file" in status_of(output)["reason"]
    assert not list(tmp_path.glob("cache/latents-*"))
    Image.new("L", (64, 64), 90).save(broken)
    code, _ = train("mended", *flags, "--cache_dir", str(tmp_path / "cache"), data=videos)
    assert code == 0 and list(tmp_path.glob("cache/latents-*"))


def test_models_and_clips_that_do_not_fit_end_with_one_line(train, tmp_path):
    code, output = train("no_images", data=write_latent_cache(tmp_path))
    assert code == 1 and "cache_latents.py --first_frames" in status_of(output)["reason"]
    other = moving_unet(mode=None)
    ImageRetention.from_unet(other, (16, 32)).save_pretrained(tmp_path / "branch")
    code, output = train("other", "--image_retention_name_or_path", str(tmp_path / "branch"))
    assert code == 1 and "2 times as large" in status_of(output)["reason"]
    build_motion_adapter(block_out_channels=(16, 16)).save_pretrained(tmp_path / "wide")
    code, output = train("wide", "--motion_adapter_name_or_path", str(tmp_path / "wide"))
    assert code == 1 and status_of(output)["status"] == "failed"
