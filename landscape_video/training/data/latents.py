"""Encode frames into VAE latents."""

import torch
from diffusers import AutoencoderKL
from diffusers.models import AutoModel


def load_vae(model: str, revision: str | None, device: torch.device) -> AutoencoderKL:
    """Load the image model's VAE, frozen, in float32: Stable Diffusion's overflows in float16."""
    vae = AutoModel.from_pretrained(model, subfolder="vae", revision=revision, dtype=torch.float32)
    return vae.requires_grad_(False).eval().to(device)


@torch.no_grad()
def encode_frames(vae: AutoencoderKL, pixel_values: torch.Tensor, chunk_size: int = 16) -> torch.Tensor:
    """Encode frames in [-1, 1], (frames, 3, height, width), into scaled latents, (frames, channels, height, width).

    Latents are the mode of the VAE's distribution, not a sample: a clip gets the same latents whenever it is encoded.
    """
    latents = []
    for frames in pixel_values.split(chunk_size):
        encoded = vae.encode(frames.to(vae.device, vae.dtype))
        latents.append(encoded.latent_dist.mode() if "latent_dist" in encoded else encoded.latents)
    shift = getattr(vae.config, "shift_factor", None) or 0
    return (torch.cat(latents) - shift) * vae.config.scaling_factor
