"""Run `train_image_retention.py` in this process, on small real models and clips with first frames."""

from pathlib import Path

import torch

from landscape_video.training.data.latent_store import write_first_frames
from tiny_models import build_motion_adapter
from train_image_retention import run
from training_runs import forget_accelerators, write_latent_cache


STARTS = 3  # first frames to keep of each clip


def write_cache_with_first_frames(directory: Path) -> Path:
    """Write the clips of `write_latent_cache`; frame k of clip c has the gray level 10 c + k everywhere."""
    write_latent_cache(directory)
    for shard, clips in (("latents-00000.safetensors", (0, 1, 2)), ("latents-00001.safetensors", (3, 4))):
        levels = torch.tensor([[10 * clip + start for start in range(STARTS)] for clip in clips])
        write_first_frames(directory / shard, levels[:, :, None, None, None].expand(-1, -1, 3, 64, 64))
    return directory


def write_motion_adapter(directory: Path) -> Path:
    """Write a motion adapter with effect, for the image model of `write_image_model`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        build_motion_adapter().save_pretrained(directory)
    return directory


def run_retention(model: Path, adapter: Path, data: Path, output_dir: Path, *flags: str) -> int:
    """Run the trainer with small defaults, which `flags` may override, and return its exit code."""
    forget_accelerators()
    required = ["--pretrained_model_name_or_path", str(model), "--motion_adapter_name_or_path", str(adapter)]
    required += ["--train_data_dir", str(data)]
    defaults = ["--num_frames_range", "6", "8", "--train_batch_size", "2", "--learning_rate", "1e-3"]
    return run([*required, *defaults, "--output_dir", str(output_dir), *flags])
