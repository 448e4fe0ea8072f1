"""Encode videos into a latent cache, once for many training runs: `python training/cache_latents.py --help`."""

import sys

from landscape_video.training.data.latent_cache import run


if __name__ == "__main__":
    sys.exit(run())
