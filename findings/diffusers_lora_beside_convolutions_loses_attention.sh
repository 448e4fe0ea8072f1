#!/usr/bin/env bash
# Guess: a LoRA that diffusers has saved, as its own training scripts do, is the same LoRA after loading.
#
# What happens: the file names attention layers `.lora.down.weight` and all others `.lora_A.weight`. The loader looks at
# the first name only. If that is `lora_A`, it renames nothing and drops the attention layers. Tensors are sorted by
# name, so a LoRA of `to_q` and `conv1` survives, and with `conv_in` its attention layers are gone. peft warns of layers
# that the file lacks, "not necessarily an issue".
#
# Seen with diffusers 0.42.1, peft 0.21.2, torch 2.15.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet diffusers==0.42.1 torch==2.15.0 transformers==5.24.0 peft==0.21.2
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import torch
from diffusers import StableDiffusionPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig, get_peft_model_state_dict


def build():
    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(8,),
        down_block_types=("CrossAttnDownBlock2D",),
        up_block_types=("CrossAttnUpBlock2D",),
        cross_attention_dim=8,
        attention_head_dim=2,
        norm_num_groups=4,
    )


def acting_layers(unet):
    """Names, without their paths, of the layers that a LoRA changes: a second matrix of zeros changes nothing."""
    weights = get_peft_model_state_dict(unet, adapter_name=next(iter(unet.peft_config)))
    return {name.split(".lora_")[0].split(".")[-1] for name, weight in weights.items() if "B" in name and weight.any()}


def before_and_after(targets):
    """The layers that a LoRA changes before it is saved, and after it is loaded."""
    trained, loaded = build(), build()
    trained.add_adapter(LoraConfig(r=2, target_modules=targets, init_lora_weights=False))
    layers = convert_state_dict_to_diffusers(get_peft_model_state_dict(trained))
    StableDiffusionPipeline.save_lora_weights("lora", unet_lora_layers=layers)
    weights, network_alphas = StableDiffusionPipeline.lora_state_dict("lora")
    StableDiffusionPipeline.load_lora_into_unet(weights, network_alphas, loaded, adapter_name="style")
    return acting_layers(trained), acting_layers(loaded)


for targets in (["to_q", "conv1"], ["to_q", "conv_in"]):
    before, after = before_and_after(targets)
    print("trained:", *sorted(before), "| loaded:", *sorted(after))
    assert before == set(targets)
    assert after == (before if "conv1" in targets else {"conv_in"})
PYTHON
