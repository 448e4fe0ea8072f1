"""`tune_one_shot.py` from the command line: an image model without an adapter, with and without depth."""

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from safetensors.torch import load_file

from motion_adapter.build import create_motion_adapter
from one_shot_costs import count_tuning
from pipeline_landscape_video.landscape_spatio_temporal_attention import load_tuned
from pipeline_landscape_video.video_io import write_video
from tiny_models import build_unet2d
from training_runs import forget_accelerators, log_of, status_of, write_image_model
from tune_one_shot import run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with an image model, one that reads depth, a clip and its depth."""
    folder = tmp_path_factory.mktemp("one_shot")
    for name in ("plain", "depth"):
        write_image_model(folder / name)
    build_unet2d(in_channels=5, out_channels=4).save_pretrained(folder / "depth" / "unet")
    frames = np.random.default_rng(0).integers(0, 256, (6, 64, 96, 3)).astype(np.uint8)
    write_video(folder / "clip.mp4", frames, fps=4)
    np.save(folder / "depth.npy", np.random.default_rng(1).random((6, 64, 96)))
    return folder


def tune(folder, model: str, *flags: str) -> int:
    forget_accelerators()
    flags = ("--num_frames", "4", "--max_train_steps", "2", "--resolution", "64", *flags)
    required = ("--pretrained_model_name_or_path", folder / model, "--video", folder / "clip.mp4", "--prompt", "mist")
    return run([*map(str, required), *flags])


@pytest.mark.parametrize(("model", "flags"), [("plain", ()), ("depth", ("--depth", "depth.npy"))])
def test_a_clip_is_tuned_with_the_models_that_it_names(folder, tmp_path, monkeypatch, model, flags):
    monkeypatch.chdir(folder)
    assert tune(folder, model, "--output_dir", str(tmp_path), "--mixed_precision", "bf16", *flags) == 0
    assert status_of(tmp_path)["status"] == "finished"
    assert {"diffusion_loss", "temporal_loss"} <= log_of(tmp_path)[-1].keys()
    tuned = tmp_path / "tuned" / "tuned.safetensors"
    assert all(torch.isfinite(tensor).all() for tensor in load_file(tuned).values())
    image_unet = UNet2DConditionModel.from_pretrained(folder / model / "unet")
    adapter = create_motion_adapter(
        image_unet, "full", motion_num_attention_heads=1, motion_transformer_layers_per_block=0
    )
    load_tuned(UNetMotionModel.from_unet2d(image_unet, adapter), tuned)


@pytest.mark.parametrize(
    ("model", "flags", "message"),
    [
        ("plain", ("--num_frames", "1"), "`num_frames` must be"),
        ("depth", ("--depth", "missing.npy"), "`depth` missing.npy: no such file or folder"),
        ("depth", ("--depth", "none"), "`depth` must not be none: this model reads depth"),
        ("plain", ("--video", "missing.mp4"), "missing.mp4"),
    ],
)
def test_wrong_flags_are_refused_in_one_line(folder, tmp_path, capsys, caplog, model, flags, message):
    try:
        assert tune(folder, model, "--output_dir", str(tmp_path / "out"), *flags) == 1
    except SystemExit as error:
        assert error.code == 2
    assert message in capsys.readouterr().err + caplog.text
    assert not (tmp_path / "out" / "tuned").exists()


def test_a_24_gb_gpu_holds_the_default():
    cost = count_tuning(8, torch.float32, None)
    assert 10 < cost.memory / 2**30 < 22 and cost.tuned == pytest.approx(74.4e6, rel=0.01)
    assert 2 * cost.tuned < 160e6  # bytes of the file, in half precision
