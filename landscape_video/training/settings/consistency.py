"""Settings of `tune_consistency.py`: combined tuning on clips with masks."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from landscape_video.training.settings.inputs import ModelSettings, adapter_beside
from landscape_video.training.settings.options import OptionGroup, option
from landscape_video.training.settings.training import TrainingSettings
from pipeline_landscape_video import SHANSHUI_TINY


@dataclass(kw_only=True)
class ConsistencyModelSettings(ModelSettings):
    """Models that tuning starts from, and what of them trains."""

    motion_adapter_name_or_path: str | None = option(
        None,
        "motion adapter of the model: a folder, a Hub id, or an AnimateDiff file (.safetensors, .ckpt)",
        default_text="motion_adapter/ in the image model's folder",
        private=True,
    )
    tuned_layers: Literal["lora", "temporal"] = option(
        "lora", "what trains: LoRA layers of all attention (lora), or the motion modules (temporal)"
    )
    lora_rank: int = option(16, "rank of the LoRA layers", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.motion_adapter_name_or_path is None:
            self.motion_adapter_name_or_path = adapter_beside(self.pretrained_model_name_or_path)


@dataclass(kw_only=True)
class ConsistencySettings(OptionGroup):
    """Masks, and the losses of foreground and background."""

    masks_dir: Path | None = option(
        None,
        "masks of videos, named like them: clip_000000.npz, .npy, .mp4, or a folder of frame_0000.png, ...; a latent "
        "cache made by `landscape-video consistent` holds its own",
        default_text="masks/ in TRAIN_DATA_DIR",
        private=True,
    )
    objects: tuple[str, ...] = option(
        (), "arrays of .npz masks that are foreground", nargs="+", metavar="NAME", default_text="all"
    )
    diffusion_weight: float = option(1.0, "weight l1 of L_diff (Consistency tuning Eq. 20)", minimum=0)
    foreground_loss_weight: float = option(1.0, "weight l2 of the foreground's loss", minimum=0)
    background_loss_weight: float = option(1.0, "weight l3 of the background's loss", minimum=0)
    mask_normalization: Literal["area", "none"] = option(
        "area",
        "mean over the pixels of an area, so that a small foreground counts as much as the background (area), or over "
        "all pixels, as printed (none)",
    )
    learn_fusion_weights: bool = option(
        False, "fuse backgrounds in each step, with weights w_b and w_f that train (Consistency tuning Eq. 11)"
    )
    fusion_frames: int = option(4, "frames that --learn_fusion_weights averages", minimum=1)
    beta_schedule: Literal["linear", "scaled_linear"] | None = option(
        None,
        "noise schedule; scaled_linear is that of Stable Diffusion 1.4, which the paper uses",
        default_text="the model's own, linear for scaled_linear",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.diffusion_weight + self.foreground_loss_weight + self.background_loss_weight == 0:
            raise ValueError("`diffusion_weight` and the other loss weights must not all be 0: nothing would train.")


@dataclass(kw_only=True)
class ConsistencyTraining(TrainingSettings):
    """Settings of `tune_consistency.py`."""

    TRACKED_AS: ClassVar[str] = "consistency"
    PRESETS_HELP: ClassVar[str] = (
        "other defaults for all flags: default; tiny (shanshui-tiny on a CPU, with clips of 128 x 128 pixels)"
    )
    DEFAULTS: ClassVar[dict[str, Any]] = {
        "contrastive_weight": 0.0,  # the paper's losses are those of Eq. 20
        "output_dir": Path("consistency"),
        "num_frames_range": (16, 16),
        "sample_stride": (1, 1),
        "learning_rate": 1e-4,
        "max_train_steps": 200,
        "checkpointing_steps": 50,
        "checkpoints_total_limit": 1,
    }
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "default": {},
        "tiny": {"pretrained_model_name_or_path": str(SHANSHUI_TINY), "resolution": 128, "learning_rate": 5e-4},
    }

    model: ConsistencyModelSettings
    consistency: ConsistencySettings

    def __post_init__(self) -> None:
        super().__post_init__()
        for way in ("FSDP", "DEEPSPEED"):  # set by `accelerate launch`
            if os.environ.get(f"ACCELERATE_USE_{way}", "false").lower() == "true":
                raise ValueError("Every process trains all tuned layers: launch without FSDP and DeepSpeed.")
