"""The image model of shanshui-tiny: a small text-conditioned UNet on the latents of single frames."""

from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import nn

from shanshui.renderer.scene import CHOICES
from shanshui.stages.family_models import build_scheduler, build_unet
from shanshui.stages.timed_training import train_for


TEXT_DROPOUT = 0.1
# Motion modules see no text, they see the features of these frozen layers. A single frame needs no word about motion,
# and without this loss the layers learn to ignore such words: small heads on the features have to tell them.
MOTION_ATTRIBUTES = ("camera", "boat", "mist", "birds")
MOTION_WEIGHT = 0.03


class UNetWithMotionHeads(nn.Module):
    """The UNet and, for training only, heads that read the motion words from its mid block and second up block."""

    def __init__(self, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.unet = unet
        channels = unet.config.block_out_channels
        self.heads = nn.ModuleList()
        for width in (channels[-1], channels[-2]):
            sizes = {name: len(CHOICES[name]) for name in MOTION_ATTRIBUTES}
            self.heads.append(nn.ModuleDict({name: nn.Linear(width, size) for name, size in sizes.items()}))
        self._features: list[torch.Tensor] = []
        for block in (unet.mid_block, unet.up_blocks[1]):
            block.register_forward_hook(lambda module, args, output: self._features.append(output))

    def forward(self, latents: torch.Tensor, timesteps: torch.Tensor, text: torch.Tensor) -> tuple:
        """The prediction and, per level, the heads' logits per motion attribute."""
        self._features.clear()
        prediction = self.unet(latents, timesteps, encoder_hidden_states=text).sample
        pooled = [features.mean(dim=(2, 3)) for features in self._features]
        logits = [{name: head(x) for name, head in heads.items()} for heads, x in zip(self.heads, pooled, strict=True)]
        return prediction, logits


def train_image_unet(
    latents: torch.Tensor,
    labels: dict[str, torch.Tensor],
    draw_texts: Callable[[list[int], int], torch.Tensor],
    null_text: torch.Tensor,
    directory: Path,
    minutes: float,
    device: torch.device,
    batch_size: int,
    mixed_precision: str,
    compile_model: bool,
) -> UNet2DConditionModel:
    """Train on scaled latents of clips.

    Args:
        latents: (clips, num_frames, channels, height, width), multiplied by the VAE's scaling factor.
        labels: for each attribute, the class index of each clip.
        draw_texts: from clip indices and a seed to text states, (len(indices), tokens, dim).
        null_text: the states of the empty prompt, (1, tokens, dim).
    """
    torch.manual_seed(0)
    unet = build_unet()
    if device.type == "cpu":
        unet.set_attn_processor(AttnProcessor())  # the fused attention's backward is slow on a CPU: a third of a step
    model = UNetWithMotionHeads(unet).to(device)
    predict = torch.compile(model) if compile_model else model
    scheduler = build_scheduler()
    alphas_cumprod = scheduler.alphas_cumprod.to(device)

    def step(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        def integers(high: int) -> torch.Tensor:
            return torch.randint(high, (batch_size,), generator=generator, device=device)

        clips, frames, timesteps = integers(len(latents)), integers(latents.shape[1]), integers(len(alphas_cumprod))
        clean = latents[clips.cpu(), frames.cpu()].to(device).float()
        noise = torch.randn(clean.shape, generator=generator, device=device)
        text = draw_texts(clips.tolist(), generator.initial_seed()).to(device).float()
        dropped = torch.rand(batch_size, generator=generator, device=device) < TEXT_DROPOUT
        text = torch.where(dropped[:, None, None], null_text.to(device).float(), text)
        prediction, logits = predict(scheduler.add_noise(clean, noise, timesteps), timesteps, text)
        target = scheduler.get_velocity(clean, noise, timesteps)
        diffusion = F.mse_loss(prediction, target)
        motion = 0
        for level in logits:
            for name, values in level.items():
                wanted = labels[name].to(device)[clips].masked_fill(dropped, -100)  # -100: not counted
                motion = motion + F.cross_entropy(values, wanted) / len(level)
        return {"loss": diffusion + MOTION_WEIGHT * motion, "diffusion": diffusion, "motion_heads": motion}

    train_for(
        minutes, model, step, directory, learning_rate=5e-4, weight_decay=1e-2, seed=2, mixed_precision=mixed_precision
    )
    return model.unet
