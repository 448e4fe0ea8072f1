"""Settings of the models that training starts from."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from landscape_video.training.settings.options import OptionGroup, option
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
class RetentionModelSettings(ModelSettings):
    """Models that training starts from."""

    motion_adapter_name_or_path: str | None = option(
        None,
        "motion adapter that the branch is trained for: a folder, a Hub id, or an AnimateDiff file (.safetensors, "
        ".ckpt)",
        default_text="motion_adapter/ in the image model's folder",
        private=True,
    )
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.motion_adapter_name_or_path is None:
            folder = Path(self.pretrained_model_name_or_path, MOTION_ADAPTER)
            if not folder.is_dir():
                raise ValueError(
                    f"{self.pretrained_model_name_or_path} has no {MOTION_ADAPTER}/: a branch is trained for a model "
                    "that already moves, so name its adapter with `motion_adapter_name_or_path`."
                )
            self.motion_adapter_name_or_path = str(folder)
