"""All settings of a training run, and the presets that change their defaults.

Everything below the command line takes these dataclasses, so a run can also be set up from Python:

    settings = MotionTraining.from_options(preset="tiny", train_data_dir=Path("clips"), max_train_steps=500)
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from landscape_video.training.settings.inputs import (
    DataSettings,
    ImageSettings,
    ModelSettings,
    MotionModelSettings,
    MovingModelSettings,
    RetentionModelSettings,
)
from landscape_video.training.settings.options import GroupedSettings
from landscape_video.training.settings.run import (
    DistillationSettings,
    HubSettings,
    ObjectiveSettings,
    OptimizationSettings,
    RunSettings,
    ValidationSettings,
)
from motion_adapter.noise_adapter import minimum_frames
from pipeline_landscape_video import SHANSHUI_TINY
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL


@dataclass(kw_only=True)
class TrainingSettings(GroupedSettings):
    """Settings of a training run, in groups.

    Raises:
        ValueError: Settings contradict each other; the message names them.
    """

    TRACKED_AS: ClassVar[str]  # project name in trackers

    preset: str = "paper"
    model: ModelSettings
    data: DataSettings
    objective: ObjectiveSettings
    optimization: OptimizationSettings
    run: RunSettings
    validation: ValidationSettings
    hub: HubSettings

    def __post_init__(self) -> None:
        objective, shortest = self.objective, self.data.num_frames_range[0]
        needed = minimum_frames(objective.negative_threshold, objective.negatives)
        if objective.contrastive_weight > 0 and shortest < needed:
            raise ValueError(
                f"`num_frames_range` must start at {needed} or more, got {shortest}: with "
                f"`negative_threshold` {objective.negative_threshold} and `negatives` {objective.negatives}, shorter "
                "clips contain no negatives."
            )
        if self.hub.push_to_hub and self.base_model is None:
            raise ValueError("`push_to_hub` needs `hub_base_model`, because the image model is a folder.")

    @property
    def base_model(self) -> str | None:
        """The image model's name on the Hub, or shanshui-tiny; None for another folder of this machine."""
        name = self.model.pretrained_model_name_or_path
        if self.hub.hub_base_model is not None:
            return self.hub.hub_base_model
        if not Path(name).exists():
            return name
        return EMBEDDED_MODEL if Path(name).samefile(SHANSHUI_TINY) else None


@dataclass(kw_only=True)
class MotionTraining(TrainingSettings):
    """Settings of `train_motion.py`; the defaults are NADM's."""

    TRACKED_AS: ClassVar[str] = "motion_adapter"
    PRESETS_HELP: ClassVar[str] = (
        "other defaults for all flags: paper; fast (one GPU with 24 GB, bfloat16, 5000 steps of 4 clips); tiny "
        "(shanshui-tiny on a CPU, with clips of 128 x 128 pixels)"
    )

    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "paper": {},
        "fast": {
            "train_batch_size": 4, "learning_rate": 1e-4, "lr_scheduler": "constant_with_warmup",
            "lr_warmup_steps": 200, "max_train_steps": 5000, "mixed_precision": "bf16",
            "gradient_checkpointing": "attention", "use_ema": True, "ema_decay": 0.999, "validation_steps": 500,
        },
        "tiny": {
            "pretrained_model_name_or_path": str(SHANSHUI_TINY), "resolution": 128, "num_frames_range": (8, 16),
            "sample_stride": (1, 1), "train_batch_size": 4, "learning_rate": 5e-4,
            "lr_scheduler": "constant_with_warmup", "lr_warmup_steps": 100, "max_train_steps": 2000, "use_ema": True,
            "ema_decay": 0.998, "checkpointing_steps": 100, "checkpoints_total_limit": 2, "validation_steps": 500,
        },
    }  # fmt: skip

    model: MotionModelSettings


@dataclass(kw_only=True)
class RetentionTraining(TrainingSettings):
    """Settings of `train_image_retention.py`."""

    TRACKED_AS: ClassVar[str] = "image_retention"
    PRESETS_HELP: ClassVar[str] = (
        "other defaults for all flags: paper (8 GPUs); fast (one GPU with 24 GB, bfloat16, 5000 steps of 4 clips); "
        "tiny (shanshui-tiny's branch on a CPU, with clips of 128 x 128 pixels; its text-to-video model does not "
        "change)"
    )

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "contrastive_weight": 0.0,  # DreamVideo trains with the diffusion loss alone
        "output_dir": Path("image-retention"),
    }
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        # 340 000 clips, 5 epochs, batches of 9 on 8 GPUs (DreamVideo, 5.1, which does not state the learning rate).
        "paper": {"train_batch_size": 9, "max_train_steps": 23_611},
        "fast": MotionTraining.PRESETS["fast"],
        # The bundled text-to-video model does not change: its motion modules serve both pipelines, the figures in its
        # card remain true, and the package needs no second adapter.
        "tiny": MotionTraining.PRESETS["tiny"] | {"freeze_motion": True},
    }

    model: RetentionModelSettings
    images: ImageSettings

    def __post_init__(self) -> None:
        super().__post_init__()
        for way in ("FSDP", "DEEPSPEED"):  # set by `accelerate launch`
            if os.environ.get(f"ACCELERATE_USE_{way}", "false").lower() == "true":
                raise ValueError("Every process trains a whole branch: launch without FSDP and DeepSpeed.")
        base = Path(self.model.pretrained_model_name_or_path)
        if self.hub.push_to_hub and base.is_dir() and not (base / "model_index.json").is_file():
            raise ValueError(f"`push_to_hub` publishes the whole pipeline, but {base} has no model_index.json.")
        if self.images.validation_images is None:
            return
        if self.validation.validation_steps is None:
            raise ValueError("`validation_images` are for validation clips: set `validation_steps` as well.")
        images, prompts = len(self.images.validation_images), len(self.validation.validation_prompts or ())
        if images != prompts:
            raise ValueError(
                f"`validation_images` must be as many as `validation_prompts`, got {images} and {prompts}."
            )
        for file in self.images.validation_images:
            if not Path(file).is_file():
                raise ValueError(f"`validation_images` must be existing files, got {file}.")


@dataclass(kw_only=True)
class FewStepTraining(TrainingSettings):
    """Settings of `distill_few_steps.py`."""

    TRACKED_AS: ClassVar[str] = "few_steps"
    PRESETS_HELP: ClassVar[str] = (
        "other defaults for all flags: fast (one GPU with 24 GB, bfloat16, 2000 steps of 2 clips); tiny "
        "(shanshui-tiny on a CPU)"
    )

    DEFAULTS: ClassVar[dict[str, Any]] = {
        "output_dir": Path("few-steps"),
        "caption_dropout_prob": 0.0,  # guidance is distilled into the weights, so the student sees no empty prompt
        "num_frames_range": (16, 16),
        "lr_scheduler": "cosine",
        "use_ema": True,
        "ema_decay": 0.99,
        "validation_inference_steps": 4,
        "validation_guidance_scale": 1.0,
    }
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {
        "fast": {
            "train_batch_size": 2, "learning_rate": 2e-4, "lr_warmup_steps": 50, "max_train_steps": 2000,
            "mixed_precision": "bf16", "gradient_checkpointing": "attention", "validation_steps": 500,
        },
        "tiny": {
            "pretrained_model_name_or_path": str(SHANSHUI_TINY), "resolution": 128, "sample_stride": (1, 1),
            "teacher_steps": 12, "learning_rate": 1e-3, "lr_warmup_steps": 20, "max_train_steps": 600,
            "checkpointing_steps": 50, "checkpoints_total_limit": 2, "logging_steps": 5,
        },
    }  # fmt: skip

    model: MovingModelSettings
    objective: DistillationSettings
