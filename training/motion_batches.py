"""From a folder of clips to the batches that a training step takes."""

import argparse
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from einops import rearrange

from clip_sampling import ClipBatchSampler, ClipDataset
from latent_cache import LatentCache, is_latent_cache
from motion_models import encode_frames, load_vae
from video_dataset import VideoFolder


def load_clips(
    args: argparse.Namespace, device: torch.device
) -> tuple[ClipDataset, AutoencoderKL | None, tuple[int, int, int]]:
    """The clips, the VAE that encodes them (None for a latent cache), and the (channels, height, width) of latents."""
    if is_latent_cache(args.train_data_dir):
        if args.resolution is not None:
            raise ValueError(f"--resolution is for videos, but {args.train_data_dir} holds latents.")
        cache = LatentCache(args.train_data_dir)
        return cache, None, cache.latent_shape
    resolution = args.resolution or 256
    videos = VideoFolder(args.train_data_dir, resolution)
    vae = load_vae(args.pretrained_model_name_or_path, args.revision, device)
    size = resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    return videos, vae, (vae.config.latent_channels, size, size)


def make_loader(
    args: argparse.Namespace, dataset: ClipDataset, num_train_timesteps: int, first_step: int, accelerator: Accelerator
) -> torch.utils.data.DataLoader:
    """This process's batches from step `first_step` to the last."""
    sampler = ClipBatchSampler(
        dataset,
        seed=args.seed,
        batch_size=args.train_batch_size,
        num_frames_range=args.num_frames_range,
        stride_range=args.sample_stride or dataset.default_stride,
        caption_dropout_prob=args.caption_dropout_prob,
        num_train_timesteps=num_train_timesteps,
        first_step=first_step,
        last_step=args.max_train_steps,
        accumulation_steps=args.gradient_accumulation_steps,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
    )
    return torch.utils.data.DataLoader(
        dataset, batch_sampler=sampler, collate_fn=collate, num_workers=args.dataloader_num_workers
    )


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch of clips of one length: "requests", and "latents" or "pixel_values", (batch, num_frames, ...)."""
    frames = next(key for key in items[0] if key != "request")
    return {"requests": [item["request"] for item in items], frames: torch.stack([item[frames] for item in items])}


def prepare_batch(
    batch: dict[str, Any], vae: AutoencoderKL | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Latents and noise, (batch, channels, num_frames, height, width), and timesteps, (batch,), on the device."""
    if vae is None:
        frames = batch["latents"].to(device)
    else:
        clips = batch["pixel_values"]
        frames = encode_frames(vae, clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
    latents = rearrange(frames, "batch frames channels height width -> batch channels frames height width")
    # Drawn on the CPU, where a seed gives the same numbers whatever the device is.
    noise = [
        torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(request.noise_seed))
        for request in batch["requests"]
    ]
    timesteps = torch.tensor([request.timestep for request in batch["requests"]], device=device)
    return latents.contiguous(), torch.stack(noise).to(device), timesteps
