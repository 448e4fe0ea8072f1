"""Sampling and model settings, each with its type, default, range and help.

Sampling options are declared here and nowhere else; to add one, add a field. The command line makes its flags from
these dataclasses (`landscape_video/cli/options.py`), and `generate_clip` makes the pipeline's arguments and the clip's
metadata from them. A web page or a node graph can make its controls from `dataclasses.fields(...)`.

Importing this file loads no heavy library: `--help` must not wait for torch.
"""

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, Self

from landscape_video.generation.setting_fields import (
    CONTENT,
    DEVICE,
    INTERPOLATION,
    LONG_CLIPS,
    MODELS,
    MOTION,
    NOT_PASSED,
    SAMPLING,
    Settings,
    argument_name,
    setting,
)
from motion_adapter.sources import local_path
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL


Dtype = Literal["auto", "float32", "float16", "bfloat16"]
PresetName = Literal["draft", "standard", "fine", "animatelcm", "lightning"]


@dataclass(frozen=True, kw_only=True)
class InterpolationSettings(Settings):
    """Settings of the frames added between sampled ones (sparse optical flow projection, NADM section 3.3)."""

    sofp_mode: Literal["quadratic", "projection", "linear"] = setting(
        "quadratic",
        "Position of a pixel between two frames: on a parabola through its motion (quadratic), at the fraction of "
        "NADM Eq. 14 taken literally (projection), or at constant speed (linear).",
        INTERPOLATION,
    )
    flow: Literal["raft", "raft-small", "dis"] | None = setting(
        None,
        "Optical flow estimator: RAFT (its weights are downloaded once, 20 or 4 MB) or OpenCV's DIS (no weights).",
        INTERPOLATION,
        default_text="RAFT if its weights are on this machine, else DIS",
        argument=NOT_PASSED,
    )
    flow_weights: Path | None = setting(
        None,
        "RAFT weights from a file: a state dict of torchvision's or princeton-vl's RAFT, .safetensors or .pth "
        "(no code in it is run). The file determines which RAFT it is unless `flow` does.",
        INTERPOLATION,
        unit="FILE",
        default_text="torchvision's",
        argument=NOT_PASSED,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.flow_weights is None:
            return
        if self.flow == "dis":
            raise ValueError("`flow_weights` are weights of RAFT, but `flow` is 'dis'; leave one of them out.")
        if not self.flow_weights.is_file():
            raise ValueError(f"`flow_weights` must be a file, got {self.flow_weights}: no such file.")


@dataclass(frozen=True, kw_only=True)
class GuidanceSettings(Settings):
    """Settings of everything that is denoised under a prompt."""

    negative_prompt: str | None = setting(
        None, "What to keep out of the image.", CONTENT, unit="TEXT", default_text="nothing"
    )
    steps: int | None = setting(
        None,
        "Denoising steps: more take longer and add detail.",
        SAMPLING,
        unit="NUMBER",
        default_text="the model's own, else 25",
        minimum=1,
        argument="num_inference_steps",
    )
    guidance_scale: float | None = setting(
        None,
        "How closely to follow the prompt; at 1 or below, the negative prompt has no effect.",
        SAMPLING,
        unit="NUMBER",
        default_text="the model's own, else 8",
        above=0,
    )


@dataclass(frozen=True, kw_only=True)
class SeedSettings(Settings):
    """The seed of what is drawn at random."""

    seed: int | None = setting(
        None,
        "Seed of the noise; the same seed gives the same clip.",
        SAMPLING,
        unit="NUMBER",
        default_text="drawn at random, and printed",
        minimum=0,
        maximum=2**63 - 1,  # torch takes seeds of 64 bits
        argument=NOT_PASSED,
    )

    def with_seed(self) -> Self:
        """Return these settings with a seed: their own, else one drawn at random."""
        return self if self.seed is not None else replace(self, seed=secrets.randbelow(2**32))


@dataclass(frozen=True, kw_only=True)
class VideoSettings(GuidanceSettings):
    """Settings that any text-to-video pipeline of diffusers takes; `None` leaves a value to the model."""

    num_frames: int = setting(16, "Frames to sample.", SAMPLING, unit="NUMBER", minimum=1)
    height: int | None = setting(
        None,
        "Height of the frames, a multiple of 8.",
        SAMPLING,
        unit="PIXELS",
        default_text="the model's own",
        minimum=8,
        multiple_of=8,
    )
    width: int | None = setting(
        None,
        "Width of the frames, a multiple of 8.",
        SAMPLING,
        unit="PIXELS",
        default_text="the model's own",
        minimum=8,
        multiple_of=8,
    )


@dataclass(frozen=True, kw_only=True)
class WindowSettings(Settings):
    """Settings of the overlapping windows of long clips (Consistency tuning, section 3.4)."""

    context_length: int | None = setting(
        None,
        "Frames that are sampled together. More frames than these are sampled in overlapping windows.",
        LONG_CLIPS,
        unit="NUMBER",
        default_text="16",
        minimum=1,
    )
    context_overlap: int | None = setting(
        None,
        "Frames that neighboring windows share.",
        LONG_CLIPS,
        unit="NUMBER",
        default_text="a quarter of the window",
        minimum=0,
    )
    context_schedule: Literal["moved", "static"] = setting(
        "moved", "Move the windows in every step, which hides seams, or keep them (static).", LONG_CLIPS
    )
    context_weights: Literal["pyramid", "flat"] = setting(
        "pyramid", "Weights of a window's frames where windows overlap: most in its middle, or all equal.", LONG_CLIPS
    )


@dataclass(frozen=True, kw_only=True)
class LongClipSettings(WindowSettings):
    """Settings of clips that are sampled in overlapping windows."""

    closed_loop: bool = setting(False, "End where the clip begins, so that it repeats without a jump.", LONG_CLIPS)
    transition: int | None = setting(
        None,
        "Frames in which a prompt over time blends into the next one; 0 switches at once.",
        LONG_CLIPS,
        unit="NUMBER",
        default_text="48, or fewer where prompts are close",
        minimum=0,
    )
    prompt_per_window: bool = setting(
        False, "Give each window one prompt, as in the paper, rather than each frame its own blend.", LONG_CLIPS
    )


@dataclass(frozen=True, kw_only=True)
class ClipSettings(InterpolationSettings, SeedSettings, VideoSettings):
    """Settings of everything that our pipelines sample and interpolate."""

    preset: PresetName | None = setting(
        None,
        "Scheduler, steps and guidance that belong together: draft (4 steps; with few-step weights, without "
        "guidance), standard (10 steps), fine (50 steps), animatelcm or lightning (for the motion modules of "
        "AnimateLCM or AnimateDiff-Lightning).",
        SAMPLING,
        unit="NAME",
        default_text="the model's own sampling",
        argument=NOT_PASSED,
    )
    eta: float | None = setting(
        None,
        "Amount of fresh noise in each step of a DDIM scheduler: 0 is DDIM, 1 is DDPM.",
        SAMPLING,
        unit="NUMBER",
        default_text="the model's own, else 0",
        minimum=0,
        maximum=1,
    )
    interpolate: bool = setting(True, "Add a frame between every two: N become 2N - 1.", INTERPOLATION)
    fps: float | None = setting(
        None,
        "Frames per second of the clip.",
        INTERPOLATION,
        unit="NUMBER",
        default_text="16, or 8 without interpolation",
        above=0,
        argument=NOT_PASSED,
    )

    @property
    def frame_rate(self) -> float:
        """Frames per second of the clip: `fps`, else the rate of the training clips, doubled by interpolation."""
        from pipeline_landscape_video.video_writing import SAMPLED_FPS

        return self.fps or SAMPLED_FPS * (2 if self.interpolate else 1)

    def filled_in(self, arguments: Mapping[str, Any]) -> Self:
        """Return these settings, with each `None` replaced from keywords of the pipeline's call."""
        names = [each for each in fields(self) if getattr(self, each.name) is None]
        return replace(self, **{each.name: arguments.get(argument_name(each)) for each in names})


@dataclass(frozen=True, kw_only=True)
class TextToVideoSettings(LongClipSettings, ClipSettings):
    """Settings of a clip that our text-to-video pipeline generates."""

    @property
    def num_output_frames(self) -> int:
        """Frames of the clip, with those that interpolation adds; in a loop also between the last and the first."""
        return 2 * self.num_frames - (0 if self.closed_loop else 1) if self.interpolate else self.num_frames

    def check_memory(self, stages: int = 1, is_streamed: bool = False) -> None:
        """Raise `ValueError` for a clip that this machine's memory cannot hold.

        The estimate is a lower bound, so that no clip that would run is refused: two copies of the interpolated frames
        in float32 (4 bytes per channel).
        """
        if not hasattr(os, "sysconf"):  # Windows
            return
        height, width, num_frames = self.height or 8, self.width or 8, stages * self.num_frames
        num_frames = min(num_frames, 16) if is_streamed else num_frames  # 16 frames are decoded at once
        needed = 2 * 4 * 3 * (2 * num_frames - 1) * height * width
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > memory:
            raise ValueError(
                f"`num_frames`, `height` and `width` must be smaller: {num_frames} frames of {width} x {height} need "
                f"more than {needed / 2**30:.0f} GiB; this machine has {memory / 2**30:.0f} GiB."
            )


@dataclass(frozen=True, kw_only=True)
class ImageToVideoSettings(TextToVideoSettings):
    """Settings of a clip that begins with an image, in one or several stages."""

    fit: Literal["crop", "pad"] = setting(
        "crop", "How to fit the image to the frames: crop two sides, or pad with white; never distorted.", MOTION
    )
    image_guidance_scale: float | None = setting(
        None,
        "How closely to follow the image: higher values keep more of it and add contrast.",
        MOTION,
        unit="NUMBER",
        default_text="the model's own, else 1.5",
    )
    guidance_order: Literal["picture_first", "text_first"] = setting(
        "picture_first",
        "Guidance term that comes first: the image (InstructPix2Pix Eq. 3, for short prompts that leave the rest as "
        "in the image) or the text (DreamVideo Eq. 5, for prompts that describe everything).",
        MOTION,
    )
    retention_scale: float = setting(
        1.0, "Weight of the image retention branch's residuals; 0 ignores the image.", MOTION, unit="NUMBER"
    )
    hold_first_frame: bool = setting(
        True,
        "Keep the first frame of every stage at the image, as closely as the VAE can; without, the retention branch "
        "alone determines it, as in DreamVideo.",
        MOTION,
    )
    drop_duplicate_frame: bool = setting(
        False, "Drop the first frame of later stages, which repeats the last one of the stage before.", MOTION
    )
    match_stage_colors: bool = setting(False, "Match the colors of later stages to the frame they begin with.", MOTION)


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """Text-to-video model to load, with its device and precision."""

    model: str = setting(
        EMBEDDED_MODEL,
        "Pipeline folder, or its name on the Hugging Face Hub. The default is bundled.",
        MODELS,
        unit="FOLDER|NAME",
    )
    motion_adapter: str | None = setting(
        None,
        "Motion modules for an image model such as Stable Diffusion 1.5.",
        MODELS,
        unit="FOLDER|FILE|NAME",
        default_text="the model's own",
    )
    decoder: str = setting(
        "auto",
        "What turns latents into frames: native is the VAE; auto is the model's decoder of twice the size, if it has "
        "one (the bundled model has); or another such decoder.",
        MODELS,
        unit="auto|native|FOLDER|NAME",
    )
    lora: list[str] | None = setting(
        None,
        "LoRA weights, applied at the strength they were trained with; may be repeated.",
        MODELS,
        unit="FILE|FOLDER|NAME",
        default_text="none",
    )
    device: str = setting("auto", "Device to compute on: auto, cpu, cuda, cuda:1, mps, ...", DEVICE, unit="DEVICE")
    dtype: Dtype = setting("auto", "Precision; auto is float16 on a GPU and float32 on a CPU.", DEVICE)
    optimize: bool = setting(
        True, "Run the models accelerated: the same frames up to rounding, in about half the time on a CPU.", DEVICE
    )
    offload: Literal["none", "model", "sequential"] = setting(
        "none", "Keep only the active model on the GPU, or (slower, smaller) only the active layer.", DEVICE
    )

    def as_metadata(self) -> dict[str, Any]:
        """Return all settings as JSON-compatible values.

        `lora` is an empty list if none is set, and `decoder` is native if the model in a folder has no other.
        """
        folder = local_path(self.model)
        has_none = self.decoder == "auto" and folder is not None and not (folder / "decoder").is_dir()
        return super().as_metadata() | {"lora": self.lora or [], "decoder": "native" if has_none else self.decoder}


@dataclass(frozen=True, kw_only=True)
class ImageModelSettings(ModelSettings):
    """Image-to-video model to load, with its device and precision."""

    image_retention: str | None = setting(
        None,
        "Trained image retention branch, for a model without one.",
        MODELS,
        unit="FOLDER|NAME",
        default_text="the model's own",
    )
