"""Settings of a run: losses and optimizer, output, validation clips and publishing."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import ClassVar, Literal

from landscape_video.training.settings.options import OptionGroup, option
from motion_adapter.hub import check_repo_id
from motion_adapter.model_card import check_license
from motion_adapter.noise_adapter import NEGATIVES, POSITIVES


LOG = "log.jsonl"


@dataclass(kw_only=True)
class ObjectiveSettings(OptionGroup):
    """Losses, and the noise added to clips."""

    contrastive_weight: float = option(
        0.07, "weight of the contrastive loss (NADM Eq. 13: lambda); 0 trains without it", minimum=0
    )
    contrastive_temperature: float = option(0.07, "temperature of the contrastive loss (NADM Eq. 10: tau)", above=0)
    negative_threshold: int = option(
        4, "distance in frames beyond which frames are negatives (NADM Eq. 10: m)", minimum=1
    )
    negatives: Literal[NEGATIVES] = option("all", "frames that negatives are taken from; eq10 leaves out the last one")
    positives: Literal[POSITIVES] = option("next", "positives of an anchor frame (NADM Table IV)")
    snr_gamma: float | None = option(
        None, "gamma of min-SNR weighting (Hang et al., 2023), such as 5", above=0, default_text="off"
    )
    slow_motion_prob: float = option(
        0.0,
        "probability of slowing down the noisy input while the target keeps its speed, so that the model "
        "learns to start motion; only for clips with a caption, where alpha_bar is at most 0.8",
        minimum=0,
        maximum=1,
    )
    freeze_prob: float = option(
        0.0,
        "probability of freezing a slowed-down clip completely; needs --slow_motion_prob",
        minimum=0,
        maximum=1,
        flags=("--freeze_prob", "--standstill_prob"),
    )
    timestep_bias_strategy: Literal["none", "later", "earlier"] = option(
        "none",
        "train the noisiest (later) or the cleanest (earlier) timesteps more often; noisy ones decide what moves",
    )
    timestep_bias_portion: float = option(
        0.25, "fraction of the schedule that --timestep_bias_strategy prefers", above=0
    )
    timestep_bias_multiplier: float = option(2.0, "factor by which preferred timesteps are more frequent", above=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.timestep_bias_portion >= 1:
            raise ValueError(f"`timestep_bias_portion` must be less than 1, got {self.timestep_bias_portion}.")
        if self.freeze_prob > 0 and self.slow_motion_prob == 0:
            raise ValueError("`freeze_prob` is a share of slowed-down clips: set `slow_motion_prob` above 0.")


@dataclass(kw_only=True)
class DistillationSettings(OptionGroup):
    """Distillation of a few-step adapter."""

    # The loader and the checks of all settings read these; nothing here uses the clips, or other losses.
    contrastive_weight: ClassVar[float] = 0.0
    negative_threshold: ClassVar[int] = 1
    negatives: ClassVar[str] = "all"
    slow_motion_prob: ClassVar[float] = 0.0
    freeze_prob: ClassVar[float] = 0.0
    timestep_bias_strategy: ClassVar[str] = "none"
    timestep_bias_portion: ClassVar[float] = 0.25
    timestep_bias_multiplier: ClassVar[float] = 2.0

    student_steps: int = option(4, "denoising steps of the student", minimum=1)
    teacher_steps: int = option(24, "denoising steps of the teacher, a multiple of --student_steps", minimum=2)
    teacher_guidance_scale: float | None = option(
        None, "guidance scale that is distilled into the weights", above=0, default_text="the model's own, else 8"
    )
    rank: int = option(32, "rank of the LoRA weights", minimum=1)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.teacher_steps % self.student_steps or self.teacher_steps == self.student_steps:
            raise ValueError(
                f"`teacher_steps` must be a multiple of `student_steps`, {self.student_steps}, and larger, "
                f"got {self.teacher_steps}."
            )


@dataclass(kw_only=True)
class OptimizationSettings(OptionGroup):
    """Steps, optimizer and learning rate."""

    train_batch_size: int = option(1, "clips per process and forward pass", minimum=1)
    gradient_accumulation_steps: int = option(1, "batches per optimizer step", minimum=1)
    max_train_steps: int = option(40_000, "number of optimizer steps", minimum=1)
    max_train_minutes: float | None = option(
        None,
        "stop after this many minutes, with a checkpoint and exit code 0",
        above=0,
        default_text="no limit",
        free=True,
    )
    optimizer: Literal["adamw", "muon"] = option(
        "adamw",
        "adamw, or muon: Muon for matrices and AdamW for the rest, with about half of AdamW's memory and a larger "
        "learning rate",
    )
    learning_rate: float = option(1e-5, "peak learning rate", above=0)
    lr_scheduler: Literal["constant", "constant_with_warmup", "linear", "cosine"] = option(
        "constant", "learning rate schedule; linear and cosine end at zero"
    )
    lr_warmup_steps: int = option(0, "warm-up steps of all schedules except constant", minimum=0)
    adam_beta1: float = option(0.9, "AdamW: decay of the first moment")
    adam_beta2: float = option(0.999, "AdamW: decay of the second moment")
    adam_weight_decay: float = option(1e-2, "weight decay of AdamW and Muon", minimum=0)
    adam_epsilon: float = option(1e-8, "AdamW: term added to the denominator")
    max_grad_norm: float = option(1.0, "norm that gradients are clipped to", above=0)
    use_ema: bool = option(False, "export an exponential moving average of the weights")
    ema_decay: float = option(0.9999, "decay of --use_ema, approached as (1 + n) / (10 + n)", minimum=0, maximum=1)
    use_8bit_adam: bool = option(False, "AdamW with 8-bit moments: a quarter of the memory; needs bitsandbytes")
    gradient_checkpointing: Literal["attention", "all"] | None = option(
        None,
        "save memory by recomputing layers in the backward pass: attention and motion modules (attention), or "
        "residual blocks as well (all, which the flag alone means)",
        nargs="?",
        const="all",
        default_text="off",
        free=True,
    )
    torch_compile: bool = option(
        False, "compile the UNet: minutes for each number of frames, then faster steps", free=True
    )
    mixed_precision: Literal["no", "fp16", "bf16"] | None = option(
        None, "precision of the forward pass", default_text="as accelerate config says"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.use_8bit_adam and self.optimizer != "adamw":
            raise ValueError(f"`use_8bit_adam` needs `optimizer` adamw, got {self.optimizer}.")


@dataclass(kw_only=True)
class RunSettings(OptionGroup):
    """Output, checkpoints and logs."""

    output_dir: Path = option(
        Path("motion-adapter"), "folder of the trained models, checkpoints and logs", free=True, private=True
    )
    seed: int = option(0, "seed of new weights and of everything that is drawn in training", minimum=0)
    logging_steps: int = option(10, "steps that one line of log.jsonl averages", minimum=1, free=True, private=True)
    checkpointing_steps: int = option(500, "steps between checkpoints", minimum=1, free=True, private=True)
    checkpoints_total_limit: int | None = option(
        None,
        "number of checkpoints to keep; older ones are deleted",
        minimum=1,
        default_text="all",
        free=True,
        private=True,
    )
    resume_from_checkpoint: str | None = option(
        None,
        "checkpoint to resume from; later ones in OUTPUT_DIR are renamed to abandoned-...",
        metavar="latest|PATH",
        default_text="start a new run",
        free=True,
        private=True,
    )
    report_to: tuple[Literal["tensorboard", "trackio", "wandb"], ...] = option(
        (),
        "trackers that get losses, learning rate, speed and validation clips; files in OUTPUT_DIR get them anyway",
        nargs="+",
        default_text="none",
        free=True,
        private=True,
    )

    @property
    def log_file(self) -> Path:
        """File with a line of mean losses for every `logging_steps` steps."""
        return self.output_dir / LOG


@dataclass(kw_only=True)
class ValidationSettings(OptionGroup):
    """Clips that are generated while training runs."""

    validation_steps: int | None = option(
        None,
        "steps between validations, which generate clips and report how much moves",
        minimum=1,
        default_text="never",
        free=True,
    )
    validation_prompts: tuple[str, ...] | None = option(
        None,
        "prompts of validation clips",
        nargs="+",
        metavar="PROMPT",
        default_text="the first training caption",
        free=True,
    )
    validation_inference_steps: int = option(25, "denoising steps of validation clips", minimum=1, free=True)
    validation_guidance_scale: float | None = option(
        None,
        "guidance scale of validation clips",
        default_text="8; the model's own for shanshui-tiny and models trained from it",
        free=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.validation_steps is None and self.validation_prompts:
            raise ValueError("`validation_prompts` are for validation clips: set `validation_steps` as well.")


@dataclass(kw_only=True)
class HubSettings(OptionGroup):
    """Publishing on the Hugging Face Hub."""

    push_to_hub: bool = option(False, "publish the result on the Hugging Face Hub", free=True, private=True)
    hub_model_id: str | None = option(
        None, "repository to publish to, created if it does not exist", metavar="USER/NAME", free=True, private=True
    )
    hub_license: str | None = option(
        None, "license of the weights as the Hub names it, such as apache-2.0", metavar="ID", free=True, private=True
    )
    hub_base_model: str | None = option(
        None,
        "Hub name of the image model, required if it is a folder",
        metavar="NAME",
        free=True,
        private=True,
    )
    hub_private: bool = option(False, "make a new repository private", free=True, private=True)
    hub_strategy: Literal["end", "every_save"] = option(
        "end",
        "publish when training ends, or with each checkpoint",
        free=True,
        private=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.push_to_hub:
            if any(getattr(self, field.name) != field.default for field in fields(self)):
                raise ValueError("`hub_...` settings need `push_to_hub`: set it or drop them.")
            return
        if self.hub_model_id is None or self.hub_license is None:
            raise ValueError("`push_to_hub` needs `hub_model_id` (USER/NAME) and `hub_license`.")
        check_repo_id(self.hub_model_id)
        if self.hub_license == "other":
            raise ValueError(
                "`hub_license` other needs a name: push later with `landscape-video push --license-name`."
            )
        check_license(self.hub_license, None)
