"""`landscape-video generate` refuses wrong input in one line, and a run that fails or is stopped leaves nothing."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from processes import largest_files


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "a prompt is required"),
        (["  "], "a prompt must not be empty"),
        (["mist", "--prompts", "good.txt"], "not both"),
        (["--prompts", "none.txt"], "--prompts none.txt: no such file"),
        (["--prompts", "empty.txt"], "empty.txt: contains no prompt"),
        (["--prompts", "latin.txt"], "latin.txt: must be UTF-8"),
        (["--prompts", "binary.txt"], "NUL byte"),
        (["mist", "--prompts-over-time", "times.txt"], "give prompts over time with --prompts-over-time alone"),
        (["--prompts-over-time", "good.txt"], 'a line must be like "48: the snow melts", got'),
        (["--prompts-over-time", "times.txt", "--num-frames", "8"], "frames must be below --num-frames, 8, got 9"),
        (["mist", "--output", "mist.avi"], "got '.avi'"),
        (["mist", "--output", "none/mist.mp4"], "the folder none does not exist"),
        (["mist", "--output", "full"], "full: exists"),
        (["mist", "--output", "mist.gif", "--fps", "60"], "must be at most 50, got 60"),
        (["mist", "--fps", "0"], "--fps must be greater than 0, got 0.0."),
        (["mist", "--fps", "nan"], "--fps must be a finite number, got nan."),
        (["mist", "--guidance-scale", "inf"], "--guidance-scale must be a finite number"),
        (["mist", "--eta", "1.5"], "--eta must be from 0 to 1, got 1.5."),
        (["mist", "--eta", "nan"], "--eta must be a finite number"),
        (["mist", "--seed", "-1"], "--seed must be from 0 to 9223372036854775807, got -1."),
        (["mist", "--seed", "99999999999999999999"], "--seed"),
        (["mist", "--seed", "seven"], "--seed"),
        (["mist", "--num-frames", "0"], "--num-frames must be at least 1, got 0."),
        (["mist", "--num-frames", "34", "--context-length", "33"], "--context-length must be at most 32"),
        (["mist", "--context-overlap", "16", "--num-frames", "20"], "--context-overlap must be smaller than"),
        (["mist", "--steps", "0"], "--steps must be at least 1, got 0."),
        (["mist", "--steps", "1000"], "--steps must be smaller for DDIMScheduler"),
        (["mist", "--steps", "1001"], "--steps must be smaller for DDIMScheduler"),
        (["mist", "--height", "100"], "--height must be a multiple of 8, got 100."),
        (["mist", "--width", "800000", "--height", "800000"], "this machine has"),
        (["mist", "--sofp-mode", "cubic"], "--sofp-mode must be one of quadratic, projection, linear, got"),
        (["mist", "--flow", "farneback"], "--flow must be one of raft, raft-small, dis, got"),
        (["mist", "--flow-weights", "none.pth"], "--flow-weights must be a file, got none.pth"),
        (["mist", "--flow-weights", "full"], "--flow-weights must be a file, got full"),
        (
            ["mist", "--flow", "dis", "--flow-weights", "good.txt"],
            "RAFT, but --flow is 'dis'",
        ),
        (["mist", "--flow-weights", "broken.safetensors"], "broken.safetensors must hold weights"),
        (["mist", "--flow-weights", "other.pth"], "other.pth must hold the weights of torchvision's raft_small"),
        (["mist", "--model", "./none"], "--model ./none: no such file or folder"),
        (["mist", "--model", "full"], "--model full: does not load: full: contains no model_index.json"),
        (["mist", "--motion-adapter", "./none"], "--motion-adapter ./none: no such file or folder"),
        (
            ["mist", "--motion-adapter", "full"],
            "--motion-adapter full: does not load: Error no file named",
        ),
        (["mist", "--lora", "./none.safetensors"], "--lora ./none.safetensors: no such file"),
        (["mist", "--lora", "broken.safetensors"], "--lora broken.safetensors: does not load"),
        (["mist", "--device", "abacus"], "--device must be available on this machine, got abacus"),
        (["mist", "--device", "cuda:99"], "--device must be available on this machine, got cuda:99"),
        (["mist", "--offload", "model"], "--offload must be none on the CPU, got 'model'"),
        (["mist", "--interpolat"], "--interpolat"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_line_and_writes_nothing(generate, arguments, message):
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("years of work")
    Path("good.txt").write_text("mist")
    Path("times.txt").write_text("0: mist\n9: rain")
    Path("empty.txt").write_text("\n\n")
    Path("latin.txt").write_bytes("la for\xeat".encode("latin-1"))
    Path("binary.txt").write_bytes(b"mist\0rain")
    Path("broken.safetensors").write_bytes(b"no weights")
    torch.save({"linear.weight": torch.ones(3)}, "other.pth")
    before = sorted(Path().rglob("*"))
    result = generate(*arguments)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("landscape-video: ")]
    assert len(errors) == 1 and message in errors[0], result.stderr
    assert result.stderr.rstrip().endswith(errors[0]) and result.stdout == ""
    assert sorted(Path().rglob("*")) == before


@pytest.mark.parametrize("file", ["unet/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"])
def test_a_model_with_a_broken_file_is_one_line(generate, models, tmp_path_factory, file):
    broken = tmp_path_factory.mktemp("broken") / "video"
    shutil.copytree(models / "video", broken)
    (broken / file).write_bytes((broken / file).read_bytes()[:1000])
    result = generate("mist", "--model", broken)
    assert result.exit_code == 2
    assert result.stderr.splitlines()[-1].startswith(f"landscape-video: --model {broken}: does not load: ")
    assert list(Path().iterdir()) == []


def test_weights_of_something_else_are_no_lora(generate, models):
    result = generate("mist", "--lora", models / "adapter" / "diffusion_pytorch_model.safetensors")
    assert result.exit_code == 2
    assert "--lora" in result.stderr.splitlines()[-1] and "does not load" in result.stderr.splitlines()[-1]
    assert list(Path().iterdir()) == []


def test_too_little_memory_of_a_gpu_is_one_line_that_helps(generate, monkeypatch):
    def full(name: str) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("landscape_video.generation.models.pick_device", full)
    result = generate("mist")
    assert result.exit_code == 1 and "--offload model" in result.stderr.splitlines()[-1]


def test_raft_without_weights_or_network_says_what_to_do(generate, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
    result = generate("mist", "--flow", "raft")
    assert result.exit_code == 2
    assert "'dis', which needs none" in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
    assert not Path("landscape.mp4").exists()


def test_a_model_that_computes_nan_is_no_clip(generate, tmp_path_factory):
    from pipeline_landscape_video import LandscapeVideoPipeline
    from tiny_models import build_components

    components = build_components()
    torch.nn.init.constant_(components["vae"].decoder.conv_out.bias, torch.nan)
    model = tmp_path_factory.mktemp("nan")
    LandscapeVideoPipeline(**components).save_pretrained(model)
    result = generate("mist", "--no-interpolate", "--model", model)
    assert result.exit_code == 1
    assert "NaN" in result.stderr.splitlines()[-1] and not list(Path().iterdir())


def test_a_full_disk_is_one_line_and_leaves_nothing(generate):
    with largest_files(2000):
        result = generate("mist", "--output", "mist.gif")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("landscape-video: ") and "File too large" in last
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_leaves_nothing(models, tmp_path, number, code):
    command = [sys.executable, "-m", "landscape_video", "generate", "mist", "--device", "cpu", "--steps", "900"]
    process = subprocess.Popen(
        [*command, "--num-frames", "8", "--model", str(models / "video")],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # background jobs ignore Ctrl-C
    )
    try:
        os.set_blocking(process.stderr.fileno(), False)
        seen, deadline = b"", time.monotonic() + 300
        while b"/900" not in seen and process.poll() is None and time.monotonic() < deadline:
            seen += process.stderr.read() or b""
            time.sleep(0.05)
        assert b"/900" in seen, seen
        process.send_signal(number)
        os.set_blocking(process.stderr.fileno(), True)
        rest = process.stderr.read()
        assert process.wait(timeout=100) == code, rest[-500:]
    finally:
        process.kill()
    assert b"Traceback" not in rest
    if number == signal.SIGINT:
        assert rest.rstrip().endswith(b"landscape-video: interrupted.")
    assert list(tmp_path.iterdir()) == []
