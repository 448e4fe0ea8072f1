"""Settings of a long, consistent video (Consistency tuning): its four modules, in the paper's order."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from landscape_video.generation.setting_fields import INTERPOLATION, NOT_PASSED, SAMPLING, setting
from landscape_video.generation.settings import TextToVideoSettings


CONDITION = "Condition that keeps the structure of the clip"
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
    controlnet: str | None = setting(
        None, "ControlNet of the model.", CONDITION, unit="FOLDER|NAME", default_text="none", argument=NOT_PASSED
    )
    t2i_adapter: str | None = setting(
        None, "T2I-Adapter of the model.", CONDITION, unit="FOLDER|NAME", default_text="none", argument=NOT_PASSED
    )
    detector: Literal["canny", "soft_edges", "depth"] | None = setting(
        None, "What to make of the clip for the network to see.", CONDITION, default_text="none"
    )
    condition_video: Path | None = setting(
        None,
        "Images for the network to see, such as poses, instead of a detector.",
        CONDITION,
        unit="FILE|FOLDER",
        default_text="none",
    )
    condition_scale: float = setting(1.0, "Factor of the network's residuals.", CONDITION, unit="NUMBER", minimum=0)
    depth: str | None = setting(
        None,
        "Depth for the detector: a file or folder, bundled, or a depth model of transformers.",
        CONDITION,
        unit="FILE|FOLDER|NAME",
        default_text="that which the renderer wrote beside the clip, else bundled",
    )
    fuse: bool = setting(True, "Fuse the backgrounds of the frames; needs masks.", FUSION)
    segmenter: str | None = setting(
        None,
        "SAM, SAM 2 or SAM 3 that makes the masks from the frames of module 1.",
        FUSION,
        unit="FOLDER|NAME",
        default_text="none",
    )
    points: list[str] | None = setting(
        None,
        "Points on an object in the first frame of the clip, in pixels, for `segmenter`; may be repeated.",
        FUSION,
        unit="X,Y;X,Y",
        default_text="none",
    )
    boxes: list[str] | None = setting(
        None,
        "Box around an object in the first frame of the clip, for `segmenter`; may be repeated.",
        FUSION,
        unit="LEFT,TOP,RIGHT,BOTTOM",
        default_text="none",
    )
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

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.controlnet is not None and self.t2i_adapter is not None:
            raise ValueError("give either `controlnet` or `t2i_adapter`, not both.")
        if self.detector is not None and self.condition_video is not None:
            raise ValueError("give either `detector` or `condition_video`, not both.")
        has_network = self.controlnet is not None or self.t2i_adapter is not None
        has_images = self.detector is not None or self.condition_video is not None
        if has_network and not has_images:
            raise ValueError("a condition network needs `detector` or `condition_video`; add one.")
        if has_images and not has_network:
            raise ValueError("`detector` and `condition_video` need `controlnet` or `t2i_adapter`; add one.")
        if self.segmenter is not None and not (self.points or self.boxes):
            raise ValueError("`segmenter` needs `points` or `boxes` of each object; add them.")
        if self.segmenter is None and (self.points or self.boxes):
            raise ValueError("`points` and `boxes` are for `segmenter`; add it, or give `masks`.")

    @property
    def network(self) -> tuple[str, str] | None:
        """Kind and source of the condition network, `None` without one."""
        names = {"controlnet": self.controlnet, "t2i_adapter": self.t2i_adapter}
        return next(((kind, source) for kind, source in names.items() if source is not None), None)
