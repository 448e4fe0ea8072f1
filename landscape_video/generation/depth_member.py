"""Teach an image or motion UNet to read depth: a first convolution with one more channel, and LoRA layers.

The weights of shanshui-tiny's depth member are in its folder `depth/`. Stable Diffusion 2 depth has them built in.
"""

from pathlib import Path

import torch
from diffusers import UNet2DConditionModel, UNetMotionModel
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn


WEIGHTS = "depth_member.safetensors"
# Layers with LoRA: the projections of the spatial transformers and the convolutions of the residual blocks.
LORA_LAYERS = (
    r".*(attentions|resnets)\.\d+\.(.*\.)?(to_q|to_k|to_v|to_out\.0|proj_in|proj_out|conv1|conv2|net\.0\.proj|net\.2)"
)


def widen_for_depth(unet: UNet2DConditionModel | UNetMotionModel) -> None:
    """Add one channel, the depth, to the inputs of `unet`. Its weights are 0, so predictions do not change.

    Raises:
        ValueError: `unet` reads more than latents already.
    """
    latent_channels, old = unet.config.out_channels, unet.conv_in
    if old.in_channels != latent_channels:
        raise ValueError(f"`unet` must have {latent_channels} input channels, the latents, got {old.in_channels}.")
    new = nn.Conv2d(latent_channels + 1, old.out_channels, old.kernel_size, padding=old.padding)
    new.to(old.weight)
    with torch.no_grad():
        new.weight.zero_()
        new.weight[:, :latent_channels] = old.weight
        new.bias.copy_(old.bias)
    unet.conv_in = new.requires_grad_(old.weight.requires_grad)
    unet.register_to_config(in_channels=latent_channels + 1)


def save_depth_member(unet: UNet2DConditionModel, folder: Path, dtype: torch.dtype = torch.float16) -> None:
    """Write the first convolution and the LoRA layers of `unet` into `folder`."""
    weights = {f"conv_in.{name}": tensor for name, tensor in unet.conv_in.state_dict().items()}
    weights |= {name: tensor for name, tensor in unet.state_dict().items() if ".lora_" in name}
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name.replace(".default.", "."): tensor.to("cpu", dtype).contiguous() for name, tensor in weights.items()
    }
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})


def load_depth_member(unet: UNet2DConditionModel | UNetMotionModel, folder: str | Path) -> None:
    """Widen `unet` in place, and add the trained weights of a depth member to its own.

    Raises:
        ValueError: The folder holds no depth member, or one of another model.
    """
    path = Path(folder) / WEIGHTS
    try:
        weights = load_file(path)
    except (FileNotFoundError, SafetensorError) as error:
        raise ValueError(f"{path} is not a depth member: {error}") from None
    weights = {name: tensor.to(unet.device, unet.dtype) for name, tensor in weights.items()}
    widen_for_depth(unet)
    conv = {name.removeprefix("conv_in."): weights.pop(name) for name in ("conv_in.weight", "conv_in.bias")}
    own = {name: tensor.shape for name, tensor in unet.conv_in.state_dict().items()}
    layers = {name.rpartition(".lora_")[0] for name in weights}
    if {name: tensor.shape for name, tensor in conv.items()} != own or not layers <= dict(unet.named_modules()).keys():
        raise ValueError(f"{path} is the depth member of another model.")
    unet.conv_in.load_state_dict(conv)
    for layer in layers:
        add_lora(unet.get_submodule(layer), weights[f"{layer}.lora_A.weight"], weights[f"{layer}.lora_B.weight"])


@torch.no_grad()
def add_lora(layer: nn.Linear | nn.Conv2d, down: torch.Tensor, up: torch.Tensor) -> None:
    """Add the product of two LoRA matrices to the weight of a layer."""
    layer.weight += (up.flatten(1) @ down.flatten(1)).view_as(layer.weight)
