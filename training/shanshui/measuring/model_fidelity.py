"""How faithful the family's own autoencoder is."""

import numpy as np
import torch
from diffusers import AutoencoderKL


@torch.no_grad()
def reconstruct(vae: AutoencoderKL, frames: np.ndarray, chunk_size: int = 8) -> np.ndarray:
    """uint8 frames (count, height, width, 3) through the autoencoder and back."""
    parts = []
    for start in range(0, len(frames), chunk_size):
        pixels = torch.from_numpy(np.ascontiguousarray(frames[start : start + chunk_size])).to(vae.device)
        latents = vae.encode(pixels.permute(0, 3, 1, 2).to(vae.dtype) / 127.5 - 1).latent_dist.mean
        decoded = vae.decode(latents).sample.float().clamp(-1, 1)
        parts.append(((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def ssim_and_psnr(frames: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(count, 2): structural similarity and peak signal-to-noise ratio (dB) of uint8 (count, height, width, 3)."""
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    return np.array(
        [
            (
                structural_similarity(frame, other, channel_axis=2, data_range=255),
                peak_signal_noise_ratio(frame, other, data_range=255),
            )
            for frame, other in zip(frames, others, strict=True)
        ]
    )
