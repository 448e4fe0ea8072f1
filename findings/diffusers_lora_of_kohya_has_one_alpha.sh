#!/usr/bin/env bash
# Guess: a LoRA file of kohya's trainer holds an `alpha` for each layer, diffusers reads them, so each layer of the UNet
# gets its own strength alpha / rank.
#
# What happens: all attention layers get the most frequent alpha of the file. Three layers of rank 4 with the alphas 8, 2
# and 2 load with strengths of 0.5, 0.5 and 0.5 instead of 2, 0.5 and 0.5. The only hint is a warning of peft that some
# `alpha_pattern` keys match no module: diffusers renames the weights, and not the keys of their alphas.
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
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file

unet = UNet2DConditionModel(
    block_out_channels=(8,),
    down_block_types=("CrossAttnDownBlock2D",),
    up_block_types=("CrossAttnUpBlock2D",),
    cross_attention_dim=8,
    attention_head_dim=2,
    norm_num_groups=4,
)
attention = "down_blocks.0.attentions.0.transformer_blocks.0.attn1"
alphas = {"to_q": 8.0, "to_k": 2.0, "to_v": 2.0}
file = {}
for layer, alpha in alphas.items():
    name = f"lora_unet_{attention}.{layer}".replace(".", "_")
    file[f"{name}.lora_down.weight"] = torch.ones(4, 8)
    file[f"{name}.lora_up.weight"] = torch.ones(8, 4)
    file[f"{name}.alpha"] = torch.tensor(alpha)
save_file(file, "kohya.safetensors")

weights, network_alphas = StableDiffusionPipeline.lora_state_dict("kohya.safetensors")
assert sorted(network_alphas.values()) == [2.0, 2.0, 8.0], "all alphas were read"
StableDiffusionPipeline.load_lora_into_unet(weights, network_alphas, unet, adapter_name="style")
strengths = {name: layer.scaling["style"] for name, layer in unet.named_modules() if isinstance(layer, LoraLayer)}
for layer, alpha in alphas.items():
    print(f"{layer}: trained with {alpha / 4}, loaded with {strengths[f'{attention}.{layer}']}")
assert list(strengths.values()) == [0.5, 0.5, 0.5]
PYTHON
