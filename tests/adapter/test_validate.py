"""Validate exports: missing files, wrong weights, and folders that generate other frames."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from motion_adapter.export import export_adapter, export_pipeline
from motion_adapter.validate import check_export, check_loads_elsewhere, sample_frames
from motion_adapter.weights_files import load_adapter, stored_dtype
from retention_models import build_image_to_video


WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def adapter(tiny_components, tmp_path) -> Path:
    return export_adapter(tiny_components()["motion_adapter"], tmp_path / "adapter")


def change_weights(file: Path, change) -> None:
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


def test_the_dtype_that_was_asked_for_is_checked(tiny_components, tmp_path):
    half = export_adapter(tiny_components()["motion_adapter"], tmp_path / "half", torch.float16)
    check_export(half, torch.float16)
    assert stored_dtype(half) is torch.float16 and load_adapter(half).dtype is torch.float16
    with pytest.raises(ValueError, match=r"must be in BF16, got F16"):
        check_export(half, torch.bfloat16)


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("landscape_motion_attention.py", "code files are missing: landscape_motion_attention.py"),
        (WEIGHTS, ".safetensors files are missing"),
    ],
)
def test_missing_files_are_named(adapter, missing, message):
    (adapter / missing).unlink()
    with pytest.raises(ValueError, match=message):
        check_export(adapter)


@pytest.mark.parametrize("component", ["unet", "vae", "text_encoder", "motion_adapter"])
def test_every_model_of_a_pipeline_is_checked(tiny_pipeline, tmp_path, component):
    export = export_pipeline(tiny_pipeline(), tmp_path / "export")
    check_export(export)
    (file,) = (export / component).glob("*.safetensors")
    change_weights(file, lambda weights: weights.pop(sorted(weights)[0]))
    with pytest.raises(ValueError, match=f"{component}: 1 missing"):
        check_export(export)


def test_the_index_of_a_pipeline_is_checked(tiny_pipeline, tmp_path):
    export = export_pipeline(tiny_pipeline(), tmp_path / "export")
    index = json.loads((export / "model_index.json").read_text())
    (export / "model_index.json").write_text(json.dumps(index | {"vae": ["mine", "AutoencoderKL"]}))
    with pytest.raises(ValueError, match="`vae` comes from 'mine'"):
        check_export(export)
    (export / "model_index.json").write_text(json.dumps(index))
    (export / "vae").rename(export / "other")
    with pytest.raises(ValueError, match="the folder vae is missing"):
        check_export(export)


def test_other_frames_are_noticed_to_the_last_bit(tiny_pipeline, tmp_path):
    pipe = tiny_pipeline()
    frames = sample_frames(pipe)
    export = export_pipeline(pipe, tmp_path / "export")
    check_loads_elsewhere(export, frames)
    frames[0, 0, 0, 0, 0] += 2**-20
    with pytest.raises(ValueError, match="generates different frames in a fresh process .difference 9.54e-07"):
        check_loads_elsewhere(export, frames)


def test_code_that_needs_this_package_is_noticed(tiny_pipeline, tmp_path):
    export = export_pipeline(tiny_pipeline(), tmp_path / "export")
    (export / "pipeline.py").write_text("import motion_adapter\n" + (export / "pipeline.py").read_text())
    with pytest.raises(ValueError, match="does not load in a fresh process: .*motion_adapter"):
        check_loads_elsewhere(export, torch.zeros(1))


def test_an_export_with_a_branch_gets_an_image_in_a_fresh_process(tmp_path):
    pipe = build_image_to_video()
    frames = sample_frames(pipe)
    export = export_pipeline(pipe, tmp_path / "export")
    check_export(export)
    check_loads_elsewhere(export, frames)
    with torch.no_grad():
        pipe.image_retention.zero_conv_mid.weight.add_(0.1)
    with pytest.raises(ValueError, match="generates different frames in a fresh process"):
        check_loads_elsewhere(export, sample_frames(pipe))
