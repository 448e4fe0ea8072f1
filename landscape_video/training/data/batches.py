"""Build the batches of a training step from the clips, files or a dataset of the Hub, that the settings name."""

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers import AutoencoderKL
from einops import rearrange
from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)

from landscape_video.training.data.caption_tables import add_trigger_word
from landscape_video.training.data.clip_sampling import ClipBatchSampler, ClipDataset, TimestepBias
from landscape_video.training.data.latent_store import (
    AutomaticCache,
    LatentCache,
    LatentClips,
    encode_frames,
    is_latent_cache,
    load_vae,
)
from landscape_video.training.data.tensor_store import PromptEmbedsCache
from landscape_video.training.data.video_dataset import REPORT, VideoDataset
from landscape_video.training.settings.inputs import DataSettings
from landscape_video.training.settings.training import TrainingSettings


DEFAULT_RESOLUTION = 256  # pixels, of videos


def download_dataset(dataset_name: str, revision: str | None = None) -> tuple[Path, Path]:
    """Download a dataset, unless this machine already has it.

    Args:
        dataset_name: Hub id, `org/name`.
        revision: Commit, tag or branch.

    Returns:
        The dataset's folder, and the folder that the links in it lead into.

    Raises:
        ValueError: The dataset is not available; the reason in one line.
    """
    try:
        folder = Path(snapshot_download(dataset_name, repo_type="dataset", revision=revision))
    except GatedRepoError:
        reason = "its owner grants access on request: ask on its page, then log in with `hf auth login`."
    except RepositoryNotFoundError:
        reason = "it does not exist, or it is private and you must log in with `hf auth login`."
    except LocalEntryNotFoundError:
        reason = "it is not on this machine, and the Hub cannot be reached."
    except (HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split())
    else:
        return folder, folder.parents[1]  # the cache stores a snapshot's files as links into its folder of blobs
    raise ValueError(f"Dataset {dataset_name!r}: {reason}")


def load_clips(
    settings: TrainingSettings, device: torch.device
) -> tuple[ClipDataset, AutoencoderKL | None, tuple[int, int, int]]:
    """Load the clips to train on; videos are checked, and OUTPUT_DIR gets the report.

    Returns:
        The clips, the VAE to encode them with (None for a latent cache), and the (channels, height, width) of latents.

    Raises:
        FileNotFoundError, ValueError: No dataset, or one that cannot be used; the message names the file.
    """
    data, model = settings.data, settings.model
    if data.train_data_dir is not None and is_latent_cache(data.train_data_dir):
        if data.resolution not in (None, settings.PRESETS[settings.preset].get("resolution")):
            raise ValueError(f"`resolution` is for videos, but {data.train_data_dir} holds latents: remove it.")
        clips, vae = LatentCache(data.train_data_dir), None
        latent_shape = clips.latent_shape
    else:
        clips = open_videos(data, settings.run.output_dir / REPORT)
        vae = load_vae(model.pretrained_model_name_or_path, model.revision, device)
        size = clips.resolution // 2 ** (len(vae.config.block_out_channels) - 1)
        latent_shape = (vae.config.latent_channels, size, size)
    if data.trigger_word is not None:
        clips.captions = add_trigger_word(clips.captions, data.trigger_word)
    return clips, vae, latent_shape


def open_videos(data: DataSettings, report: Path) -> VideoDataset:
    """Download the videos if they are on the Hub, and check them."""
    location, root = data.train_data_dir, None
    if data.dataset_name is not None:
        location, root = download_dataset(data.dataset_name, data.dataset_revision)
    return VideoDataset(
        location,
        data.resolution or DEFAULT_RESOLUTION,
        num_frames=data.num_frames_range[1],
        stride=(data.sample_stride or VideoDataset.default_stride)[1],
        caption_column=data.caption_column,
        skip_bad=data.skip_bad,
        report=report,
        root=root,
    )


def encode_once(
    cache_dir: Path,
    videos: VideoDataset,
    vae: AutoencoderKL,
    prompt_embeds: PromptEmbedsCache,
    accelerator: Accelerator,
) -> LatentClips:
    """Encode the videos and captions that `cache_dir` lacks, shared by all processes, and serve them from there.

    Raises:
        ValueError: The processes do not share the folder.
    """
    cache = AutomaticCache(videos, vae, cache_dir)
    cache.encode(accelerator.process_index, accelerator.num_processes)
    with accelerator.main_process_first():  # the others find what it has encoded, and all wait for each other
        prompt_embeds.store(["", *(text for texts in videos.captions for text in texts)], cache_dir)
    return cache.clips()


def make_loader(
    settings: TrainingSettings,
    clips: ClipDataset,
    num_train_timesteps: int,
    accelerator: Accelerator,
    last_start: int | None = None,
) -> torch.utils.data.DataLoader:
    """This process's batches; a resumed run sets the sampler's `first_step`.

    Args:
        settings: What to draw.
        clips: Clips to draw from.
        num_train_timesteps: Length of the noise schedule.
        accelerator: Processes that share a step.
        last_start: Last frame that a clip may start at; None for any.
    """
    data, objective, optimization = settings.data, settings.objective, settings.optimization
    bias = TimestepBias(
        objective.timestep_bias_strategy, objective.timestep_bias_portion, objective.timestep_bias_multiplier
    )
    sampler = ClipBatchSampler(
        clips,
        seed=settings.run.seed,
        batch_size=optimization.train_batch_size,
        num_frames_range=data.num_frames_range,
        stride_range=data.sample_stride or clips.default_stride,
        caption_dropout_prob=data.caption_dropout_prob,
        num_train_timesteps=num_train_timesteps,
        first_step=0,
        last_step=optimization.max_train_steps,
        accumulation_steps=optimization.gradient_accumulation_steps,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
        timestep_bias=None if bias.strategy == "none" else bias,
        last_start=last_start,
        slow_motion_prob=objective.slow_motion_prob,
        freeze_prob=objective.freeze_prob,
    )
    return torch.utils.data.DataLoader(
        clips, batch_sampler=sampler, collate_fn=collate, num_workers=data.dataloader_num_workers
    )


def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
    """One batch of clips of one length: "requests" as a list, and all tensors, such as "latents", stacked."""
    tensors = [key for key in items[0] if key != "request"]
    stacked = {key: torch.stack([item[key] for item in items]) for key in tensors}
    return {"requests": [item["request"] for item in items], **stacked}


def prepare_batch(
    batch: dict[str, Any], vae: AutoencoderKL | None, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None]:
    """Prepare the inputs of a step on the device.

    Returns:
        Latents and noise, (batch, channels, num_frames, height, width); timesteps, (batch,); and speeds, (batch,), or
        None if no clip of the batch is slowed down.
    """
    if vae is None:
        frames = batch["latents"].to(device)
    else:
        clips = batch["pixel_values"]
        frames = encode_frames(vae, clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
    latents = rearrange(frames, "batch frames channels height width -> batch channels frames height width")
    requests = batch["requests"]
    # Drawn on the CPU, so that a seed gives the same numbers for every device.
    noise = [
        torch.randn(latents.shape[1:], generator=torch.Generator().manual_seed(request.noise_seed))
        for request in requests
    ]
    timesteps = torch.tensor([request.timestep for request in requests], device=device)
    speeds = None
    if any(request.speed < 1 for request in requests):
        speeds = torch.tensor([request.speed for request in requests], device=device)
    return latents.contiguous(), torch.stack(noise).to(device), timesteps, speeds
