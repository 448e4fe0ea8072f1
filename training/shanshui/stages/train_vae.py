"""Train the autoencoder of shanshui-tiny: 128 x 128 frames to 16 x 16 latents of 8 channels, and back.

A second decoder turns the latents into frames of 256 x 256 pixels.
"""

import time

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from safetensors.torch import load_file

from landscape_video.files import write_json
from pipeline_landscape_video.landscape_decoder import DoubleSizeDecoder
from shanshui.renderer.dataset import FramePairs, scene_of
from shanshui.renderer.rendering import GroundTruth, render_clip, render_ground_truth
from shanshui.renderer.scene import FPS, HELD_OUT_SEED, SIZE
from shanshui.stages.family_run import FamilyRun, build_vae
from shanshui.stages.timed_training import train_for
from shanshui.stages.training_data import encode_clip, to_pixel_values, training_clips, training_pairs


KL_WEIGHT = 1e-4

LARGE = 2 * SIZE  # pixels: height and width of the decoded frames
FLICKER_WEIGHT = 1.0
HELD_OUT_CLIPS = 24
HELD_OUT_FRAMES = 8


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


def train_decoder(run: FamilyRun) -> None:
    """Train on pairs of neighboring frames, save the decoder, and write what it gains to `held_out.json`.

    Both frames are compared with the rendered ones. So is their difference along the true motion: what differs there
    in the decoded frames, and not in the rendered ones, is flicker. As for the autoencoder, the first 60 % of the time
    go to crops of half the size.
    """
    pairs = training_pairs(run)
    latents = load_file(run.run_dir / "latents" / "latents-00000.safetensors")["latents"]
    vae = AutoencoderKL.from_pretrained(run.model("vae"))
    torch.manual_seed(0)
    decoder = DoubleSizeDecoder.from_vae(vae).to(run.device)

    def compute_losses(generator: torch.Generator, fraction: float) -> dict[str, torch.Tensor]:
        def draw(limit: int, count: int) -> list[int]:
            return torch.randint(limit, (count,), generator=generator, device=run.device).tolist()

        scale = LARGE // latents.shape[-1]  # pixels for each latent
        crop = latents.shape[-1] // 2 if fraction < 0.6 else latents.shape[-1]
        count = run.batch_scale * (4 if fraction < 0.6 else 1)
        places = latents.shape[-1] - crop + 1
        batch = [
            cut(pairs, latents, *place, crop, scale)
            for place in zip(draw(len(pairs.frames), count), draw(places, count), draw(places, count), strict=True)
        ]
        inputs, targets, flow, valid = (torch.stack(parts).to(run.device) for parts in zip(*batch, strict=True))
        decoded = decoder(inputs.flatten(0, 1).float()).float()
        losses = reconstruction_losses(decoded, targets.flatten(0, 1))
        change = difference_along(flow, decoded.unflatten(0, (-1, 2)))
        wanted = difference_along(flow, targets)
        losses["flicker"] = ((change - wanted).abs() * valid).sum() / valid.sum().clamp(min=1) / 3
        losses["loss"] = image_loss(losses) + FLICKER_WEIGHT * losses["flicker"]
        return losses

    train_for(run, "decoder", decoder, compute_losses, learning_rate=1e-3, weight_decay=1e-4, seed=4)
    decoder.save_pretrained(run.model("decoder"))
    write_json(run.run_dir / "decoder" / "held_out.json", compare_on_held_out(vae.to(run.device), decoder))


def cut(
    pairs: FramePairs, latents: torch.Tensor, index: int, top: int, left: int, crop: int, scale: int
) -> tuple[torch.Tensor, ...]:
    """Cut a pair to `crop` x `crop` latents from (top, left).

    Returns:
        Latents (2, channels, crop, crop), frames (2, 3, height, width), flow (2, height, width) and where it is valid,
        (1, height, width).
    """
    first = pairs.first[index]
    rows, columns = (slice(scale * start, scale * (start + crop)) for start in (top, left))
    target = to_pixel_values(pairs.frames[index, :, rows, columns].copy())
    flow = torch.from_numpy(pairs.flow[index, :, rows, columns].astype(np.float32))
    valid = torch.from_numpy(pairs.valid[index, rows, columns].astype(np.float32))
    return latents[index, first : first + 2, :, top : top + crop, left : left + crop], target, flow, valid[None]


def difference_along(flow: torch.Tensor, frames: torch.Tensor) -> torch.Tensor:
    """Return the second frame of each pair, looked up where the flow leads, minus the first one.

    Args:
        flow: (pairs, 2, height, width), displacement (x, y) in pixels from the first frame to the second.
        frames: (pairs, 2, 3, height, width).

    Returns:
        (pairs, 3, height, width); 0 where the flow leads out of the frame.
    """
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    place = torch.stack([x, y]).to(flow) + flow
    size = torch.tensor([width, height]).to(flow).view(2, 1, 1)
    grid = ((2 * place + 1) / size - 1).movedim(1, -1)  # -1 and 1 are the outer edges of the frame
    inside = (grid.abs() <= 1).all(-1)[:, None]
    return (F.grid_sample(frames[:, 1], grid, padding_mode="border", align_corners=False) - frames[:, 0]) * inside


@torch.no_grad()
def compare_on_held_out(vae: AutoencoderKL, decoder: DoubleSizeDecoder) -> dict[str, dict[str, float]]:
    """Compare the decoder with enlargements of the VAE's reconstructions, on clips of held-out scenes.

    Returns:
        For "decoder" and for "bicubic" and "lanczos" enlargement: "psnr" in dB against frames rendered at 256 x 256,
        "flicker", the mean absolute change along the true motion in levels of 255, and "seconds" to decode a frame.
        For "rendered" frames, the flicker only.
    """

    def native(latents: torch.Tensor) -> torch.Tensor:
        return vae.decode(latents / vae.config.scaling_factor).sample

    decoders = {
        "decoder": decoder,
        "bicubic": lambda latents: enlarge(native(latents), cv2.INTER_CUBIC),
        "lanczos": lambda latents: enlarge(native(latents), cv2.INTER_LANCZOS4),
    }
    clips: dict[str, list[dict[str, float]]] = {name: [] for name in (*decoders, "rendered")}
    times = [k / FPS for k in range(HELD_OUT_FRAMES)]
    for index in range(HELD_OUT_CLIPS):
        scene = scene_of(index, HELD_OUT_SEED, fine_motifs=False)
        truth = render_ground_truth(scene, times, LARGE, LARGE, consistent=True)
        target = to_pixel_values(truth.frames)
        latents = encode_clip(vae, render_clip(scene, times)).to(vae.device).float()
        clips["rendered"].append({"flicker": flicker(target, truth)})
        for name, decode in decoders.items():
            start = time.perf_counter()
            images = decode(latents).float().cpu().clamp(-1, 1)
            seconds = (time.perf_counter() - start) / len(images)
            psnr = 10 * torch.log10(4 / (images - target).square().mean((1, 2, 3))).mean().item()
            clips[name].append({"psnr": psnr, "flicker": flicker(images, truth), "seconds": seconds})
    return {
        name: {figure: float(np.mean([clip[figure] for clip in rows])) for figure in rows[0]}
        for name, rows in clips.items()
    }


def flicker(images: torch.Tensor, truth: GroundTruth) -> float:
    """Return the mean absolute change along the true motion, in levels of 255, of (frames, 3, height, width)."""
    flow, valid = torch.from_numpy(truth.forward_flow), torch.from_numpy(truth.forward_valid)[:, None]
    change = difference_along(flow, torch.stack([images[:-1], images[1:]], 1)).abs()
    return 127.5 * ((change * valid).sum() / valid.sum() / 3).item()


def enlarge(images: torch.Tensor, interpolation: int) -> torch.Tensor:
    """Enlarge images, (frames, 3, height, width), to `LARGE` pixels with an interpolation of OpenCV."""
    frames = images.cpu().movedim(1, -1).numpy()
    large = [cv2.resize(frame, (LARGE, LARGE), interpolation=interpolation) for frame in frames]
    return torch.from_numpy(np.stack(large)).movedim(-1, 1)
