"""Encode videos into a latent cache, once for many training runs.

    python training/cache_latents.py --pretrained_model_name_or_path MODEL --train_data_dir VIDEOS --output_dir CACHE

CACHE is then the --train_data_dir of the training scripts.
"""

import logging
import sys

import torch
from safetensors import SafetensorError

from landscape_video.training.data.latent_store import encode_videos, load_vae
from landscape_video.training.data.video_dataset import VideoDataset
from landscape_video.training.run.command_line import parse_settings
from landscape_video.training.settings.inputs import CacheSettings, CachingSettings


logger = logging.getLogger("cache_latents")


def main(settings: CacheSettings) -> None:
    """Check and encode the videos."""
    videos = VideoDataset(
        settings.train_data_dir,
        settings.resolution,
        settings.num_frames or 1,
        settings.sample_stride,
        skip_bad=settings.skip_bad,
    )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae = load_vae(settings.pretrained_model_name_or_path, settings.revision, device)
    encode_videos(videos, vae, settings.output_dir, settings.num_frames, settings.sample_stride, settings.first_frames)
    logger.info("Encoded %d clips into %s.", len(videos), settings.output_dir)


def run(argv: list[str] | None = None) -> int:
    """Parse the flags and encode; faults of the videos or the model become one message and code 1."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    settings = parse_settings(CachingSettings, __doc__, argv).cache
    try:
        main(settings)
    except (ValueError, OSError, SafetensorError, torch.OutOfMemoryError) as error:
        logger.error("%s", error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run())
