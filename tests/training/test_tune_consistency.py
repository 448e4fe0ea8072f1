"""Train with `tune_consistency.py` on small real models: resume, results that load, masks that do not fit."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from landscape_video.generation.models import load_lora, load_pipeline
from landscape_video.generation.settings import ModelSettings
from landscape_video.training.data.masked_clips import write_masked_latents
from landscape_video.training.run.consistency_tuning import tune_on_clip
from motion_adapter.export import export_pipeline
from pipeline_landscape_video import LandscapeVideoPipeline
from pipeline_landscape_video.video_io import write_video
from tiny_models import build_components
from training_runs import WEIGHTS, forget_accelerators, log_of, status_of
from tune_consistency import run


LORA_FILE = "lora/pytorch_lora_weights.safetensors"
LATENTS = torch.randn(8, 4, 8, 8, generator=torch.Generator().manual_seed(0))
BACKGROUND = torch.ones(8, 1, 8, 8)
BACKGROUND[:, :, 2:6, 2:6] = 0


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    return export_pipeline(LandscapeVideoPipeline(**build_components()), folder, include_code=False)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip") / "data"
    write_masked_latents(folder, LATENTS, BACKGROUND, {0: "mist over the river"})
    return folder


def tune(model: Path, data: Path, output_dir: Path, *flags: str) -> int:
    forget_accelerators()
    names = {"pretrained_model_name_or_path": model, "train_data_dir": data, "output_dir": output_dir}
    words = [word for name, value in names.items() for word in (f"--{name}", str(value))]
    return run([*words, "--num_frames_range", "6", "--logging_steps", "1", "--learning_rate", "1e-2", *flags])


def test_a_resumed_run_ends_with_the_same_lora(model, clip, tmp_path):
    assert tune(model, clip, tmp_path / "whole", "--max_train_steps", "3") == 0
    assert tune(model, clip, tmp_path / "parts", "--max_train_steps", "3", "--max_train_minutes", "1e-9") == 0
    assert status_of(tmp_path / "parts")["step"] == 1
    assert tune(model, clip, tmp_path / "parts", "--max_train_steps", "3", "--resume_from_checkpoint", "latest") == 0
    # Tensors, not files: diffusers writes the metadata in an order that differs from call to call.
    whole, parts = (load_file(tmp_path / name / LORA_FILE) for name in ("whole", "parts"))
    assert whole.keys() == parts.keys() and all(torch.equal(whole[name], parts[name]) for name in whole)
    assert {"diffusion_loss", "foreground_loss", "background_loss"} <= set(log_of(tmp_path / "whole")[0])


def test_the_lora_changes_the_model_that_loads_it(model, clip, tmp_path, caplog):
    assert tune(model, clip, tmp_path, "--max_train_steps", "2") == 0
    pipe = LandscapeVideoPipeline.from_pretrained(model)
    inputs = (LATENTS.transpose(0, 1)[None], torch.tensor(500), torch.ones(8, 7, 16))
    with torch.no_grad():
        before = pipe.unet(*inputs).sample
        load_lora(pipe, tmp_path / "lora", "tuned")
        after = pipe.unet(*inputs).sample
    assert (after - before).abs().max() > 1e-3
    assert "does not state its strength" not in caplog.text
    layers = load_file(tmp_path / LORA_FILE)
    assert any("motion_modules" in name for name in layers) and any("attentions" in name for name in layers)


def test_motion_modules_can_train_instead(model, clip, tmp_path):
    assert tune(model, clip, tmp_path, "--max_train_steps", "1", "--tuned_layers", "temporal") == 0
    before, after = (load_file(folder / "motion_adapter" / WEIGHTS) for folder in (model, tmp_path))
    assert before.keys() == after.keys() and any(not torch.equal(before[name], after[name]) for name in before)
    assert not (tmp_path / "lora").exists()


def test_learned_fusion_weights_are_written(model, clip, tmp_path):
    assert tune(model, clip, tmp_path, "--max_train_steps", "2", "--learn_fusion_weights") == 0
    weights = json.loads((tmp_path / "fusion_weights.json").read_text())
    assert all(0 < abs(weights[f"{area}_weight"] - 1) < 0.1 for area in ("background", "foreground"))


def test_videos_with_masks(model, tmp_path):
    videos = tmp_path / "videos"
    (videos / "masks").mkdir(parents=True)
    write_video(videos / "a.mp4", np.full((8, 64, 96, 3), 90, np.uint8), fps=8)
    (videos / "metadata.jsonl").write_text(json.dumps({"file_name": "a.mp4", "text": "mist"}) + "\n")
    np.savez(videos / "masks" / "a.npz", boat=np.ones((8, 64, 96), bool), sky=np.zeros((8, 64, 96), bool))
    flags = ("--resolution", "64", "--max_train_steps", "1", "--cache_dir", str(tmp_path / "cache"))
    assert tune(model, videos, tmp_path / "boat", "--objects", "boat", *flags) == 0
    assert log_of(tmp_path / "boat")[0]["background_loss"] == 0
    np.save(videos / "short.npy", np.ones((7, 64, 96), bool))
    shutil.move(videos / "short.npy", videos / "masks" / "a.npy")
    (videos / "masks" / "a.npz").unlink()
    assert tune(model, videos, tmp_path / "short", *flags) == 1
    assert "must have 8 frames of 96 x 64" in status_of(tmp_path / "short")["reason"]
    (videos / "masks" / "a.npy").unlink()
    assert tune(model, videos, tmp_path / "none", *flags) == 1
    assert "has no masks of" in status_of(tmp_path / "none")["reason"]


def test_a_clip_is_tuned_once(model, tmp_path, monkeypatch):
    forget_accelerators()
    models = ModelSettings(model=str(model), decoder="native")
    arguments = (models, LATENTS, BACKGROUND, {0: "mist", 4: "rain"}, tmp_path)
    tuned = tune_on_clip(*arguments, max_train_steps=2)
    assert tuned.is_lora and (tuned.background_weight, tuned.foreground_weight) == (1.0, 1.0)
    pipe = load_pipeline(ModelSettings(**{"model": str(model), "decoder": "native", **tuned.models(models)}))
    assert pipe.get_list_adapters()["unet"] == ["lora_0"]
    written = (tuned.folder / LORA_FILE).stat().st_mtime_ns
    assert tune_on_clip(*arguments, max_train_steps=2) == tuned
    assert (tuned.folder / LORA_FILE).stat().st_mtime_ns == written
    forget_accelerators()
    assert tune_on_clip(*arguments, max_train_steps=1) != tuned
