"""Settings of what training starts from: models, clips and images, and the latent caches of `cache_latents.py`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from landscape_video.training.settings.options import GroupedSettings, OptionGroup, option
from pipeline_landscape_video import SHANSHUI_TINY
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL
from pipeline_landscape_video.landscape_motion_attention import MOTION_NORMS, SPARSE_CAUSAL_MODES


MOTION_ADAPTER = "motion_adapter"  # folder of the adapter, in a pipeline's folder and in OUTPUT_DIR


@dataclass(kw_only=True)
class ModelSettings(OptionGroup):
    """Models that training starts from."""

    pretrained_model_name_or_path: str = option(
        help="image model: shanshui-tiny (bundled), or a folder or Hub id with unet, text_encoder, tokenizer, "
        "scheduler, and vae for videos and validation clips",
        private=True,
    )
    revision: str | None = option(None, "commit, tag or branch of the image model's Hub id")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pretrained_model_name_or_path == EMBEDDED_MODEL:
            self.pretrained_model_name_or_path = str(SHANSHUI_TINY)

    @property
    def source(self) -> tuple[str, str | None]:
        """The image model's folder or Hub id, and its revision."""
        return self.pretrained_model_name_or_path, self.revision


@dataclass(kw_only=True)
class MotionModelSettings(ModelSettings):
    """Models that training starts from."""

    motion_adapter_name_or_path: str | None = option(
        None,
        "motion adapter to start from: a folder, a Hub id, or an AnimateDiff file (.safetensors, .ckpt)",
        default_text="a new adapter",
        private=True,
    )
    sparse_causal_mode: Literal[SPARSE_CAUSAL_MODES] | None = option(
        None,
        "frames that Sparse-Causal attention sees (NADM Eq. 8)",
        default_text="the given adapter's mode, previous for a new one",
    )
    motion_norm: Literal[MOTION_NORMS] | None = option(
        None,
        "statistics of the motion modules' group norm: over all frames of a clip as in diffusers, or over each frame "
        "as in AnimateDiff",
        default_text="the given adapter's norm, clip for a new one",
    )
    no_versatile: bool = option(False, "ablation: fix the output of Versatile attention at zero")
    no_sparse_causal: bool = option(False, "ablation: fix the output of Sparse-Causal attention at zero")
    motion_max_seq_length: int | None = option(
        None,
        "maximum number of frames of a clip",
        minimum=1,
        default_text="the given adapter's, 32 for a new one",
    )
    use_motion_mid_block: bool = option(False, "add a motion module to the mid block")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.no_versatile and self.no_sparse_causal:
            raise ValueError("`no_versatile` and `no_sparse_causal` together leave no temporal attention: drop one.")


@dataclass(kw_only=True)
class MovingModelSettings(ModelSettings):
    """Models that training starts from."""

    motion_adapter_name_or_path: str | None = option(
        None,
        "motion adapter of the model that is trained for: a folder, a Hub id, or an AnimateDiff file (.safetensors, "
        ".ckpt)",
        default_text="motion_adapter/ in the image model's folder",
        private=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.motion_adapter_name_or_path is None:
            self.motion_adapter_name_or_path = adapter_beside(self.pretrained_model_name_or_path)


@dataclass(kw_only=True)
class RetentionModelSettings(MovingModelSettings):
    """Models that training starts from."""

    image_retention_name_or_path: str | None = option(
        None,
        "branch to start from: a folder or a Hub id",
        default_text="a copy of the UNet's encoder",
        private=True,
    )
    freeze_motion: bool = option(
        False,
        "train only the branch; the text-to-video model does not change. The paper and the presets paper and "
        "fast also train the motion modules, which are then written to OUTPUT_DIR/motion_adapter/",
        negatable=True,
    )


def adapter_beside(model: str) -> str:
    """Return the folder of the motion adapter in an image model's folder. Raises a `ValueError` without one."""
    folder = Path(model, MOTION_ADAPTER)
    if not folder.is_dir():
        raise ValueError(
            f"{model} has no {MOTION_ADAPTER}/: this trains a model that already moves, so name its adapter with "
            "`motion_adapter_name_or_path`."
        )
    return str(folder)


def check_range(name: str, values: tuple[int, ...]) -> None:
    """Raise a `ValueError` unless the values are a minimum and a maximum of at least 1."""
    if len(values) != 2 or not 1 <= values[0] <= values[1]:
        raise ValueError(f"`{name}` must be one number or MIN MAX with 1 <= MIN <= MAX, got {list(values)}.")


def default_cache_dir() -> Path:
    """Return the folder of everything that is computed once: $LANDSCAPE_VIDEO_CACHE or ~/.cache/landscape-video."""
    return Path(os.environ.get("LANDSCAPE_VIDEO_CACHE", Path.home() / ".cache" / "landscape-video"))


@dataclass(kw_only=True)
class DataSettings(OptionGroup):
    """Clips to train on."""

    train_data_dir: Path | None = option(
        None,
        "videos with metadata.jsonl or metadata.csv (file_name, text), a CSV file with WebVid's columns, WebDataset "
        "shards (*.tar), or a latent cache made by cache_latents.py; this or --dataset_name is required",
        private=True,
    )
    dataset_name: str | None = option(None, "Hub id of a dataset in one of these layouts")
    dataset_revision: str | None = option(None, "commit, tag or branch of --dataset_name")
    caption_column: str = option("text", "column or key of the caption in a table or shard")
    trigger_word: str | None = option(None, "word to put before every caption; prompts recall the style with it")
    skip_bad: bool = option(
        False,
        "train without unusable clips instead of stopping; OUTPUT_DIR/clips_report.jsonl lists them with reasons",
    )
    resolution: int | None = option(None, "height and width of video frames in pixels", minimum=1, default_text="256")
    num_frames_range: tuple[int, int] = option(
        (8, 8),
        "frames of a clip; with two numbers, each step draws a length between them",
        nargs="+",
        metavar=("MIN", "MAX"),
    )
    sample_stride: tuple[int, int] | None = option(
        None,
        "frame stride: use every N-th frame; with two numbers, each clip draws a stride between them",
        nargs="+",
        metavar=("MIN", "MAX"),
        default_text="4 for videos, 1 for a latent cache",
    )
    caption_dropout_prob: float = option(
        0.1, "probability of replacing a caption with the empty prompt", minimum=0, maximum=1
    )
    dataloader_num_workers: int = option(
        0,
        "worker processes that load clips; 0 loads them in the training process",
        minimum=0,
        free=True,
        private=True,
    )
    cache_dir: Path | None = option(
        None,
        "folder of encoded videos and captions, reused until they or the models change; several machines must share "
        "one",
        default_text="$LANDSCAPE_VIDEO_CACHE or ~/.cache/landscape-video",
        free=True,
        private=True,
    )
    no_cache: bool = option(False, "decode and encode videos in every step instead of using --cache_dir")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.train_data_dir is None) == (self.dataset_name is None):
            raise ValueError("Exactly one of `train_data_dir` and `dataset_name` must be given.")
        if self.dataset_revision is not None and self.dataset_name is None:
            raise ValueError("`dataset_revision` is a version of `dataset_name`: give both or neither.")
        check_range("num_frames_range", self.num_frames_range)
        if self.sample_stride is not None:
            check_range("sample_stride", self.sample_stride)
        if self.cache_dir is None:
            self.cache_dir = default_cache_dir()


@dataclass(kw_only=True)
class ImageSettings(OptionGroup):
    """Images that an image retention branch sees in training and validation."""

    image_dropout_prob: float = option(
        0.1,
        "probability of replacing a clip's image with the null image (white), independent of caption dropout",
        minimum=0,
        maximum=1,
    )
    first_frame_weight: float = option(
        1.0,
        "weight of the first frame in the loss, where each other frame has 1. A larger weight makes the first frame "
        "match the image sooner and more closely; the paper uses 1",
        above=0,
    )
    validation_images: tuple[str, ...] | None = option(
        None,
        "images to animate for --validation_steps, one for each of --validation_prompts; use held-out images",
        nargs="+",
        metavar="FILE",
        default_text="the first frame of the first training clip",
        free=True,
        private=True,
    )
    validation_image_guidance_scale: float = option(
        1.5, "image guidance scale of validation clips (DreamVideo Eq. 5: s_i)", free=True
    )


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
