"""All of shanshui-tiny from nothing, with next to no training: every stage, what it leaves, and its resumption."""

import sys

import numpy as np
import pytest
import torch
from transformers import CLIPModel, CLIPProcessor

import train_tiny
from motion_adapter.weights_files import stored_dtype
from pipeline_landscape_video import LandscapeImageToVideoPipeline, LandscapeVideoPipeline


@pytest.fixture
def build(tmp_path, monkeypatch):
    def run(*flags: str) -> None:
        minutes = [f"{stage}=0.001" for stage in ("clip", "vae", "unet", "motion")]  # one step each
        arguments = [
            "--run_dir",
            tmp_path / "run",
            "--export_dir",
            tmp_path / "tiny",
            "--clips",
            "4",
            "--workers",
            "1",
        ]
        arguments += [
            "--minutes",
            *minutes,
            "--motion_steps",
            "1",
            "--picture_steps",
            "1",
            "--retention_steps",
            "1",
            "--mixed_precision",
            "no",
            *flags,
        ]
        monkeypatch.setattr(sys, "argv", ["train_tiny.py", *map(str, arguments)])
        train_tiny.main()

    return run


def test_one_command_builds_the_family_and_goes_on_where_it_was(build, tmp_path):
    build()
    LandscapeVideoPipeline.from_pretrained(tmp_path / "tiny")
    pipe = LandscapeImageToVideoPipeline.from_pretrained(tmp_path / "tiny")
    assert stored_dtype(tmp_path / "tiny" / "image_retention") == torch.float16
    assert str(tmp_path) not in (tmp_path / "tiny" / "image_retention" / "config.json").read_text()
    assert (tmp_path / "run" / "retention" / "held_out" / "0.png").exists()
    picture = np.full((128, 128, 3), 0.5)
    frames = pipe("墨色山水", picture, num_frames=4, num_inference_steps=1, interpolate=False, output_type="np").frames
    assert frames.shape == (1, 4, 128, 128, 3)
    CLIPModel.from_pretrained(tmp_path / "tiny" / "clip")
    CLIPProcessor.from_pretrained(tmp_path / "tiny" / "clip")
    card = (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8")
    assert "4 rendered clips of 16 frames" in card

    names = ("clips.npy", "latents/latents-00000.safetensors", "latents/first_frames-00000.safetensors")
    kept = [tmp_path / "run" / name for name in names]
    times = [path.stat().st_mtime_ns for path in kept]
    build("--stages", "render", "clip", "latents", "export")
    train_tiny.TinyFamily(train_tiny.parse_args()).first_frames()
    assert times == [path.stat().st_mtime_ns for path in kept]
    assert len((tmp_path / "run" / "clip" / "log.jsonl").read_text().splitlines()) == 1  # its minutes were over
    assert (tmp_path / "tiny" / "README.md").read_text(encoding="utf-8") == card
