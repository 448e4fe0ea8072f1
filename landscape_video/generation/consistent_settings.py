"""Settings of a long, consistent video (Consistency tuning): its four modules, in the paper's order."""

from dataclasses import dataclass
from typing import Literal

from landscape_video.generation.setting_fields import INTERPOLATION, NOT_PASSED, SAMPLING, setting
from landscape_video.generation.settings import TextToVideoSettings


SEPARATE, FUSION, TUNING, FINAL = (
    "1. Separate tuning: each frame by the image model",
    "2. Average fusion of backgrounds",
    "3. Combined tuning of the model",
    "4. Inter-frame consistency: windows",
)


@dataclass(frozen=True, kw_only=True)
class ConsistentClipSettings(TextToVideoSettings):
    """Settings of a clip that follows another clip and keeps its background consistent."""

    num_frames: int | None = setting(
        None, "Frames of the clip to use, from its first.", SAMPLING, unit="NUMBER", default_text="all", minimum=2
    )
    interpolate: bool = setting(False, "Add a frame between every two: N become 2N - 1.", INTERPOLATION)
    beta_schedule: Literal["linear", "scaled_linear"] | None = setting(
        None,
        "Noise schedule; scaled_linear is that of Stable Diffusion 1.4, which the paper uses.",
        SAMPLING,
        default_text="the model's own",
        argument=NOT_PASSED,
    )
    separate: bool = setting(True, "Generate each frame by the image model; off: use the clip's frames.", SEPARATE)
    strength: float | None = setting(
        None,
        "Share of the noise that the clip's frames start from: 1 ignores their colors.",
        SEPARATE,
        unit="NUMBER",
        default_text="0.6; 1 with a condition",
        minimum=0.01,
        maximum=1,
    )
    frame_noise: Literal["own", "shared"] = setting(
        "own", "Noise of each frame: its own, as in the paper, or one for all frames.", SEPARATE
    )
    fuse: bool = setting(True, "Fuse the backgrounds of the frames; needs masks.", FUSION)
    fusion_frames: int = setting(4, "Frames that are averaged, drawn by the seed.", FUSION, unit="NUMBER", minimum=1)
    fusion_step: float = setting(
        0.6, "Share of the denoising steps before the fusion.", FUSION, unit="NUMBER", minimum=0, maximum=1
    )
    fusion_space: Literal["x0", "xt"] = setting(
        "x0", "Fuse predicted clean latents (x0), or noisy ones as printed in the paper (xt).", FUSION
    )
    background_weight: float = setting(1.0, "Weight w_b of the fused background.", FUSION, unit="NUMBER")
    foreground_weight: float = setting(1.0, "Weight w_f of the foreground.", FUSION, unit="NUMBER")
    tune: bool = setting(True, "Tune the model on the fused frames; takes the longest.", TUNING, argument=NOT_PASSED)
    tuned_layers: Literal["lora", "temporal"] = setting(
        "lora", "What trains: LoRA layers of all attention (lora), or the motion modules (temporal).", TUNING
    )
    tune_steps: int = setting(100, "Training steps.", TUNING, unit="NUMBER", minimum=1)
    learning_rate: float = setting(2e-4, "Learning rate.", TUNING, unit="NUMBER", above=0)
    diffusion_weight: float = setting(1.0, "Weight l1 of L_diff.", TUNING, unit="NUMBER", minimum=0)
    foreground_loss_weight: float = setting(
        1.0, "Weight l2 of the foreground's loss.", TUNING, unit="NUMBER", minimum=0
    )
    background_loss_weight: float = setting(
        1.0, "Weight l3 of the background's loss.", TUNING, unit="NUMBER", minimum=0
    )
    learn_fusion_weights: bool = setting(
        False, "Learn the weights w_b and w_f of the fusion, which then follows the tuning.", TUNING
    )
    windows: bool = setting(
        True, "Sample the clip with motion modules, in overlapping windows; off: end after module 3.", FINAL
    )
    final_strength: float | None = setting(
        None,
        "Share of the noise that the fused frames start from.",
        FINAL,
        unit="NUMBER",
        default_text="0.5; 1 with a condition",
        minimum=0.01,
        maximum=1,
    )
