"""shanshui-tiny from scratch, with minimal training: every stage, its results, and resuming."""

import json
import os
import re
import signal
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import CLIPModel, CLIPProcessor, CLIPTextModel

from landscape_video.generation.depth import predict_bundled
from landscape_video.generation.depth_member import load_depth_member
from motion_adapter.weights_files import stored_dtype
from pipeline_landscape_video import LandscapeImageToVideoPipeline, LandscapeVideoPipeline
from pipeline_landscape_video.landscape_decoder import DoubleSizeDecoder
from shanshui import train_tiny
from shanshui.stages import stage_scripts
from shanshui.stages.family_run import FamilyRun
from shanshui.stages.training_data import encode_training_clips


def build(folder: Path, *flags: str) -> None:
    """`train_tiny.py` in this process, one step a stage; `folder` gets the run and what it exports."""
    minutes = [f"{stage}=0.001" for stage in ("clip", "text", "vae", "decoder", "unet", "motion")]
    minutes += ["depth_model=0.001", "depth_member=0.001"]
    arguments = ["--run_dir", folder / "run", "--export_dir", folder / "tiny", "--clips", "4", "--workers", "1"]
    arguments += ["--minutes", *minutes, "--motion_steps", "1", "--picture_steps", "1", "--retention_steps", "1"]
    arguments += ["--mixed_precision", "no", *flags]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("shanshui.stages.train_text.HEAD_CAPTIONS", 128)  # one batch
        patch.setattr("shanshui.stages.train_vae.HELD_OUT_CLIPS", 1)
        patch.setattr("shanshui.stages.train_depth.HELD_OUT_CLIPS", 1)
        patch.setattr(sys, "argv", ["train_tiny.py", *map(str, arguments)])
        train_tiny.main()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("family")
    build(folder)
    return folder


def test_one_command_builds_the_family(built):
    LandscapeVideoPipeline.from_pretrained(built / "tiny")
    pipe = LandscapeImageToVideoPipeline.from_pretrained(built / "tiny")
    assert stored_dtype(built / "tiny" / "image_retention") == torch.float16
    assert str(built) not in (built / "tiny" / "image_retention" / "config.json").read_text()
    assert (built / "run" / "retention" / "held_out" / "0.png").exists()
    picture = np.full((128, 128, 3), 0.5)
    frames = pipe("墨色山水", picture, num_frames=4, num_inference_steps=1, interpolate=False, output_type="np").frames
    assert frames.shape == (1, 4, 128, 128, 3)
    CLIPModel.from_pretrained(built / "tiny" / "clip")
    CLIPProcessor.from_pretrained(built / "tiny" / "clip")
    decoder = DoubleSizeDecoder.from_pretrained(built / "tiny" / "decoder")
    assert stored_dtype(built / "tiny" / "decoder") == torch.float16
    assert decoder(torch.zeros(1, 8, 16, 16)).shape == (1, 3, 256, 256)
    gains = json.loads((built / "run" / "decoder" / "held_out.json").read_text())
    assert gains.keys() == {"decoder", "bicubic", "lanczos", "rendered"} and gains["decoder"]["psnr"] > 5
    card = (built / "tiny" / "README.md").read_text(encoding="utf-8")
    assert (
        "4 rendered clips of 16 frames" in card
        and card.count("\n| decoder |") == card.count("\n| depth_member |") == 2
    )
    # The text encoder goes on without CLIP's image tower; the CLIP beside it stays a measure from outside.
    alone, paired = (CLIPTextModel.from_pretrained(built / "tiny" / name) for name in ("text_encoder", "clip"))
    assert any(not torch.equal(a, b) for a, b in zip(alone.parameters(), paired.parameters(), strict=True))
    for folder in ("text/model", "base/text_encoder"):
        read = CLIPTextModel.from_pretrained(built / "run" / folder).half().float()
        assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), read.parameters(), strict=True))


def test_the_depth_member_reads_depth(built):
    pipe = LandscapeVideoPipeline.from_pretrained(built / "tiny")
    latents, text = torch.randn(1, 8, 2, 16, 16), torch.randn(2, 77, 192)
    with torch.no_grad():
        before = pipe.unet(latents, 500, text).sample
        load_depth_member(pipe.unet, built / "tiny" / "depth")
        near, far = (
            pipe.unet(torch.cat([latents, torch.full((1, 1, 2, 16, 16), depth)], 1), 500, text).sample
            for depth in (1.0, -1.0)
        )
    assert pipe.unet.conv_in.weight[:, 8].any()  # it has trained
    assert 0 < (near - far).abs().max() and (near - before).abs().max() < 0.5
    with pytest.raises(ValueError, match="must have 8 input channels"):
        load_depth_member(pipe.unet, built / "tiny" / "depth")
    depth = predict_bundled(np.full((3, 96, 160, 3), 128, np.uint8), model=built / "tiny" / "depth" / "model")
    assert depth.shape == (3, 1, 96, 160)
    assert json.loads((built / "run" / "depth_model" / "held_out.json").read_text())["l1"] < 1


def test_bfloat16_runs_on_a_cpu_too(built, tmp_path):
    for stage in ("vae", "clips.npy", "clips.jsonl"):
        (tmp_path / stage).symlink_to(built / "run" / stage)
    settings = {"workers": 0, "minutes": {}, "motion_steps": 1, "picture_steps": 1, "retention_steps": 1}
    settings |= {"batch_scale": 1, "mixed_precision": "bf16", "compile": False, "device": torch.device("cpu")}
    encode_training_clips(FamilyRun(tmp_path, tmp_path, 4, **settings))
    coarse, fine = (load_file(run / "latents" / "latents-00000.safetensors") for run in (tmp_path, built / "run"))
    assert 0 < (coarse["latents"] - fine["latents"]).abs().mean() < 0.05


def test_the_same_command_goes_on_where_it_was(built):
    card = (built / "tiny" / "README.md").read_text(encoding="utf-8")
    shards = "latents/latents-00000", "moving_pictures/latents-00000", "moving_pictures/first_frames-00000"
    names = ("clips.npy", "picture_clips.npy", "pairs/flow.npy", *(f"{shard}.safetensors" for shard in shards))
    kept = [built / "run" / name for name in names]
    times = [path.stat().st_mtime_ns for path in kept]
    stages = "render", "clip", "text", "latents", "decoder", "motion", "pictures", "retention", "export"
    build(built, "--stages", *stages)
    assert times == [path.stat().st_mtime_ns for path in kept]
    for stage in ("clip", "text", "decoder"):
        assert len((built / "run" / stage / "log.jsonl").read_text().splitlines()) == 1  # its minutes were over
    assert (built / "tiny" / "README.md").read_text(encoding="utf-8") == card


RESUMED = (1500, 2700, 300, 360)  # seconds, from zero again where it went on: 45 minutes, and 6


@pytest.mark.parametrize(
    ("seconds", "status", "minutes", "left"),
    [
        (RESUMED, "time_over", 54, None),
        (RESUMED, "stopped", 54, 3.0),
        (RESUMED, "time_over", 80, 29.0),
        ((), "stopped", 80, 80.0),
    ],
)
def test_a_script_that_goes_on_gets_the_minutes_that_are_left(tmp_path, seconds, status, minutes, left):
    lines = [json.dumps({"step": 10 * (n + 1), "seconds": time}) for n, time in enumerate(seconds)]
    (tmp_path / "log.jsonl").write_text("".join(line + "\n" for line in lines) + '{"step": 99, "sec')  # a full disk
    (tmp_path / "status.json").write_text(json.dumps({"status": status}))
    (tmp_path / "checkpoint-20").mkdir()
    write = "import pathlib, sys; pathlib.Path(sys.argv[1]).write_text(' '.join(sys.argv[2:]))"
    command = [sys.executable, "-c", write, str(tmp_path / "arguments")]
    stage_scripts.run_script(command, tmp_path, minutes, torch.device("cpu"))
    if left is None:
        assert not (tmp_path / "arguments").exists()
    else:
        arguments = (tmp_path / "arguments").read_text()
        assert arguments == f"--max_train_minutes {left} --resume_from_checkpoint latest"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--stages", "motion"),
            "motion needs .*clip/model, which does not exist; run `--stages clip text vae latents unet motion`",
        ),
        (("--stages", "vae", "latents", "unet"), "stage unet needs .*clip/model"),
        (("--stages", "render", "--export_dir", "."), "--export_dir must be a pipeline or a new folder, got ."),
        (("--stages", "retention"), "stage retention needs scikit-image"),
    ],
)
def test_what_is_missing_is_said_before_the_first_stage(tmp_path, monkeypatch, capsys, flags, message):
    if "scikit-image" in message:
        for stage in train_tiny.STAGES.values():
            if stage.result:
                (tmp_path / "run" / stage.result).mkdir(parents=True)
        monkeypatch.setattr(train_tiny, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as error:
        build(tmp_path, *flags)
    assert error.value.code == 2 and re.search(message, capsys.readouterr().err)
    assert not (tmp_path / "run" / "clips.npy").exists()


def test_other_clips_than_before_are_refused_in_one_line(built):
    with pytest.raises(SystemExit, match="clips with other settings"):
        build(built, "--clips", "5", "--stages", "render")


# Stopping


SAVES = """
import pathlib, signal, sys, time
folder = pathlib.Path(sys.argv[1])
def save(*_):
    time.sleep(1)  # longer than Python waits for a child at Ctrl-C
    (folder / "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
(folder / "began").touch()
time.sleep(60)
"""


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_a_script_is_told_to_stop_and_saves(tmp_path, monkeypatch, sent):
    command = [sys.executable, "-c", SAVES, str(tmp_path)]
    stage = train_tiny.Stage(lambda run: stage_scripts.run_script(command, tmp_path, 5, torch.device("cpu")))
    monkeypatch.setitem(train_tiny.STAGES, "motion", stage)
    monkeypatch.setattr(train_tiny, "check_stages", lambda *_: None)

    def stop() -> None:
        while not (tmp_path / "began").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), sent)

    thread = threading.Thread(target=stop)
    thread.start()
    with pytest.raises(SystemExit) as error:
        build(tmp_path, "--stages", "motion")
    thread.join()
    assert error.value.code == 75 and (tmp_path / "saved").exists()


def test_a_script_that_is_killed_is_told_of(tmp_path):
    command = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    with pytest.raises(SystemExit, match="killed by signal 9; it may have run out of memory"):
        stage_scripts.run_script(command, tmp_path, 5, torch.device("cpu"))


def test_scripts_get_the_device(monkeypatch):
    assert stage_scripts.environment_for(torch.device("cpu")) == {"ACCELERATE_USE_CPU": "true"}
    assert stage_scripts.environment_for(torch.device("cuda")) == {}
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert stage_scripts.environment_for(torch.device("cuda:1")) == {"CUDA_VISIBLE_DEVICES": "1"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert stage_scripts.environment_for(torch.device("cuda:1")) == {"CUDA_VISIBLE_DEVICES": "5"}
