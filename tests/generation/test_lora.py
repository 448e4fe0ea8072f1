"""LoRA keep their trained strength, whichever tool saved them, and a file that does not state it is named."""

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.training_utils import _collate_lora_metadata
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoHaConfig, LoraConfig, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file

from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import ModelSettings
from pipeline_landscape_video import LandscapeVideoPipeline


LAYERS = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "ff.net.2", "conv1"]
RANKS = {"to_k": 2}  # 4 for the others
ALPHAS = {"to_q": 8, "to_k": 8, "conv1": 8, "proj_in": 8, "to_v": 1}  # 2 for the others
CONFIG = {"r": 4, "lora_alpha": 2, "rank_pattern": RANKS, "alpha_pattern": ALPHAS, "target_modules": LAYERS}


def value_for(layer, values, default):
    return next((value for ending, value in values.items() if layer.endswith(f".{ending}")), default)


def strengths(model, name):
    """The scale of each layer that the LoRA of that name acts on."""
    return {
        layer.removeprefix("base_model.model."): module.scaling[name]
        for layer, module in model.named_modules()
        if name in getattr(module, "scaling", {})
    }


def load(models, lora):
    settings = ModelSettings(
        model=str(models / "still"), motion_adapter=str(models / "adapter"), lora=[str(lora)], device="cpu"
    )
    return strengths(load_pipeline(settings).unet, "lora_0")


@pytest.fixture
def trained(models):
    """An image UNet with a LoRA whose layers differ in rank and alpha."""
    unet = UNet2DConditionModel.from_pretrained(models / "still", subfolder="unet")
    return get_peft_model(unet, LoraConfig(**CONFIG, init_lora_weights=False))


def save_with_diffusers(trained, folder, with_metadata):
    layers = convert_state_dict_to_diffusers(
        get_peft_model_state_dict(trained.base_model.model, adapter_name="default")
    )
    metadata = _collate_lora_metadata({"unet": trained.base_model.model}) if with_metadata else {}
    LandscapeVideoPipeline.save_lora_weights(folder, unet_lora_layers=layers, **metadata)
    return folder


def save_as_kohya(trained, file, is_stated=lambda layer: True):
    tensors = {}
    for key, tensor in get_peft_model_state_dict(trained).items():
        layer, _, matrix = key.removeprefix("base_model.model.").partition(".lora_")
        name = f"lora_unet_{layer.replace('.', '_')}"
        tensors[f"{name}.lora_{'down' if matrix.startswith('A') else 'up'}.weight"] = tensor.contiguous()
        if is_stated(layer):
            tensors[f"{name}.alpha"] = torch.tensor(float(value_for(layer, ALPHAS, 2)))
    save_file(tensors, file)
    return file


@pytest.mark.parametrize("saved_by", ["diffusers", "peft", "one file of peft", "kohya"])
def test_each_layer_keeps_its_strength(models, trained, tmp_path, caplog, saved_by):
    if saved_by == "diffusers":
        source = save_with_diffusers(trained, tmp_path / "lora", with_metadata=True)
    elif saved_by == "kohya":
        source = save_as_kohya(trained, tmp_path / "lora.safetensors")
    else:
        source = tmp_path / "lora"
        trained.save_pretrained(source)
        source = source if saved_by == "peft" else source / "adapter_model.safetensors"
    expected = strengths(trained, "default")
    assert set(expected.values()) == {2.0, 4.0, 0.25, 0.5}
    assert load(models, source) == expected
    assert "alpha" not in caplog.text


def test_a_kohya_layer_without_alpha_has_a_scale_of_1(models, trained, tmp_path):
    source = save_as_kohya(trained, tmp_path / "lora.safetensors", lambda layer: not layer.endswith("to_v"))
    expected = strengths(trained, "default")
    assert load(models, source) == {layer: 1 if layer.endswith("to_v") else expected[layer] for layer in expected}


@pytest.mark.parametrize("saved_by", ["diffusers", "peft", "kohya"])
def test_a_file_that_does_not_state_its_strength_is_named(models, trained, tmp_path, caplog, saved_by):
    source = tmp_path / "lora"
    if saved_by == "diffusers":
        save_with_diffusers(trained, source, with_metadata=False)
    elif saved_by == "peft":
        trained.save_pretrained(source)
        (source / "adapter_config.json").unlink()
    else:
        source = save_as_kohya(trained, tmp_path / "lora.safetensors", lambda layer: False)
    assert set(load(models, source).values()) == {1.0}
    (message,) = [record.getMessage() for record in caplog.records if "alpha" in record.getMessage()]
    assert message == (
        f"`lora` {source} does not state its strength (alpha); it is loaded with alpha = rank, a scale of 1."
    )


def test_an_adapter_of_another_kind_is_refused(models, tmp_path):
    unet = UNet2DConditionModel.from_pretrained(models / "still", subfolder="unet")
    get_peft_model(unet, LoHaConfig(target_modules=["to_q"])).save_pretrained(tmp_path / "loha")
    with pytest.raises(
        ValueError, match=r"^`lora` .*loha: does not load: it must hold nothing but LoRA weights, got .*hada.*\.$"
    ):
        load(models, tmp_path / "loha")


def test_weights_that_are_no_lora_are_refused(models, tmp_path):
    save_file({"unet.conv_in.weight": torch.zeros(8, 4, 3, 3)}, tmp_path / "unet.safetensors")
    with pytest.raises(ValueError, match=r"must hold nothing but LoRA weights, got unet\.conv_in\.weight\.$"):
        load(models, tmp_path / "unet.safetensors")
