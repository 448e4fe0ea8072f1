"""The autoencoder of shanshui-tiny: 128 x 128 frames to 16 x 16 latents with 8 channels and back."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from shanshui.renderer.constants import SIZE
from shanshui.stages.family_models import build_vae
from shanshui.stages.timed_training import train_for


KL_WEIGHT = 1e-4


def train_vae(
    frames: np.ndarray, directory: Path, minutes: float, device: torch.device, batch_pixels: int, mixed_precision: str
) -> AutoencoderKL:
    """Train on frames, uint8 (count, height, width, 3), and normalise the latents.

    Crops of half the size for the first 60 % of the time, whole frames after that: the same pixels per step, more
    variety first, the statistics of whole pictures in the group norms last.
    """
    torch.manual_seed(0)
    vae = build_vae().to(device)

    def step(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        crop = SIZE // 2 if fraction < 0.6 else SIZE
        batch = random_crops(frames, batch_pixels // crop**2, crop, generator).to(device)
        posterior = vae.encode(batch).latent_dist
        reconstruction = vae.decode(posterior.sample(generator)).sample.float()
        losses = reconstruction_losses(reconstruction, batch)
        losses["kl"] = posterior.kl().mean() / posterior.mean[0].numel()
        losses["loss"] = (
            losses["l1"]
            + losses["edges"]
            + 3 * losses["washes"]
            + 0.2 * losses["dissimilarity"]
            + KL_WEIGHT * losses["kl"]
        )
        return losses

    vae = train_for(
        minutes, vae, step, directory, learning_rate=1e-3, weight_decay=1e-4, mixed_precision=mixed_precision
    )
    generator = torch.Generator(device).manual_seed(1)
    normalise_latents(vae, random_crops(frames, 256, SIZE, generator).to(device))
    return vae


@torch.no_grad()
def normalise_latents(vae: AutoencoderKL, pixels: torch.Tensor) -> None:
    """Give every latent channel mean 0 and variance 1 over `pixels`, without changing what the autoencoder computes.

    One `scaling_factor` cannot do that where channels differ in spread, and noise would drown the narrow ones first.
    The convolutions next to the latents take up each channel's mean and spread.
    """
    latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in pixels.split(32)])
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    encoder, decoder = vae.quant_conv, vae.post_quant_conv  # 1 x 1; the encoder's gives means, then log variances
    channels = len(mean)
    encoder.bias[:channels] -= mean
    encoder.bias[:channels] /= spread
    encoder.weight[:channels] /= spread[:, None, None, None]
    encoder.bias[channels:] -= 2 * spread.log()
    decoder.bias += decoder.weight[:, :, 0, 0] @ mean
    decoder.weight *= spread[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)


def reconstruction_losses(reconstruction: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Absolute error, that of the gradients (edges) and of 16-pixel means (washes: without it a small model first
    learns ink, and colour late), and 1 - SSIM, of images in [-1, 1]."""
    error = reconstruction - target
    return {
        "l1": error.abs().mean(),
        "edges": error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean(),
        "washes": F.avg_pool2d(error, 16).abs().mean(),
        "dissimilarity": 1 - similarity(reconstruction, target),
    }


def similarity(first: torch.Tensor, second: torch.Tensor, window: int = 7) -> torch.Tensor:
    """Mean SSIM (Wang et al., 2004) of images in [-1, 1], uniform window; differentiable."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean_1, mean_2 = F.avg_pool2d(first, window, 1), F.avg_pool2d(second, window, 1)
    variance_1 = F.avg_pool2d(first**2, window, 1) - mean_1**2
    variance_2 = F.avg_pool2d(second**2, window, 1) - mean_2**2
    covariance = F.avg_pool2d(first * second, window, 1) - mean_1 * mean_2
    numerator = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    return (numerator / ((mean_1**2 + mean_2**2 + c1) * (variance_1 + variance_2 + c2))).mean()


def random_crops(frames: np.ndarray, count: int, crop: int, generator: torch.Generator) -> torch.Tensor:
    """`count` crops, (count, 3, crop, crop) in [-1, 1]."""

    def draw(limit: int) -> list[int]:
        return torch.randint(limit, (count,), generator=generator, device=generator.device).tolist()

    spots = zip(draw(len(frames)), draw(SIZE - crop + 1), draw(SIZE - crop + 1), strict=True)
    crops = np.stack([frames[index, y : y + crop, x : x + crop] for index, y, x in spots])
    return torch.from_numpy(crops).permute(0, 3, 1, 2).float() / 127.5 - 1
