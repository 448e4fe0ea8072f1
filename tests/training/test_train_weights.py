"""`train_motion.py`: trained and frozen parameters, and exports."""

import json

import pytest
import torch
from diffusers import MotionAdapter
from safetensors.torch import load_file

from cache_latents import run as encode
from motion_adapter.convert import save_animatediff
from motion_adapter.noise_adapter import NoiseAdapter
from motion_adapter.weights_files import METADATA, read_metadata
from pipeline_landscape_video.video_io import write_video
from training_runs import WEIGHTS, digest, log_of, status_of


def test_the_export_is_a_plain_motion_adapter(train):
    _, output = train("run", "--max_train_steps", "2", "--use_ema")
    adapter = MotionAdapter.from_pretrained(output / "motion_adapter")
    assert type(adapter) is MotionAdapter and adapter.config.sparse_causal_mode == "previous"
    assert adapter.config.motion_norm == "clip"
    file = output / "motion_adapter" / WEIGHTS
    header = json.loads(read_metadata(file)[METADATA])  # for ComfyUI, which gets this file alone
    assert header["sparse_causal_mode"] == "previous" and header["motion_norm"] == "clip"
    weights = load_file(file)
    assert weights.keys() == adapter.state_dict().keys() and any(key.endswith("pos_embed.pe") for key in weights)
    assert all(torch.isfinite(weight).all() and weight.dtype == torch.float32 for weight in weights.values())
    noise_adapter = NoiseAdapter.from_pretrained(output / "noise_adapter")
    assert noise_adapter.config.in_channels == 4 and noise_adapter.config.pool_size == 8

    state = load_file(output / "checkpoint-2" / "training_state.safetensors")
    averages = {key.removeprefix("ema/"): value for key, value in state.items() if key.startswith("ema/")}
    assert averages and all(torch.equal(weights[name], average) for name, average in averages.items())
    assert not torch.equal(state["weights/" + next(iter(averages))], averages[next(iter(averages))])


def test_motion_modules_and_noise_adapter_train_and_nothing_else(train, image_model):
    before = {path: digest(path) for path in image_model.rglob("*") if path.is_file()}
    _, start = train("start", "--max_train_steps", "1", "--learning_rate", "1e-12")
    _, output = train("run", "--max_train_steps", "3", "--learning_rate", "1e-2")
    initial, final = (load_file(path / "motion_adapter" / WEIGHTS) for path in (start, output))
    moved = {name for name in initial if (initial[name] - final[name]).abs().max() > 1e-6}
    dead = {name for name in initial if ".attn2.to_q." in name or ".attn2.to_k." in name}
    assert moved == {name for name in initial if "pos_embed" not in name} - dead
    state = load_file(output / "checkpoint-3" / "training_state.safetensors")
    trained = {key.removeprefix("weights/") for key in state if key.startswith("weights/")}
    assert {name for name in trained if not name.startswith("noise_adapter.")} == moved
    assert {name for name in trained if name.startswith("noise_adapter.")} and before == {
        path: digest(path) for path in image_model.rglob("*") if path.is_file()
    }


def test_a_new_adapter_starts_as_the_image_model(train):
    _, output = train("run", "--max_train_steps", "1", "--learning_rate", "1e-12")
    weights = load_file(output / "motion_adapter" / WEIGHTS)
    outputs = [weight for name, weight in weights.items() if ".motion_modules.0.proj_out." in name]
    assert outputs and all(weight.abs().max() < 1e-9 for weight in outputs)


def test_training_starts_from_a_given_adapter(train, tmp_path):
    _, given = train("given", "--max_train_steps", "2", "--motion_norm", "frame")
    flags = ("--motion_adapter_name_or_path", str(given / "motion_adapter"), "--learning_rate", "1e-12")
    _, output = train("run", "--max_train_steps", "1", *flags)
    before, after = (load_file(path / "motion_adapter" / WEIGHTS) for path in (given, output))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    save_animatediff(MotionAdapter.from_pretrained(given / "motion_adapter"), tmp_path / "animatediff.safetensors")
    _, from_file = train(
        "file",
        "--max_train_steps",
        "1",
        *flags,
        "--motion_adapter_name_or_path",
        str(tmp_path / "animatediff.safetensors"),
    )
    assert digest(from_file / "motion_adapter" / WEIGHTS) == digest(output / "motion_adapter" / WEIGHTS)
    assert MotionAdapter.load_config(from_file / "motion_adapter")["motion_norm"] == "frame"
    _, other = train(
        "other", "--max_train_steps", "1", *flags, "--sparse_causal_mode", "full", "--motion_norm", "clip"
    )
    config = MotionAdapter.load_config(other / "motion_adapter")
    assert (config["sparse_causal_mode"], config["motion_norm"]) == ("full", "clip")


def test_the_loss_falls(train):
    flags = ("--num_frames_range", "6", "--caption_dropout_prob", "0", "--use_ema", "--logging_steps", "20")
    _, output = train("run", "--max_train_steps", "60", *flags, "--learning_rate", "3e-3")
    first, *_, last = log_of(output)
    assert last["contrastive_loss"] < first["contrastive_loss"] and last["diffusion_loss"] < first["diffusion_loss"]
    assert first.keys() == {
        "step", "diffusion_loss", "contrastive_loss", "grad_norm", "learning_rate", "clips_per_second", "seconds",
    }  # fmt: skip


@pytest.mark.parametrize(("flag", "attention"), [("--no_versatile", "attn1"), ("--no_sparse_causal", "attn2")])
def test_removing_an_attention_fixes_its_output_at_zero(train, flag, attention):
    _, output = train("run", "--max_train_steps", "2", flag)
    weights = load_file(output / "motion_adapter" / WEIGHTS)
    removed = [name for name in weights if f".{attention}.to_out." in name]
    other = [name for name in weights if ".to_out." in name and name not in removed]
    assert removed and all(not weights[name].any() for name in removed) and all(weights[name].any() for name in other)
    state = load_file(output / "checkpoint-2" / "training_state.safetensors")
    assert not any(f".{attention}." in name for name in state)


def test_without_contrastive_loss_there_is_no_noise_adapter(train):
    _, output = train("run", "--max_train_steps", "1", "--contrastive_weight", "0", "--num_frames_range", "2")
    assert not (output / "noise_adapter").exists() and log_of(output)[0]["contrastive_loss"] == 0


def test_videos_train_as_their_latents_do(train, image_model, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    generator = torch.Generator().manual_seed(0)
    for number in range(2):
        frames = torch.randint(0, 256, (6, 64, 64, 3), dtype=torch.uint8, generator=generator)
        write_video(folder / f"{number}.mp4", frames.numpy(), fps=8)
    rows = [{"file_name": f"{number}.mp4", "text": "mist"} for number in range(2)]
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    flags = ("--num_frames_range", "6", "--max_train_steps", "2", "--logging_steps", "1")

    code, from_videos = train("run", *flags, "--resolution", "64", "--sample_stride", "1", data=folder)
    assert code == 0
    required = ["--pretrained_model_name_or_path", str(image_model), "--train_data_dir", str(folder)]
    assert encode([*required, "--output_dir", str(tmp_path / "latents"), "--resolution", "64"]) == 0
    _, from_latents = train("cached", *flags, data=tmp_path / "latents")
    for video_line, latent_line in zip(log_of(from_videos), log_of(from_latents), strict=True):
        assert video_line["diffusion_loss"] == pytest.approx(latent_line["diffusion_loss"], rel=1e-3)

    code, output = train("paper", *flags, "--resolution", "64", data=folder)  # stride 4
    assert code == 1
    assert "0.mp4: 6 frames, but 6 frames at a stride of 4 take at least 21" in status_of(output)["reason"]


def test_scaled_linear_betas_become_linear(train, image_model, tmp_path, caplog):
    path = image_model / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    _, linear = train("linear", "--max_train_steps", "1")
    path.write_text(json.dumps(config | {"beta_schedule": "scaled_linear"}))
    try:
        _, scaled = train("scaled", "--max_train_steps", "1")
    finally:
        path.write_text(json.dumps(config))
    assert "training with linear ones" in caplog.text
    assert digest(linear / "motion_adapter" / WEIGHTS) == digest(scaled / "motion_adapter" / WEIGHTS)
