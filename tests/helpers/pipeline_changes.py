"""Weights that people load into a pipeline: an IP-Adapter and a LoRA of the motion modules."""

import torch
from diffusers import AnimateDiffPipeline
from peft import LoraConfig, get_peft_model_state_dict

from dense_attention import build_motion_unet


IMAGE_PROMPT = {"image_embeds": [torch.linspace(-1, 1, 2 * 8).reshape(2, 1, 8)]}


def ip_adapter_weights(pipe: AnimateDiffPipeline) -> dict[str, dict[str, torch.Tensor]]:
    """A random IP-Adapter for the tiny UNet: 8 image channels in, 4 tokens of 16 out."""
    generator = torch.Generator().manual_seed(3)
    image_proj = {
        "proj.weight": torch.randn(4 * 16, 8, generator=generator),
        "proj.bias": torch.zeros(4 * 16),
        "norm.weight": torch.ones(16),
        "norm.bias": torch.zeros(16),
    }
    ip_adapter = {}
    # diffusers counts text attentions in this order, by odd numbers
    names = [name for name in pipe.unet.attn_processors if "motion_modules" not in name and "attn2" in name]
    for index, name in enumerate(names):
        channels = pipe.unet.get_submodule(name.removesuffix(".processor")).inner_dim
        for projection in ("to_k_ip", "to_v_ip"):
            weight = torch.randn(channels, 16, generator=generator)
            ip_adapter[f"{2 * index + 1}.{projection}.weight"] = weight
    return {"image_proj": image_proj, "ip_adapter": ip_adapter}


def load_ip_adapter(pipe: AnimateDiffPipeline) -> None:
    pipe.load_ip_adapter(ip_adapter_weights(pipe), subfolder="", weight_name="", image_encoder_folder=None)


def save_motion_lora(directory: str) -> None:
    """A LoRA on all temporal attentions, as AnimateDiff's motion LoRAs."""
    unet = build_motion_unet(None)
    unet.add_adapter(
        LoraConfig(r=2, target_modules=r".*motion_modules.*(to_q|to_k|to_v|to_out\.0)", init_lora_weights=False)
    )
    with torch.no_grad():
        for index, (name, parameter) in enumerate(unet.named_parameters()):
            if "lora_" in name:
                parameter.copy_(0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index)))
    layers = {name: weight.contiguous() for name, weight in get_peft_model_state_dict(unet).items()}
    AnimateDiffPipeline.save_lora_weights(directory, unet_lora_layers=layers)
