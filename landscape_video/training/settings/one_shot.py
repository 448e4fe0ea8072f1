"""Settings of one-shot tuning: on one clip, from Python or from the command line of `tune_one_shot.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from landscape_video.training.settings.inputs import ModelSettings
from landscape_video.training.settings.options import GroupedSettings, OptionGroup, option
from landscape_video.training.settings.run import HubSettings, OptimizationSettings, RunSettings
from pipeline_landscape_video.landscape_spatio_temporal_attention import TEMPORAL_ATTENTIONS


TEMPORAL_TARGETS = ("match_source", "literal")
MAX_WINDOW = 16  # frames of a step; a longer clip is tuned in windows


@dataclass(kw_only=True)
class TuningSettings(OptionGroup):
    """What tuning sees and changes."""

    num_frames: int = option(8, "frames to tune on, evenly spaced over the clip", minimum=2, maximum=64)
    temporal_attention: Literal[TEMPORAL_ATTENTIONS] = option(
        "new",
        "temporal attention to train: a new one in every spatial transformer block, or the motion adapter's own",
    )
    temporal_weight: float = option(
        0.1, "weight of the temporal consistency loss (OneShotDepth Eq. 8: lambda)", minimum=0
    )
    temporal_target: Literal[TEMPORAL_TARGETS] = option(
        "match_source",
        "changes between neighboring frames that the temporal loss asks for: those of the clip, or none, as the paper "
        "has it",
    )


@dataclass(kw_only=True)
class OneShotTuning(GroupedSettings):
    """Settings of `tune_one_shot`."""

    TRACKED_AS: ClassVar[str] = "one_shot_tuning"
    DEFAULTS: ClassVar[dict[str, Any]] = {
        "max_train_steps": 500, "learning_rate": 3e-5, "output_dir": Path("tuned"), "checkpointing_steps": 250,
        "checkpoints_total_limit": 1,
    }  # fmt: skip
    PRESETS_HELP: ClassVar[str] = (
        "other defaults for all flags: paper (Stable Diffusion sizes); tiny (shanshui-tiny on a CPU)"
    )
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "tiny": {"learning_rate": 1e-3, "max_train_steps": 300},
    }

    preset: str = "paper"
    tuning: TuningSettings
    optimization: OptimizationSettings
    run: RunSettings

    # The training loop asks for both. Tuning generates no clips for validation, and publishes nothing.
    validation: ClassVar[None] = None
    hub: ClassVar[HubSettings] = HubSettings()
    base_model: ClassVar[str | None] = None


@dataclass(kw_only=True)
class OneShotModelSettings(ModelSettings):
    """Models that tuning starts from."""

    motion_adapter_name_or_path: str | None = option(
        None,
        "motion adapter: a folder, a Hub id, or an AnimateDiff file (.safetensors, .ckpt)",
        default_text="motion_adapter/ in the image model's folder if it has one",
        private=True,
    )
    depth_member: str | None = option(
        None,
        "folder of weights that teach the image model to read depth",
        default_text="depth/ in the image model's folder if it has one",
        private=True,
    )


@dataclass(kw_only=True)
class OneShotClipSettings(OptionGroup):
    """The clip to tune on."""

    video: Path = option(help="clip to tune on: a video, GIF or folder of images", private=True)
    prompt: str = option(help="what the clip shows", private=True)
    depth: str | None = option(
        None,
        "depth of the clip: a folder of images, a video, an .npy or .npz file, a depth model of transformers, or "
        "none; needs a model that reads depth",
        default_text="the renderer's depth if it was saved beside the clip, else the bundled depth model's",
        private=True,
    )
    resolution: int | None = option(
        None, "shorter side of the frames in pixels", minimum=8, default_text="the model's own size"
    )


@dataclass(kw_only=True)
class OneShotTraining(OneShotTuning):
    """Settings of `tune_one_shot.py`."""

    model: OneShotModelSettings
    clip: OneShotClipSettings
