"""`train_motion.py` from flags to files: what trains, what resumes to the same bits, and what is refused."""

import hashlib
import json
import os
import re
import signal
import threading
from pathlib import Path

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState, PartialState
from diffusers import MotionAdapter, UNetMotionModel
from safetensors import SafetensorError
from safetensors.torch import load_file

import training_state
from checkpoints import list_checkpoints, verify_checkpoint
from latent_cache import run as encode
from latent_cache import write_shard
from motion_adapter.noise_adapter import NoiseAdapter
from pipeline_landscape_video.video_io import write_video
from tiny_models import build_components
from train_motion import learning_rate_at, run
from train_motion_args import parse_args


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    """An image model in Stable Diffusion's layout, scaled_linear betas included."""
    directory = tmp_path_factory.mktemp("model")
    components = build_components()
    for name in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        components[name].save_pretrained(directory / name)
    return directory


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    """Five clips of 12 frames with two captions each; with batches of 2, steps and epochs do not meet."""
    directory = tmp_path_factory.mktemp("cache")
    generator = torch.Generator().manual_seed(0)
    for number, clips in enumerate((3, 2)):
        write_shard(directory, number, torch.randn(clips, 12, 4, 8, 8, generator=generator))
    rows = [{"text": f"mist over mountains {number}", "texts": [f"a boat, {number}"]} for number in range(5)]
    (directory / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return directory


@pytest.fixture
def train(model, cache, tmp_path):
    """Run the trainer in this process: `train(name, *flags)` returns (exit code, output directory)."""

    def train(name: str, *flags: str, data: Path = cache) -> tuple[int, Path]:
        for state in (AcceleratorState, GradientState, PartialState):  # as a new process would find it
            state._reset_state()
        output_dir = tmp_path / name
        required = ["--pretrained_model_name_or_path", str(model), "--train_data_dir", str(data)]
        defaults = ["--num_frames_range", "6", "8", "--train_batch_size", "2", "--learning_rate", "1e-3"]
        code = run([*required, *defaults, "--output_dir", str(output_dir), *flags])
        return code, output_dir

    return train


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def digests(output_dir: Path, step: int) -> list[str]:
    """Of all that a run ends with: both adapters, and the weights, moments and averages in the last checkpoint."""
    return [
        digest(output_dir / "motion_adapter" / WEIGHTS),
        digest(output_dir / "noise_adapter" / WEIGHTS),
        digest(output_dir / f"checkpoint-{step}" / "training_state.safetensors"),
    ]


def log_of(output_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (output_dir / "log.jsonl").read_text().splitlines()]


def status_of(output_dir: Path) -> dict:
    return json.loads((output_dir / "status.json").read_text())


# Resuming


VARIED = ("--use_ema", "--sample_stride", "1", "1", "--caption_dropout_prob", "0.5", "--logging_steps", "1")


def test_a_resumed_run_ends_with_the_same_bits(train):
    code, whole = train("whole", *VARIED, "--max_train_steps", "6")
    assert code == 0 and status_of(whole)["status"] == "finished"

    # Stopped after each step by its time limit; the last leg reads its clips in two workers.
    for _ in range(2):
        code, parts = train("parts", *VARIED, "--max_train_minutes", "1e-9", "--resume_from_checkpoint", "latest")
        assert code == 0 and status_of(parts)["status"] == "time_over"
    code, parts = train(
        "parts", *VARIED, "--max_train_steps", "6", "--resume_from_checkpoint", "latest",
        "--dataloader_num_workers", "2",
    )  # fmt: skip
    assert code == 0
    assert digests(whole, 6) == digests(parts, 6)
    losses = [[(line["step"], line["diffusion_loss"]) for line in log_of(output)] for output in (whole, parts)]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_the_run_goes_on_later(train, tmp_path, number):
    log = tmp_path / "stopped" / "log.jsonl"

    ended = threading.Event()

    def interrupt() -> None:
        while not log.exists() and not ended.wait(0.01):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    code, stopped = train("stopped", *VARIED, "--max_train_steps", "100000")
    ended.set()
    thread.join()
    assert code == 75 and signal.getsignal(number) == before
    status = status_of(stopped)
    assert status == {"status": "stopped", "step": status["step"], "exit_code": 75, "reason": number.name}
    (checkpoint,) = list_checkpoints(stopped)
    assert checkpoint.name == f"checkpoint-{status['step']}"
    verify_checkpoint(checkpoint)

    steps = str(status["step"] + 1)
    code, _ = train("stopped", *VARIED, "--max_train_steps", steps, "--resume_from_checkpoint", "latest")
    assert code == 0
    _, whole = train("whole", *VARIED, "--max_train_steps", steps)
    assert digests(whole, int(steps)) == digests(stopped, int(steps))


def test_resuming_skips_a_damaged_checkpoint_and_says_so(train, caplog):
    _, output = train("run", "--max_train_steps", "3", "--checkpointing_steps", "1")
    expected = digests(output, 3)
    assert [path.name for path in list_checkpoints(output)] == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    state = output / "checkpoint-3" / "training_state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    code, _ = train("run", "--max_train_steps", "3", "--resume_from_checkpoint", "latest")
    assert code == 0 and "Skipped checkpoint-3" in caplog.text and "Resumed from" in caplog.text
    assert digests(output, 3) == expected
    code, _ = train("other", "--max_train_steps", "3", "--resume_from_checkpoint", str(output / "checkpoint-1"))
    assert code == 0 and digests(output.parent / "other", 3) == expected


def test_changed_settings_are_said(train, caplog):
    train("run", "--max_train_steps", "1")
    train("run", "--max_train_steps", "2", "--seed", "5", "--resume_from_checkpoint", "latest")
    assert "seed was 0 when checkpoint-1 was saved, and is 5 now" in caplog.text


def test_the_limit_on_checkpoints_acts(train):
    _, output = train("run", "--max_train_steps", "3", "--checkpointing_steps", "1", "--checkpoints_total_limit", "1")
    assert [path.name for path in list_checkpoints(output)] == ["checkpoint-3"]


# What trains, and what comes out


def test_what_comes_out_is_a_plain_motion_adapter(train):
    _, output = train("run", "--max_train_steps", "2", "--use_ema")
    adapter = MotionAdapter.from_pretrained(output / "motion_adapter")
    assert type(adapter) is MotionAdapter and adapter.config.sparse_causal_mode == "previous"
    weights = load_file(output / "motion_adapter" / WEIGHTS)
    assert weights.keys() == adapter.state_dict().keys() and any(key.endswith("pos_embed.pe") for key in weights)
    assert all(torch.isfinite(weight).all() and weight.dtype == torch.float32 for weight in weights.values())
    noise_adapter = NoiseAdapter.from_pretrained(output / "noise_adapter")
    assert noise_adapter.config.in_channels == 4 and noise_adapter.config.pool_size == 8

    state = load_file(output / "checkpoint-2" / "training_state.safetensors")
    averages = {key.removeprefix("ema/"): value for key, value in state.items() if key.startswith("ema/")}
    assert averages and all(torch.equal(weights[name], average) for name, average in averages.items())
    assert not torch.equal(state["weights/" + next(iter(averages))], averages[next(iter(averages))])


def test_motion_modules_and_noise_adapter_train_and_nothing_else(train, model):
    before = {path: digest(path) for path in model.rglob("*") if path.is_file()}
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
        path: digest(path) for path in model.rglob("*") if path.is_file()
    }


def test_a_new_adapter_starts_as_the_image_model(train):
    _, output = train("run", "--max_train_steps", "1", "--learning_rate", "1e-12")
    weights = load_file(output / "motion_adapter" / WEIGHTS)
    outputs = [weight for name, weight in weights.items() if ".motion_modules.0.proj_out." in name]
    assert outputs and all(weight.abs().max() < 1e-9 for weight in outputs)


def test_training_goes_on_from_a_given_adapter(train):
    _, given = train("given", "--max_train_steps", "2")
    flags = ("--motion_adapter_name_or_path", str(given / "motion_adapter"), "--learning_rate", "1e-12")
    _, output = train("run", "--max_train_steps", "1", *flags)
    before, after = (load_file(path / "motion_adapter" / WEIGHTS) for path in (given, output))
    torch.testing.assert_close(after, before, rtol=0, atol=1e-9)
    _, other = train("other", "--max_train_steps", "1", *flags, "--sparse_causal_mode", "full")
    assert MotionAdapter.load_config(other / "motion_adapter")["sparse_causal_mode"] == "full"


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


@pytest.fixture(scope="module")
def default_weights() -> dict[str, str]:
    return {}


@pytest.mark.parametrize(
    "flags",
    [
        "--sparse_causal_mode first_previous",
        "--sparse_causal_mode full",
        "--use_motion_mid_block",
        "--motion_max_seq_length 16",
        "--num_frames_range 7",
        "--sample_stride 2",
        "--caption_dropout_prob 1",
        "--contrastive_weight 0.5",
        "--contrastive_temperature 0.5",
        "--negative_threshold 2",
        "--negatives eq10 --negative_threshold 3",
        "--negative_threshold 3",
        "--positives within_threshold",
        "--snr_gamma 1",
        "--train_batch_size 1",
        "--gradient_accumulation_steps 2",
        "--learning_rate 2e-3",
        "--lr_scheduler cosine",
        "--lr_scheduler constant_with_warmup --lr_warmup_steps 5",
        "--adam_beta1 0.5",
        "--adam_beta2 0.9",
        "--adam_weight_decay 0.5",
        "--adam_epsilon 1e-2",
        "--max_grad_norm 0.001",
        "--use_ema",
        "--use_ema --ema_decay 0.1",
        "--mixed_precision bf16",
        "--seed 1",
    ],
)
def test_every_flag_acts(train, default_weights, flags):
    steps = ("--max_train_steps", "2", "--num_frames_range", "6")
    if not default_weights:
        default_weights["no flags"] = digest(train("default", *steps)[1] / "motion_adapter" / WEIGHTS)
    code, output = train("run", *steps, *flags.split())
    result = digest(output / "motion_adapter" / WEIGHTS)
    assert code == 0
    assert result not in default_weights.values()
    default_weights[flags] = result


def test_gradient_checkpointing_computes_the_same(train, monkeypatch):
    calls = []
    enable = UNetMotionModel.enable_gradient_checkpointing
    monkeypatch.setattr(UNetMotionModel, "enable_gradient_checkpointing", lambda unet: calls.append(enable(unet)))
    _, plain = train("plain", "--max_train_steps", "2")
    _, thrifty = train("thrifty", "--max_train_steps", "2", "--gradient_checkpointing")
    assert len(calls) == 1
    weights = [load_file(output / "motion_adapter" / WEIGHTS) for output in (plain, thrifty)]
    torch.testing.assert_close(*weights, rtol=1e-3, atol=1e-5)


def test_videos_train_as_their_latents_do(train, model, tmp_path):
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
    required = ["--pretrained_model_name_or_path", str(model), "--train_data_dir", str(folder)]
    assert encode([*required, "--output_dir", str(tmp_path / "latents"), "--resolution", "64"]) == 0
    _, from_latents = train("cached", *flags, data=tmp_path / "latents")
    for video_line, latent_line in zip(log_of(from_videos), log_of(from_latents), strict=True):
        assert video_line["diffusion_loss"] == pytest.approx(latent_line["diffusion_loss"], rel=1e-3)

    code, output = train("paper", *flags, "--resolution", "64", data=folder)  # stride 4
    assert code == 1
    assert "0.mp4: 6 frames, but 6 frames at a stride of 4 take at least 21" in status_of(output)["reason"]


def test_scaled_linear_betas_become_linear(train, model, tmp_path, caplog):
    path = model / "scheduler" / "scheduler_config.json"
    config = json.loads(path.read_text())
    _, linear = train("linear", "--max_train_steps", "1")
    path.write_text(json.dumps(config | {"beta_schedule": "scaled_linear"}))
    try:
        _, scaled = train("scaled", "--max_train_steps", "1")
    finally:
        path.write_text(json.dumps(config))
    assert "training with linear ones" in caplog.text
    assert digest(linear / "motion_adapter" / WEIGHTS) == digest(scaled / "motion_adapter" / WEIGHTS)


def test_learning_rates_are_closed_forms():
    def rates(scheduler: str, steps: list[int]) -> list[float]:
        flags = ["--pretrained_model_name_or_path", "m", "--train_data_dir", "d", "--learning_rate", "1"]
        flags += ["--lr_scheduler", scheduler, "--lr_warmup_steps", "9", "--max_train_steps", "109"]
        args = parse_args(flags)
        return [round(learning_rate_at(step, args), 6) for step in steps]

    assert rates("constant", [0, 50]) == [1, 1]
    assert rates("constant_with_warmup", [0, 4, 9, 108]) == [0.1, 0.5, 1, 1]
    assert rates("linear", [0, 9, 59, 108]) == [0.1, 1, 0.5, 0.01]
    assert rates("cosine", [0, 9, 34, 59, 109]) == [0.1, 1, 0.853553, 0.5, 0]


# What is refused


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--num_frames_range 8 6", "--num_frames_range takes one number or MIN MAX"),
        ("--num_frames_range 8 9 10", "--num_frames_range takes one number or MIN MAX"),
        ("--sample_stride 0", "--sample_stride takes one number or MIN MAX"),
        ("--num_frames_range 5", "leaves clips of 5 frames without a negative: it takes at least 6"),
        ("--num_frames_range 8 --negative_threshold 6 --negatives eq10", "it takes at least 9 frames"),
        ("--train_batch_size 0", "--train_batch_size is 0, but has to be at least 1"),
        ("--learning_rate 0", "--learning_rate is 0.0, but has to be above 0"),
        ("--contrastive_weight -1", "--contrastive_weight is -1.0, but has to be 0 or more"),
        ("--caption_dropout_prob 1.5", "--caption_dropout_prob is 1.5, but has to be between 0 and 1"),
        ("--no_versatile --no_sparse_causal", "leave no attention over time"),
        ("--negatives some", "invalid choice: 'some'"),
        ("--learning_rat 1", "unrecognized arguments: --learning_rat 1"),
    ],
)
def test_wrong_flags_end_with_code_2_and_a_reason(train, capsys, flags, message):
    with pytest.raises(SystemExit) as exit_info:
        train("run", "--max_train_steps", "1", *flags.split())
    assert exit_info.value.code == 2
    assert re.search(message, capsys.readouterr().err.splitlines()[-1])


def test_a_new_run_does_not_mix_with_an_old_one(train):
    train("run", "--max_train_steps", "1")
    code, output = train("run", "--max_train_steps", "1")
    assert code == 1 and "choose another --output_dir" in status_of(output)["reason"]


def test_what_cannot_be_resumed_is_said(train):
    _, output = train("run", "--max_train_steps", "1")
    code, other = train("ablation", "--resume_from_checkpoint", str(output / "checkpoint-1"), "--no_versatile")
    assert code == 1 and "is of a run with other flags" in status_of(other)["reason"]
    code, other = train("nowhere", "--resume_from_checkpoint", str(output / "checkpoint-7"))
    assert code == 1 and "is not a directory" in status_of(other)["reason"]
    (output / "checkpoint-1" / "manifest.json").unlink()
    code, output = train("run", "--resume_from_checkpoint", "latest")
    assert code == 1 and "None of the 1 checkpoints" in status_of(output)["reason"]


def test_clips_and_model_have_to_fit(train, cache, tmp_path):
    code, output = train("positions", "--motion_max_seq_length", "7")
    assert code == 1 and "has 7 positions" in status_of(output)["reason"]
    code, output = train("length", "--num_frames_range", "6", "13")
    assert code == 1 and "latents-00000.safetensors, clip 0: 12 frames, but 13" in status_of(output)["reason"]
    code, output = train("resolution", "--resolution", "64")
    assert code == 1 and "--resolution is for videos" in status_of(output)["reason"]
    write_shard(tmp_path, 0, torch.zeros(1, 8, 8, 8, 8))
    (tmp_path / "captions.jsonl").write_text('{"text": "mist"}\n')
    code, output = train("channels", data=tmp_path)
    assert code == 1 and "have 8 channels, but the UNet takes 4" in status_of(output)["reason"]


def test_a_motion_unet_is_no_image_unet(train, model):
    path = model / "unet" / "config.json"
    config = path.read_text()
    path.write_text(config.replace("UNet2DConditionModel", "UNetMotionModel"))
    try:
        code, output = train("run")
    finally:
        path.write_text(config)
    assert code == 1 and "`unet` is a UNetMotionModel" in status_of(output)["reason"]


def test_a_loss_that_is_not_finite_ends_the_run_and_spares_the_last_checkpoint(train):
    code, output = train("run", "--max_train_steps", "1")
    flags = ("--max_train_steps", "20", "--learning_rate", "1e30", "--checkpointing_steps", "1")
    code, output = train("run", *flags, "--resume_from_checkpoint", "latest")
    assert code == 1
    status = status_of(output)
    assert status["status"] == "failed" and "lower --learning_rate" in status["reason"]
    newest = list_checkpoints(output)[-1]
    verify_checkpoint(newest)
    assert all(torch.isfinite(tensor).all() for tensor in load_file(newest / "training_state.safetensors").values())


def test_a_full_disk_is_explained_and_spares_the_last_checkpoint(train, monkeypatch):
    _, output = train("run", "--max_train_steps", "1")

    def full(*arguments):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(training_state, "save_file", full)
    code, _ = train("run", "--max_train_steps", "2", "--resume_from_checkpoint", "latest")
    assert code == 1 and status_of(output)["reason"].startswith("The disk is full: the last checkpoint")
    (checkpoint,) = list_checkpoints(output)
    verify_checkpoint(checkpoint)
    assert not list(output.glob(".*"))
