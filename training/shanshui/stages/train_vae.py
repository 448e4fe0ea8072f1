"""Train the autoencoder of shanshui-tiny: 128 x 128 frames to 16 x 16 latents of 8 channels, and back."""

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from shanshui.renderer.scene import SIZE
from shanshui.stages.family_models import build_vae
from shanshui.stages.family_run import FamilyRun
from shanshui.stages.timed_training import train_for
from shanshui.stages.training_data import to_pixel_values, training_clips


KL_WEIGHT = 1e-4


def train_vae(run: FamilyRun) -> None:
    """Train on single frames, normalize the latents, and save the autoencoder.

    For the first 60 % of the time it sees crops of half the size, then whole frames, with the same number of pixels in
    a step: variety first, and at last the statistics of whole images in the group norms.
    """
    clips, _ = training_clips(run)
    frames = clips.reshape(-1, SIZE, SIZE, 3)
    torch.manual_seed(0)
    vae = build_vae().to(run.device)

    def compute_losses(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        crop = SIZE // 2 if fraction < 0.6 else SIZE
        count = run.batch_scale * 2 * SIZE**2 // crop**2
        target = random_crops(frames, count, crop, generator).to(run.device)
        posterior = vae.encode(target).latent_dist
        reconstruction = vae.decode(posterior.sample(generator)).sample.float()
        losses = reconstruction_losses(reconstruction, target)
        losses["kl"] = posterior.kl().mean() / posterior.mean[0].numel()
        losses["loss"] = image_loss(losses) + KL_WEIGHT * losses["kl"]
        return losses

    train_for(run, "vae", vae, compute_losses, learning_rate=1e-3, weight_decay=1e-4)
    generator = torch.Generator(run.device).manual_seed(1)
    normalize_latents(vae, random_crops(frames, 256, SIZE, generator).to(run.device))
    vae.save_pretrained(run.model("vae"))


@torch.no_grad()
def normalize_latents(vae: AutoencoderKL, pixels: torch.Tensor) -> None:
    """Give every latent channel mean 0 and variance 1 over `pixels`; reconstructions stay the same.

    A single `scaling_factor` cannot do that where channels differ in spread, and noise would drown the narrow channels
    first. The convolutions next to the latents absorb the mean and the spread of each channel.
    """
    latents = torch.cat([vae.encode(chunk).latent_dist.mean for chunk in pixels.split(32)])
    mean, spread = latents.mean(dim=(0, 2, 3)), latents.std(dim=(0, 2, 3))
    # Both are 1 x 1 convolutions. The encoder's outputs are the means, then the log variances.
    encoder, decoder = vae.quant_conv, vae.post_quant_conv
    channels = len(mean)
    encoder.bias[:channels] -= mean
    encoder.bias[:channels] /= spread
    encoder.weight[:channels] /= spread[:, None, None, None]
    encoder.bias[channels:] -= 2 * spread.log()
    decoder.bias += decoder.weight[:, :, 0, 0] @ mean
    decoder.weight *= spread[None, :, None, None]
    vae.register_to_config(scaling_factor=1.0)


def reconstruction_losses(reconstruction: torch.Tensor, target: torch.Tensor) -> dict[str, torch.Tensor]:
    """Compare images in [-1, 1]: absolute error, error of the gradients ("edges"), error of means over 16 x 16 pixels
    ("washes"; without it a small model learns color late), and 1 - SSIM ("dissimilarity")."""
    error = reconstruction - target
    return {
        "l1": error.abs().mean(),
        "edges": error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean(),
        "washes": F.avg_pool2d(error, 16).abs().mean(),
        "dissimilarity": 1 - structural_similarity(reconstruction, target),
    }


def image_loss(losses: dict[str, torch.Tensor]) -> torch.Tensor:
    """Weigh the losses of `reconstruction_losses`."""
    return losses["l1"] + losses["edges"] + 3 * losses["washes"] + 0.2 * losses["dissimilarity"]


def structural_similarity(first: torch.Tensor, second: torch.Tensor, window: int = 7) -> torch.Tensor:
    """Mean SSIM (Wang et al., 2004) of images in [-1, 1] with a uniform window of `window` pixels; differentiable."""
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    mean_1, mean_2 = F.avg_pool2d(first, window, 1), F.avg_pool2d(second, window, 1)
    variance_1 = F.avg_pool2d(first**2, window, 1) - mean_1**2
    variance_2 = F.avg_pool2d(second**2, window, 1) - mean_2**2
    covariance = F.avg_pool2d(first * second, window, 1) - mean_1 * mean_2
    numerator = (2 * mean_1 * mean_2 + c1) * (2 * covariance + c2)
    return (numerator / ((mean_1**2 + mean_2**2 + c1) * (variance_1 + variance_2 + c2))).mean()


def random_crops(frames: np.ndarray, count: int, crop: int, generator: torch.Generator) -> torch.Tensor:
    """Draw `count` crops, (count, 3, crop, crop) in [-1, 1], from uint8 frames (num_frames, height, width, 3)."""

    def draw(limit: int) -> list[int]:
        return torch.randint(limit, (count,), generator=generator, device=generator.device).tolist()

    places = zip(draw(len(frames)), draw(SIZE - crop + 1), draw(SIZE - crop + 1), strict=True)
    crops = np.stack([frames[index, y : y + crop, x : x + crop] for index, y, x in places])
    return to_pixel_values(crops)
