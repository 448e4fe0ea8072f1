"""Run any text-to-video pipeline of diffusers by one call: prompt and seed in, uint8 frames out.

Pipelines differ in how they are assembled and in the names of their arguments; each such form is a class below.
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape_video.evaluation.metrics.weights import hash_configs, hash_weights
from landscape_video.generation.generate_clip import generate_clip
from landscape_video.generation.models import find_pipeline, find_weights, load_lora, load_motion_adapter, naming
from landscape_video.generation.setting_fields import Settings, argument_name, pipeline_arguments
from landscape_video.generation.settings import TextToVideoSettings, VideoSettings
from pipeline_landscape_video.landscape_optical_flow import estimator_at_hand
from pipeline_landscape_video.landscape_sampling import resolve_sampling
from pipeline_landscape_video.quiet_loading import less_chatter


# Steps and guidance are the form's own unless they are given; clips are compared as they were sampled.
DEFAULTS = TextToVideoSettings(interpolate=False)


@dataclass(frozen=True)
class SystemSpec:
    """A system that makes clips.

    Args:
        name: Its name in tables.
        form: One of `FORMS`.
        model: Folder of its pipeline, or name on the Hub.
        adapter: Motion modules, for forms that take them: folder, file or name on the Hub.
        lora: LoRA weights: file, folder or name on the Hub.
        settings: How clips are sampled; `None` is the form's own value, or the pipeline's if the form has none. With
            `interpolate`, for our own pipelines only, `num_frames // 2 + 1` frames are sampled and those in between
            interpolated, then cut to `num_frames`.
        dtype: Precision of the weights, as torch names it.

    Raises:
        ValueError: An unknown form, a missing adapter, or one that the form does not take.
    """

    name: str
    form: str
    model: str
    adapter: str | None = None
    lora: str | None = None
    settings: TextToVideoSettings = DEFAULTS
    dtype: str = "float32"

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"{self.name}: the form must be one of {', '.join(FORMS)}, got {self.form!r}.")
        if FORMS[self.form].needs_adapter and self.adapter is None:
            raise ValueError(f"{self.name}: {self.form} needs adapter=FOLDER, its motion modules.")
        if not FORMS[self.form].takes_adapter and self.adapter is not None:
            raise ValueError(f"{self.name}: {self.form} takes no adapter; leave it out.")

    def record(self) -> dict[str, Any]:
        """Everything that determines the clips: settings, and the hashes of each part's weights and configuration.

        Defaults are recorded by value: another version of this program may have others.
        """
        form = FORMS[self.form]
        sources = {"model": self.model, "adapter": self.adapter, "lora": self.lora}
        record = {"form": self.form, **sources, "interpolate": self.settings.interpolate, "dtype": self.dtype}
        with naming(self.name, self.model):
            paths = {"model": find_pipeline(self.model, form.pipeline_class)}
            paths |= {role: find_weights(sources[role]) for role in ("adapter", "lora") if sources[role]}
            for role, path in paths.items():
                record |= {f"{role}_sha256": hash_weights(path), f"{role}_config_sha256": hash_configs(path)}
        settings = self.settings.filled_in(form.published(paths["model"]))
        record |= {
            each.name: getattr(settings, each.name) for each in fields(form.settings_class) if argument_name(each)
        }
        if self.settings.interpolate:
            record["flow_estimator"] = estimator_at_hand()
        return record


class PipelineRunner:
    """A loaded system on its device. Subclasses are the forms: how a pipeline is assembled and called.

    Args:
        spec: The system.
        device: Device to compute on.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: A part is missing or does not load; the message begins with
            the system's name.
    """

    library, class_name = "diffusers", "DiffusionPipeline"
    needs_adapter = takes_adapter = False
    # What the authors publish; None is left to the pipeline.
    steps: int | None = None
    guidance_scale: float | None = None
    lora_scale = 1.0
    # Parts of the pipeline that do not come from the model's folder.
    parts: dict[str, Any] = {}
    # A scheduler of diffusers instead of the model's, and what it changes in the configuration of that.
    scheduler: str | None = None
    scheduler_changes: dict[str, Any] = {}
    # The class whose fields the pipeline's call takes.
    settings_class: type[Settings] = VideoSettings

    def __init__(self, spec: SystemSpec, device: str | torch.device) -> None:
        self.spec = spec
        dtype, parts = getattr(torch, spec.dtype), dict(self.parts)
        with naming(spec.name, spec.model), less_chatter():
            if spec.adapter is not None:
                parts["motion_adapter"] = load_motion_adapter(find_weights(spec.adapter), dtype)
            folder = find_pipeline(spec.model, self.pipeline_class)
            self.settings = spec.settings.filled_in(self.published(folder))
            self.pipe = self.pipeline_class().from_pretrained(folder, dtype=dtype, **parts)
            if spec.lora is not None:
                load_lora(self.pipe, find_weights(spec.lora), "lora")
                self.pipe.set_adapters(["lora"], [self.lora_scale])
            if self.scheduler is not None:
                scheduler_class = getattr(import_module("diffusers"), self.scheduler)
                self.pipe.scheduler = scheduler_class.from_config(self.pipe.scheduler.config, **self.scheduler_changes)
            self.pipe.to(device)
        self.pipe.set_progress_bar_config(disable=True)

    @classmethod
    def pipeline_class(cls) -> Any:
        """The class of the pipeline, imported only now: each takes seconds."""
        return getattr(import_module(cls.library), cls.class_name)

    @classmethod
    def published(cls, folder: Path) -> dict[str, Any]:
        """Keywords of the pipeline's call that its authors recommend, for the pipeline in `folder`."""
        return {"num_inference_steps": cls.steps, "guidance_scale": cls.guidance_scale}

    def arguments(self) -> dict[str, Any]:
        """The settings as keywords of the pipeline's call."""
        return pipeline_arguments(self.settings, self.settings_class)

    def sample(self, prompt: str, seed: int) -> Any:
        """Frames of a clip, each `(height, width, 3)` in [0, 1]: an array, or a list from some pipelines."""
        arguments = self.arguments()
        known = inspect.signature(self.pipe.__call__).parameters
        if unknown := [name for name in arguments if name not in known]:  # some calls ignore them silently
            raise ValueError(f"{type(self.pipe).__name__} takes no {', '.join(unknown)}.")
        generator = torch.Generator().manual_seed(seed)  # on the CPU: a seed means the same everywhere
        return self.frames_of(self.pipe(prompt, generator=generator, output_type="np", **arguments))

    def frames_of(self, output: Any) -> Any:
        """The first clip of the pipeline's output."""
        return output.frames[0]

    def generate(self, prompt: str, seed: int) -> np.ndarray:
        """A clip, uint8 `(num_frames, height, width, 3)`.

        Raises:
            ValueError: The pipeline does not take a setting, computes NaN, or returns too few frames.
        """
        num_frames = self.spec.settings.num_frames
        try:
            frames = np.stack([np.asarray(frame) for frame in self.sample(prompt, seed)])
            if not np.isfinite(frames).all():
                raise ValueError(f"the pipeline computed NaN in {self.spec.dtype}.")
            if len(frames) < num_frames:
                raise ValueError(f"the pipeline must return {num_frames} frames, got {len(frames)}.")
        except (ValueError, FloatingPointError) as error:
            raise ValueError(f"{self.spec.name}: {error}") from error
        return (frames[:num_frames].clip(0, 1) * 255).round().astype(np.uint8)


class Landscape(PipelineRunner):
    """A pipeline of ours, or the parts of Stable Diffusion with a motion adapter."""

    library, class_name = "pipeline_landscape_video", "LandscapeVideoPipeline"
    takes_adapter = True
    settings_class = TextToVideoSettings

    @classmethod
    def published(cls, folder: Path) -> dict[str, Any]:
        config = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
        return resolve_sampling(config, "text")

    def sample(self, prompt: str, seed: int) -> np.ndarray:
        settings = replace(self.settings, seed=seed)
        if settings.interpolate:
            settings = replace(settings, num_frames=settings.num_frames // 2 + 1)
        return generate_clip(self.pipe, prompt, settings).frames


class AnimateDiff(PipelineRunner):
    """AnimateDiff as in diffusers: the parts of Stable Diffusion, a motion adapter, and DDIM with linear betas."""

    class_name = "AnimateDiffPipeline"
    needs_adapter = takes_adapter = True
    steps, guidance_scale = 25, 7.5
    scheduler = "DDIMScheduler"
    scheduler_changes = {
        "beta_schedule": "linear",
        "clip_sample": False,
        "steps_offset": 1,
        "timestep_spacing": "linspace",
    }


class AnimateLCM(AnimateDiff):
    """AnimateLCM: its adapter, its LoRA at 0.8, the LCM scheduler, few steps."""

    steps, guidance_scale, lora_scale = 6, 2.0, 0.8
    scheduler, scheduler_changes = "LCMScheduler", {"beta_schedule": "linear"}


class AnimateDiffLightning(AnimateDiff):
    """AnimateDiff-Lightning: a distilled adapter, Euler with trailing steps, no guidance."""

    steps, guidance_scale = 4, 1.0
    scheduler = "EulerDiscreteScheduler"
    scheduler_changes = {"beta_schedule": "linear", "timestep_spacing": "trailing"}


class Text2VideoZero(PipelineRunner):
    """Text2Video-Zero: an image model whose frames attend to the first one, with latents moved between steps."""

    class_name = "TextToVideoZeroPipeline"
    steps, guidance_scale = 50, 7.5
    parts = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    def arguments(self) -> dict[str, Any]:
        arguments = super().arguments()
        arguments["video_length"] = arguments.pop("num_frames")
        # The published 44 and 47 of 50 steps: with fewer steps, the latents are moved at the same fraction of them.
        steps = arguments["num_inference_steps"]
        t0 = min(round(44 / 50 * steps), steps - 3)
        if t0 < 1:
            raise ValueError(f"`steps` must be at least 4 for Text2Video-Zero, got {steps}.")
        return arguments | {"t0": t0, "t1": max(t0 + 1, min(round(47 / 50 * steps), steps - 2))}

    def frames_of(self, output: Any) -> np.ndarray:
        return output.images


class Diffusers(PipelineRunner):
    """Any other pipeline of diffusers that takes `num_frames` and returns `frames`: ModelScope, CogVideoX, Wan."""


FORMS: dict[str, type[PipelineRunner]] = {
    "landscape": Landscape,
    "animatediff": AnimateDiff,
    "animatelcm": AnimateLCM,
    "animatediff-lightning": AnimateDiffLightning,
    "text2video-zero": Text2VideoZero,
    "diffusers": Diffusers,
}


def parse_system(text: str, settings: TextToVideoSettings = DEFAULTS, dtype: str = "float32") -> SystemSpec:
    """A system from one line, `FORM=MODEL[,adapter=...][,lora=...][,name=...][,steps=...][,guidance=...]`.

    Args:
        text: The line.
        settings: Settings of all systems. Its steps and guidance are not used, as those of one pipeline suit no other.
        dtype: Precision of the weights.

    Raises:
        ValueError: The line is of another shape, or has an unknown key or form, or a value that is not a number.
    """
    form, equals, rest = text.partition("=")
    model, *pairs = rest.split(",")
    if not (form and equals and model):
        raise ValueError(f"a system must be FORM=MODEL[,adapter=...][,steps=...], ..., got {text!r}.")
    converters: dict[str, Callable[[str], Any]] = {"steps": int, "guidance": float, "adapter": str, "lora": str}
    values: dict[str, Any] = {"name": form}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in (*converters, "name") or not equals or not value:
            raise ValueError(f"{text!r}: expected {', '.join(converters)} or name, each with =VALUE, got {pair!r}.")
        try:
            values[key] = converters.get(key, str)(value)
        except ValueError as error:
            raise ValueError(f"{text!r}: {key} must be a number, got {value!r}.") from error
    own = {"steps": values.pop("steps", None), "guidance_scale": values.pop("guidance", None)}
    own["interpolate"] = settings.interpolate and form == "landscape"
    return SystemSpec(form=form, model=model, settings=replace(settings, **own), dtype=dtype, **values)
