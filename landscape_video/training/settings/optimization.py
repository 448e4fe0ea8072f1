"""Settings of the losses and of the optimizer."""

from dataclasses import dataclass
from typing import Literal

from landscape_video.training.settings.options import OptionGroup, option
from motion_adapter.noise_adapter import NEGATIVES, POSITIVES


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
