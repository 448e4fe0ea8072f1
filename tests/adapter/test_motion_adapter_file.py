"""Save motion modules: a plain `MotionAdapter` that keeps the mode, the position tables and the dtype."""

import json

import pytest
import torch
from diffusers import MotionAdapter
from peft import LoraConfig
from safetensors.torch import load_file

from motion_adapter.build import attach_motion_adapter, extract_motion_adapter, save_motion_modules
from motion_unets import assert_same_weights, moving_unet, predict
from pipeline_landscape_video.landscape_motion_attention import SPARSE_CAUSAL_MODES
from tiny_models import build_motion_adapter, build_unet2d


pytestmark = pytest.mark.usefixtures("fixed_seed")


@pytest.mark.parametrize("mode", [*SPARSE_CAUSAL_MODES, None])
def test_a_saved_adapter_is_a_plain_motion_adapter_with_the_mode(mode, tmp_path):
    unet = moving_unet(mode)
    save_motion_modules(unet, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["_class_name"] == "MotionAdapter" and "_name_or_path" not in config
    assert config["sparse_causal_mode"] == (mode or "full")
    loaded = MotionAdapter.from_pretrained(tmp_path)
    assert type(loaded) is MotionAdapter and loaded.config.sparse_causal_mode == (mode or "full")
    for name, weight in loaded.state_dict().items():
        assert torch.equal(weight, unet.state_dict()[name]), name
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        again = attach_motion_adapter(build_unet2d(), loaded)
    with torch.no_grad():
        assert torch.equal(predict(again), predict(unet))


@pytest.mark.parametrize("norm", ["clip", "frame", None])
def test_a_saved_adapter_keeps_the_norm(norm, tmp_path):
    adapter = build_motion_adapter("previous", norm)
    unet = attach_motion_adapter(build_unet2d(), adapter)
    save_motion_modules(unet, tmp_path)
    loaded = MotionAdapter.from_pretrained(tmp_path)
    assert loaded.config.motion_norm == (norm or "clip")
    with torch.no_grad():
        again = attach_motion_adapter(build_unet2d(), loaded)
        again.load_state_dict(unet.state_dict())
        assert torch.equal(predict(again), predict(unet))


def test_the_file_holds_the_position_tables(tmp_path):
    save_motion_modules(moving_unet(), tmp_path)
    weights = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    tables = {name: table for name, table in weights.items() if name.endswith("pos_embed.pe")}
    assert len(tables) == 2 + 4 and all(table.shape[:2] == (1, 32) and table.any() for table in tables.values())
    assert sorted(weights) == sorted(build_motion_adapter().state_dict())


@pytest.mark.parametrize(
    "config",
    [
        {"motion_transformer_layers_per_block": 2, "motion_transformer_layers_per_mid_block": 2},
        {"use_motion_mid_block": True},
        {"motion_max_seq_length": 24, "motion_num_attention_heads": 4},
    ],
)
def test_saving_keeps_the_shape_of_the_motion_modules(config, tmp_path):
    unet = moving_unet("previous", **config)
    save_motion_modules(unet, tmp_path)
    loaded = MotionAdapter.from_pretrained(tmp_path)
    assert {name: loaded.config[name] for name in config} == config
    assert_same_weights(loaded, extract_motion_adapter(unet))


def test_saving_keeps_the_dtype_of_the_motion_modules(tmp_path):
    unet = moving_unet().to(torch.bfloat16)
    save_motion_modules(unet, tmp_path)
    weights = load_file(tmp_path / "diffusion_pytorch_model.safetensors")
    assert {weight.dtype for weight in weights.values()} == {torch.bfloat16}


def test_an_extracted_adapter_shares_its_tensors():
    unet = moving_unet()
    adapter = extract_motion_adapter(unet)
    for name, parameter in adapter.named_parameters():
        assert parameter.data_ptr() == unet.get_parameter(name).data_ptr(), name


def test_saving_refuses_what_a_motion_adapter_cannot_hold(tmp_path):
    unet = moving_unet()
    unet.fuse_qkv_projections()
    with pytest.raises(ValueError, match="such as .*to_qkv.*fuse_qkv_projections"):
        save_motion_modules(unet, tmp_path / "fused")
    unet = moving_unet()
    unet.add_adapter(LoraConfig(r=2, target_modules=r".*motion_modules.*to_v"))
    with pytest.raises(ValueError, match="unload or fuse LoRA"):
        save_motion_modules(unet, tmp_path / "lora")
    assert not list(tmp_path.iterdir())


def test_saving_into_a_file_is_refused(tmp_path):
    path = tmp_path / "adapter"
    path.write_text("not a directory")
    with pytest.raises(NotADirectoryError, match="must be a folder, got the file"):
        save_motion_modules(moving_unet(), path)
