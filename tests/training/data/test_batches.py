"""Clips of a training run as its settings describe them."""

import json
from pathlib import Path

import pytest
import torch

from landscape_video.training.data import batches
from landscape_video.training.data.batches import load_clips
from landscape_video.training.data.video_dataset import REPORT, VideoDataset
from landscape_video.training.settings.training import MotionTraining
from tiny_models import build_vae
from training_runs import write_latent_cache
from video_files import make_video_folder


def report_of(path: Path) -> dict[str, str | None]:
    return {row["clip"]: row["refused"] for row in map(json.loads, path.read_text().splitlines())}


def load(folder: Path, output_dir: Path, **options) -> VideoDataset:
    build_vae().save_pretrained(output_dir / "model" / "vae")
    settings = {
        "pretrained_model_name_or_path": str(output_dir / "model"),
        "output_dir": output_dir,
        "train_data_dir": folder,
        "num_frames_range": (8, 8),
        "sample_stride": (1, 2),
    }
    return load_clips(MotionTraining.from_options(**settings | options), torch.device("cpu"))[0]


def test_settings_choose_captions_and_clips(tmp_path):
    folder = make_video_folder(tmp_path / "videos", [15, 14])
    with pytest.raises(ValueError, match="1.mp4: 14 frames, but 8 frames at a stride of 2 take at least 15"):
        load(folder, tmp_path)
    assert len(load(folder, tmp_path, sample_stride=(1, 1))) == 2
    videos = load(folder, tmp_path, skip_bad=True, trigger_word="lpv")
    assert videos.captions == [["lpv, clip 0", "lpv, 片0"]]
    assert [bool(reason) for reason in report_of(tmp_path / REPORT).values()] == [False, True]
    with pytest.raises(ValueError, match="`prompt` is missing"):
        load(folder, tmp_path, caption_column="prompt")


def test_a_dataset_of_the_hub_is_asked_for_by_name_and_revision(tmp_path, monkeypatch):
    folder, asked = make_video_folder(tmp_path / "videos", [15]), []
    monkeypatch.setattr(batches, "download_dataset", lambda *name: asked.append(name) or (folder, folder))
    assert load(None, tmp_path, dataset_name="org/clips", dataset_revision="v1").lengths == [15]
    assert asked == [("org/clips", "v1")]


def test_a_resolution_is_refused_for_latents_unless_it_is_the_presets(tmp_path):
    (tmp_path / "latents").mkdir()
    latents = write_latent_cache(tmp_path / "latents")
    with pytest.raises(ValueError, match="`resolution` is for videos, but .*latents holds latents"):
        load(latents, tmp_path, resolution=64)
    assert len(load(latents, tmp_path, preset="tiny")) == 5
