"""Settings of the latent caches that `cache_latents.py` writes."""

from dataclasses import dataclass
from pathlib import Path

from landscape_video.training.settings.options import GroupedSettings, OptionGroup, option


@dataclass(kw_only=True)
class CacheSettings(OptionGroup):
    """Videos to encode, and what to keep of them."""

    pretrained_model_name_or_path: str = option(help="folder or Hub id of a model with the VAE to use", required=True)
    revision: str | None = option(None, "commit, tag or branch of the model's Hub id")
    train_data_dir: Path = option(help="videos, in any layout that train_motion.py reads", required=True)
    output_dir: Path = option(help="folder to write, which must not exist yet", required=True)
    resolution: int = option(256, "height and width of video frames in pixels", minimum=1)
    num_frames: int | None = option(None, "frames to keep of each clip, from its first", minimum=1, default_text="all")
    sample_stride: int = option(1, "frame stride: keep every N-th frame", minimum=1)
    first_frames: int = option(
        0, "for train_image_retention.py: keep the pixels of the first N frames of each clip", minimum=0
    )
    skip_bad: bool = option(False, "encode the other clips if some cannot be used, instead of stopping")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output_dir.exists():
            raise ValueError(f"`output_dir` must not exist yet, got {self.output_dir}.")


@dataclass(kw_only=True)
class CachingSettings(GroupedSettings):
    """Settings of `cache_latents.py`, a single group."""

    cache: CacheSettings
