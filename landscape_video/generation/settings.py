"""Sampling and model settings, each with its type, default, range and help.

Sampling options are declared here and nowhere else; to add one, add a field. The command line makes its flags from
these dataclasses (`landscape_video/cli/options.py`), and `generate_clip` makes the pipeline's arguments and the clip's
metadata from them. A web page or a node graph can make its controls from `dataclasses.fields(...)`.

Importing this file loads no heavy library: `--help` must not wait for torch.
"""

import math
import os
import secrets
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, Self, get_args, get_origin

from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL


# The panels that group options in a help text or on a page.
CONTENT, SAMPLING, MOTION, INTERPOLATION, MODELS, DEVICE = (
    "What to generate",
    "Sampling",
    "Image to video",
    "Interpolation",
    "Models",
    "Device and precision",
)
# `argument` of a setting that is not an argument of the pipeline's call; `generate_clip` uses it itself.
NOT_PASSED = ""

Dtype = Literal["auto", "float32", "float16", "bfloat16"]


def setting(
    default: Any,
    help: str,
    panel: str,
    *,
    unit: str | None = None,
    default_text: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    multiple_of: int | None = None,
    argument: str | None = None,
) -> Any:
    """Declare a field of a settings dataclass.

    Args:
        default: Value of the setting unless another is given. `None` leaves the choice to the model or pipeline.
        help: What the setting does, without its default.
        panel: Heading under which the setting is shown.
        unit: Placeholder of the value in help texts, in capitals: "PIXELS". Not used for choices and switches.
        default_text: The default in words, if the value alone does not explain it.
        minimum: Smallest value allowed.
        maximum: Largest value allowed.
        above: Value that must be exceeded.
        multiple_of: Number that must divide the value.
        argument: The pipeline's keyword for it, `NOT_PASSED` if the pipeline has none; the field's name if `None`.
    """
    return field(
        default=default,
        metadata={
            "help": help,
            "panel": panel,
            "unit": unit,
            "default_text": default_text,
            "minimum": minimum,
            "maximum": maximum,
            "above": above,
            "multiple_of": multiple_of,
            "argument": argument,
        },
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Base of all settings: every value is checked when an object is made.

    Raises:
        ValueError: A value is out of its range. The message begins with the setting's name in backticks.
    """

    def __post_init__(self) -> None:
        for each in fields(self):
            check_value(each, getattr(self, each.name))

    def as_metadata(self) -> dict[str, Any]:
        """Return all settings as JSON-compatible values."""
        return {name: str(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}


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
class VideoSettings(Settings):
    """Settings that any text-to-video pipeline of diffusers takes; `None` leaves a value to the model."""

    negative_prompt: str | None = setting(
        None, "What to keep out of the image.", CONTENT, unit="TEXT", default_text="nothing"
    )
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
class TextToVideoSettings(InterpolationSettings, VideoSettings):
    """Settings of a clip that our text-to-video pipeline generates."""

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

    def with_seed(self) -> Self:
        """Return these settings with a seed: their own, else one drawn at random."""
        return self if self.seed is not None else replace(self, seed=secrets.randbelow(2**32))

    def filled_in(self, arguments: Mapping[str, Any]) -> Self:
        """Return these settings, with each `None` replaced from keywords of the pipeline's call."""
        names = [each for each in fields(self) if getattr(self, each.name) is None]
        return replace(self, **{each.name: arguments.get(argument_name(each)) for each in names})

    def check_memory(self, stages: int = 1) -> None:
        """Raise `ValueError` for a clip that this machine's memory cannot hold.

        The estimate is a lower bound, so that no clip that would run is refused: two copies of the interpolated frames
        in float32 (4 bytes per channel).
        """
        if not hasattr(os, "sysconf"):  # Windows
            return
        height, width, num_frames = self.height or 8, self.width or 8, stages * self.num_frames
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
    lora: list[str] | None = setting(
        None,
        "LoRA weights, applied at the strength they were trained with; may be repeated.",
        MODELS,
        unit="FILE|FOLDER|NAME",
        default_text="none",
    )
    device: str = setting("auto", "Device to compute on: auto, cpu, cuda, cuda:1, mps, ...", DEVICE, unit="DEVICE")
    dtype: Dtype = setting("auto", "Precision; auto is float16 on a GPU and float32 on a CPU.", DEVICE)
    offload: Literal["none", "model", "sequential"] = setting(
        "none", "Keep only the active model on the GPU, or (slower, smaller) only the active layer.", DEVICE
    )

    def as_metadata(self) -> dict[str, Any]:
        """Return all settings as JSON-compatible values; `lora` is an empty list if none is set."""
        return super().as_metadata() | {"lora": self.lora or []}


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


def choices(annotation: Any) -> tuple[str, ...]:
    """Return the values that the type of a setting allows; empty if it is not a `Literal` or `Literal | None`."""
    parts = (annotation, *get_args(annotation))
    return next((get_args(part) for part in parts if get_origin(part) is Literal), ())


def check_value(each: Field, value: Any) -> None:
    """Raise `ValueError` if `value` is outside the range or choices of a field."""
    if value is None:
        return
    limits: Mapping[str, Any] = each.metadata
    minimum, maximum, above = limits["minimum"], limits["maximum"], limits["above"]
    allowed = choices(each.type)
    problem = None
    if allowed and value not in allowed:
        problem = f"one of {', '.join(allowed)}"
    elif isinstance(value, float) and not math.isfinite(value):
        problem = "a finite number"
    elif maximum is not None and not minimum <= value <= maximum:
        problem = f"from {minimum} to {maximum}"
    elif minimum is not None and value < minimum:
        problem = f"at least {minimum}"
    elif above is not None and value <= above:
        problem = f"greater than {above}"
    elif limits["multiple_of"] and value % limits["multiple_of"]:
        problem = f"a multiple of {limits['multiple_of']}"
    if problem:
        raise ValueError(f"`{each.name}` must be {problem}, got {value!r}.")


def pipeline_arguments(settings: Settings, known: type[Settings] | None = None) -> dict[str, Any]:
    """Return the keywords of a pipeline's call; settings that are `None` are left to the pipeline.

    Args:
        known: Class whose fields the pipeline takes; that of `settings` if `None`.
    """
    values = {argument_name(each): getattr(settings, each.name) for each in fields(known or settings)}
    return {argument: value for argument, value in values.items() if argument and value is not None}


def argument_name(each: Field) -> str:
    """Return the pipeline's keyword for a setting; empty if it has none."""
    argument = each.metadata["argument"]
    return each.name if argument is None else argument
