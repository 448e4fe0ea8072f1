"""From a folder of clips to the batches that a training step takes."""

import argparse
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from einops import rearrange

from landscape_video.training.data.caption_tables import with_trigger_word
from landscape_video.training.data.clip_cache import CachedClips, cache_clips
from landscape_video.training.data.clip_sampling import ClipBatchSampler, ClipDataset, TimestepBias
from landscape_video.training.data.hub_dataset import download_dataset
from landscape_video.training.data.latent_cache import LatentCache, is_latent_cache
from landscape_video.training.data.latents import encode_frames, load_vae
from landscape_video.training.data.prompt_embeds_cache import TextStates
from landscape_video.training.data.video_dataset import REPORT, VideoDataset
from landscape_video.training.run.train_motion_args import PRESETS


def load_clips(
    args: argparse.Namespace, device: torch.device
) -> tuple[ClipDataset, AutoencoderKL | None, tuple[int, int, int]]:
    """The clips, the VAE that encodes them (None for a latent cache), and the (channels, height, width) of latents."""
    if args.train_data_dir is not None and is_latent_cache(args.train_data_dir):
        if args.resolution not in (None, PRESETS[args.preset].get("resolution")):
            raise ValueError(f"--resolution is for videos, but {args.train_data_dir} holds latents.")
        cache = LatentCache(args.train_data_dir)
        add_trigger_word(cache, args.trigger_word)
        return cache, None, cache.latent_shape
    resolution = args.resolution or 256
    videos = open_videos(args, resolution)
    add_trigger_word(videos, args.trigger_word)
    vae = load_vae(args.pretrained_model_name_or_path, args.revision, device)
    size = resolution // 2 ** (len(vae.config.block_out_channels) - 1)
    return videos, vae, (vae.config.latent_channels, size, size)


def open_videos(args: argparse.Namespace, resolution: int) -> VideoDataset:
    """The videos that the flags name, checked; what was found stands in OUTPUT_DIR."""
    location, root = args.train_data_dir, None
    if args.dataset_name is not None:
        location, root = download_dataset(args.dataset_name, args.dataset_revision)
    return VideoDataset(
        location,
        resolution,
        num_frames=args.num_frames_range[1],
        stride=(args.sample_stride or VideoDataset.default_stride)[1],
        caption_column=args.caption_column,
        skip_bad=args.skip_bad,
        report=args.output_dir / REPORT,
        root=root,
    )


def add_trigger_word(dataset: ClipDataset, word: str | None) -> None:
    """Let every caption begin with the word, if there is one."""
    if word is not None:
        dataset.captions = with_trigger_word(dataset.captions, word)


def encode_once(
    args: argparse.Namespace,
    dataset: VideoDataset,
    vae: AutoencoderKL,
    text_states: TextStates,
    accelerator: Accelerator,
) -> CachedClips:
    """The clips as latents, and their captions, from --cache_dir; what it lacks is encoded, by all processes.

    Raises:
        ValueError: the processes do not see the same folder.
    """
    clips = cache_clips(dataset, vae, args.cache_dir, accelerator.process_index, accelerator.num_processes)
    with accelerator.main_process_first():  # the others find what it has encoded
        text_states.store(["", *(text for texts in clips.captions for text in texts)], args.cache_dir)
    clips.store.refresh()
    if missing := sum(name not in clips.store for name in clips.names):
        raise ValueError(
            f"--cache_dir {args.cache_dir} lacks {missing} clips that other processes have encoded: with several "
            "machines, it has to be one folder for all of them."
        )
    return clips


def make_loader(
    args: argparse.Namespace,
    dataset: ClipDataset,
    num_train_timesteps: int,
    first_step: int,
    accelerator: Accelerator,
    last_start: int | None = None,
) -> torch.utils.data.DataLoader:
    """This process's batches from step `first_step` to the last; `last_start` as in `ClipBatchSampler`."""
    bias = TimestepBias(args.timestep_bias_strategy, args.timestep_bias_portion, args.timestep_bias_multiplier)
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
        timestep_bias=None if bias.strategy == "none" else bias,
        last_start=last_start,
        slow_motion_prob=args.slow_motion_prob,
        standstill_prob=args.standstill_prob,
    )
    return torch.utils.data.DataLoader(
        dataset, batch_sampler=sampler, collate_fn=collate, num_workers=args.dataloader_num_workers
    )


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch of clips of one length: "requests", and stacked what else there is, as "latents" or "pixel_values"."""
    tensors = [key for key in items[0] if key != "request"]
    stacked = {key: torch.stack([item[key] for item in items]) for key in tensors}
    return {"requests": [item["request"] for item in items], **stacked}


def prepare_batch(
    batch: dict[str, Any], vae: AutoencoderKL | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """On the device: latents and noise, (batch, channels, num_frames, height, width), timesteps, (batch,), and paces,
    (batch,), where a clip is to be seen slowed down.
    """
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
    paces = [request.pace for request in batch["requests"]]
    pace = None if all(each == 1 for each in paces) else torch.tensor(paces, device=device)
    return latents.contiguous(), torch.stack(noise).to(device), timesteps, pace
