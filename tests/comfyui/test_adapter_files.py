"""The node pack reads from a file of motion modules how it must run, and refuses files that would run wrongly."""

import json

import pytest
import torch
from diffusers import MotionAdapter
from diffusers.utils import SAFETENSORS_WEIGHTS_NAME
from safetensors.torch import save_file

from motion_adapter.weights_files import METADATA, save_adapter
from node_pack import import_from_pack
from pipeline_landscape_video.landscape_motion_attention import MOTION_NORMS, SPARSE_CAUSAL_MODES


CHANNELS = (320, 640, 1280, 1280)


@pytest.fixture(scope="module")
def files():
    return import_from_pack("adapter_files")


def save(path, channels=CHANNELS, config=None, layout="transformer_blocks.0.attn1.to_q.weight", table=True):
    """Save the weights of motion modules that their sizes are read from."""
    weights = {}
    for way, sizes, number in (("down", channels, 2), ("up", channels[::-1], 3)):
        for block, size in enumerate(sizes):
            for index in range(number):
                weights[f"{way}_blocks.{block}.motion_modules.{index}.norm.weight"] = torch.zeros(size)
    weights[f"down_blocks.0.motion_modules.0.{layout}"] = torch.zeros(1)
    if table:
        weights["down_blocks.0.motion_modules.0.transformer_blocks.0.pos_embed.pe"] = torch.zeros(1, 32, 1)
    save_file(weights, path, metadata={} if config is None else {METADATA: json.dumps(config)})
    return path


def test_the_header_decides(files, tmp_path):
    config = {"sparse_causal_mode": "previous", "motion_norm": "frame"}
    assert files.read_adapter_settings(save(tmp_path / "a.safetensors", config=config)) == files.AdapterSettings(
        "previous", "frame"
    )


@pytest.mark.parametrize("mode", SPARSE_CAUSAL_MODES)
@pytest.mark.parametrize("norm", MOTION_NORMS)
def test_weights_that_we_saved_say_how_they_run(files, tmp_path, monkeypatch, mode, norm):
    monkeypatch.setitem(files.CHANNELS, 2, (32, 64))
    adapter = MotionAdapter((32, 64))
    adapter.register_to_config(sparse_causal_mode=mode, motion_norm=norm)
    save_adapter(adapter, tmp_path)
    (tmp_path / "config.json").unlink()
    settings = files.read_adapter_settings(tmp_path / SAFETENSORS_WEIGHTS_NAME)
    assert settings == files.AdapterSettings(mode, norm)


def test_a_config_without_our_entries_is_that_of_diffusers(files, tmp_path):
    settings = files.read_adapter_settings(save(tmp_path / "a.safetensors", config={"motion_max_seq_length": 32}))
    assert settings == files.AdapterSettings("full", "clip")


def test_the_config_beside_the_weights_is_read(files, tmp_path):
    path = save(tmp_path / "diffusion_pytorch_model.safetensors")
    config = {"_class_name": "MotionAdapter", "sparse_causal_mode": "first_previous"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert files.read_adapter_settings(path) == files.AdapterSettings("first_previous", "clip")


def test_a_file_of_animatediff_runs_as_there(files, tmp_path):
    path = save(tmp_path / "a.safetensors", layout="temporal_transformer.transformer_blocks.0.attention_blocks.0.to_q")
    assert files.read_adapter_settings(path) == files.AdapterSettings("full", "frame")
    assert files.read_adapter_settings(tmp_path / "mm.ckpt") == files.AdapterSettings("full", "frame")


def test_a_choice_replaces_what_the_file_says(files, tmp_path):
    path = save(tmp_path / "a.safetensors", config={"sparse_causal_mode": "previous"})
    assert files.read_adapter_settings(path, sparse_causal_mode="full") == files.AdapterSettings("full", "clip")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "but not its config"),
        ({"channels": (64, 128)}, r"must have \(320, 640, 1280, 1280\)"),
        ({"config": {"motion_num_attention_heads": 4}}, "must be 8 for AnimateDiff-Evolved, got 4"),
        ({"config": {"sparse_causal_mode": "next"}}, "must be one of previous"),
        ({"config": {"motion_norm": "batch"}}, "`motion_norm` must be one of clip, frame"),
        ({"table": False, "config": {}}, "position tables are missing"),
    ],
)
def test_what_would_run_wrongly_is_refused(files, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        files.read_adapter_settings(save(tmp_path / "a.safetensors", **options))


def test_other_files_are_refused(files, tmp_path):
    save_file({"weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0no json!")
    with pytest.raises(ValueError, match="holds no motion modules"):
        files.read_adapter_settings(tmp_path / "lora.safetensors")
    with pytest.raises(ValueError, match="not a complete safetensors file"):
        files.read_adapter_settings(tmp_path / "broken.safetensors")
