"""A random model with the sizes of Stable Diffusion 1.5, and what diffusers computes with it."""

import gc
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from safetensors.torch import save_file
from torch import Tensor, nn

from motion_adapter.weights_files import METADATA
from pipeline_landscape_video.landscape_motion_attention import install_motion_norm, install_sparse_causal_attention


NUM_FRAMES, SIZE = 8, 8  # latent frames and their sides
SEED, POSITIVE, NEGATIVE = 7, 1, 2  # of the noise and of the embeddings
GUIDANCE = 2.0
LATENT_SCALE = 0.18215  # of Stable Diffusion's VAE
IMAGE_MODEL = {
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "cross_attention_dim": 768,
    "attention_head_dim": 8,
}


class RandomModel:
    """
    An image UNet and a motion adapter with random weights that float16 holds exactly.

    Args:
        models: The folder `models` of a ComfyUI, for the files of both.
    """

    def __init__(self, models: Path) -> None:
        torch.manual_seed(0)
        self.unet = _rounded(UNet2DConditionModel(**IMAGE_MODEL))
        self.adapter = _rounded(MotionAdapter())
        self.unet_file = models / "diffusion_models" / "random_sd15.safetensors"
        self.adapter_file = models / "animatediff_models" / "random_adapter.safetensors"
        for file, model in ((self.unet_file, self.unet), (self.adapter_file, self.adapter)):
            file.parent.mkdir(parents=True, exist_ok=True)
            weights = {name: weight.half().contiguous() for name, weight in model.state_dict().items()}
            save_file(weights, file, metadata={METADATA: " " * 2000})  # room for any config

    def references(self, settings: list[dict[str, str]]) -> Iterator[tuple[dict[str, str], Tensor]]:
        """Yield the noise that `UNetMotionModel` predicts with each of the configs, guided as in ComfyUI."""
        motion_unet = UNetMotionModel.from_unet2d(self.unet, self.adapter).eval()
        self.unet, self.adapter = None, None
        gc.collect()
        latents, _ = noisy_latents()
        embeddings = torch.cat([embedding_of(NEGATIVE), embedding_of(POSITIVE)]).repeat_interleave(NUM_FRAMES, dim=0)
        for entries in settings:
            install(motion_unet, entries)
            with torch.inference_mode():
                both = torch.cat([latents, latents]).unflatten(0, (2, NUM_FRAMES)).transpose(1, 2)
                negative, positive = motion_unet(both, 999, encoder_hidden_states=embeddings).sample.transpose(1, 2)
            yield entries, negative + GUIDANCE * (positive - negative)


def install(unet: UNetMotionModel, entries: dict[str, str]) -> None:
    """Make a motion UNet run by the entries of an adapter's config."""
    install_sparse_causal_attention(unet, entries["sparse_causal_mode"])
    install_motion_norm(unet, entries["motion_norm"])


def noisy_latents() -> tuple[Tensor, float]:
    """Return the model's input at the first timestep, `(num_frames, 4, size, size)`, and its sigma in ComfyUI."""
    betas = torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)  # linear, as our adapters are trained
    signal = torch.cumprod(1 - betas, dim=0)[-1].item()
    sigma = ((1 - signal) / signal) ** 0.5
    return torch.randn(NUM_FRAMES, 4, SIZE, SIZE, generator=torch.Generator().manual_seed(SEED)), sigma


def predicted_noise(sampled: Tensor) -> Tensor:
    """Return the guided noise that ComfyUI predicted, from the latents after one Euler step to sigma 0."""
    latents, sigma = noisy_latents()
    return (latents * (1 + sigma**2) ** 0.5 - sampled * LATENT_SCALE) / sigma


def embedding_of(seed: int) -> Tensor:
    """Return the embedding that `ProbeConditioning` makes of a seed."""
    return torch.randn(1, 77, 768, generator=torch.Generator().manual_seed(seed))


def write_config(file: Path, entries: dict[str, Any] | None) -> None:
    """Replace the config in the header of an adapter, in place; `None` leaves it out."""
    with file.open("r+b") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
        header["__metadata__"] = {} if entries is None else {METADATA: json.dumps(entries)}
        stream.seek(8)
        stream.write(json.dumps(header, separators=(",", ":")).encode().ljust(length))


def _rounded(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.data = parameter.data.half().float()
    return model.eval().requires_grad_(False)
