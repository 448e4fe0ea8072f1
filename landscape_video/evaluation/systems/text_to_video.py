"""Any text-to-video pipeline of diffusers through one call: prompt and seed in, uint8 frames out.

What differs between them is how they are put together and what their call is named; each such form is a class below.
"""

import inspect
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from landscape_video.evaluation.metrics.weights import hash_configs, hash_weights
from landscape_video.evaluation.systems.model_sources import (
    add_lora,
    load_adapter,
    local_source,
    naming,
    pipeline_folder,
)
from pipeline_landscape_video.embedded_model import choose_sampling, default_sampling
from pipeline_landscape_video.landscape_optical_flow import estimator_at_hand
from pipeline_landscape_video.quiet_loading import less_chatter


@dataclass(frozen=True)
class Settings:
    """What is asked of a system; None is the form's own default, or the pipeline's where the form has none.

    `interpolate` samples (num_frames // 2 + 1) frames and fills in between, then cuts to `num_frames`: for pipelines
    of ours only.
    """

    num_frames: int = 16
    height: int | None = None
    width: int | None = None
    steps: int | None = None
    guidance_scale: float | None = None
    negative_prompt: str | None = None
    interpolate: bool = False
    dtype: str = "float32"


@dataclass(frozen=True)
class SystemSpec:
    """A system that makes clips: its name in tables, its form (one of `FORMS`) and where its weights are."""

    name: str
    form: str
    model: str
    adapter: str | None = None
    lora: str | None = None
    settings: Settings = Settings()

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"{self.name}: there is no form {self.form!r}; there are {', '.join(FORMS)}.")
        if FORMS[self.form].needs_adapter and self.adapter is None:
            raise ValueError(f"{self.name}: {self.form} needs adapter=FOLDER, its motion modules.")
        if not FORMS[self.form].takes_adapter and self.adapter is not None:
            raise ValueError(f"{self.name}: {self.form} takes no adapter.")

    def record(self) -> dict[str, Any]:
        """Everything that decides the clips, with the hashes of every part's weights and configuration. A setting that
        was not given is the default that stands for it: another version of this program may have another."""
        sources = {"model": self.model, "adapter": self.adapter, "lora": self.lora}
        hashes = {}
        with naming(self.name, self.model):
            paths = {"model": pipeline_folder(self.model, FORMS[self.form].pipeline_class)}
            paths |= {role: local_source(sources[role]) for role in ("adapter", "lora") if sources[role]}
            for role, path in paths.items():
                hashes |= {f"{role}_sha256": hash_weights(path), f"{role}_config_sha256": hash_configs(path)}
            defaults = FORMS[self.form].defaults(paths["model"])
        settings = asdict(self.settings)
        settings |= {name: value for name, value in defaults.items() if settings.get(name) is None}
        if self.settings.interpolate:
            settings["flow_estimator"] = estimator_at_hand()
        return {"form": self.form, **sources, **hashes, **settings}


class Painter:
    """A loaded system, on its device.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: a part is not there or does not load; the message begins with
            the system's name.
    """

    needs_adapter = takes_adapter = False
    steps: int | None = None
    guidance_scale: float | None = None
    lora_scale = 1.0

    def __init__(self, spec: SystemSpec, device: str | torch.device) -> None:
        self.spec = spec
        dtype = getattr(torch, spec.settings.dtype)
        with naming(spec.name, spec.model), less_chatter():
            folder, parts = pipeline_folder(spec.model, self.pipeline_class), self.parts(spec, dtype)
            self.pipe = self.pipeline_class().from_pretrained(folder, dtype=dtype, **parts)
            self.finish(spec)
            self.pipe.to(device)
        self.pipe.set_progress_bar_config(disable=True)

    @staticmethod
    def pipeline_class() -> Any:
        """The class of diffusers, imported only now: each takes seconds."""
        from diffusers import DiffusionPipeline

        return DiffusionPipeline

    @classmethod
    def defaults(cls, folder: Path) -> dict[str, Any]:
        """What stands for settings that are not given, for the pipeline in `folder`."""
        return {"steps": cls.steps, "guidance_scale": cls.guidance_scale}

    def parts(self, spec: SystemSpec, dtype: torch.dtype) -> dict[str, Any]:
        """What does not come from the model's folder."""
        return {}

    def finish(self, spec: SystemSpec) -> None:
        """What happens to `self.pipe` after it was put together."""
        if spec.lora is not None:
            add_lora(self.pipe, spec.lora, self.lora_scale)

    def arguments(self, settings: Settings) -> dict[str, Any]:
        """The settings in the words of the pipeline's call; None is left to the pipeline."""
        return {
            "num_frames": settings.num_frames,
            "height": settings.height,
            "width": settings.width,
            "num_inference_steps": self.steps if settings.steps is None else settings.steps,
            "guidance_scale": self.guidance_scale if settings.guidance_scale is None else settings.guidance_scale,
            "negative_prompt": settings.negative_prompt,
        }

    def frames_of(self, output: Any) -> np.ndarray:
        """The first clip of what the pipeline returns, (num_frames, height, width, 3) in [0, 1]."""
        return output.frames[0]

    def paint(self, prompt: str, seed: int) -> np.ndarray:
        """A clip, uint8 (num_frames, height, width, 3). Noise is drawn on the CPU: a seed means the same everywhere.

        Raises:
            ValueError: the pipeline does not take a setting, computes NaN, or makes fewer frames than were asked for.
        """
        settings = self.spec.settings
        try:
            given = {name: value for name, value in self.arguments(settings).items() if value is not None}
            self.check_arguments(given)
            generator = torch.Generator().manual_seed(seed)
            frames = self.frames_of(self.pipe(prompt, generator=generator, output_type="np", **given))
            frames = np.stack([np.asarray(frame) for frame in frames])  # some return a list of frames
            if not np.isfinite(frames).all():
                raise ValueError(f"computed NaN in {settings.dtype}.")
            if len(frames) < settings.num_frames:
                raise ValueError(f"made {len(frames)} frames, but {settings.num_frames} are needed.")
        except ValueError as error:
            raise ValueError(f"{self.spec.name}: {error}") from error
        return (frames[: settings.num_frames].clip(0, 1) * 255).round().astype(np.uint8)

    def check_arguments(self, given: dict[str, Any]) -> None:
        """Raise `ValueError` for what the pipeline's call does not know: some swallow it and say nothing."""
        known = inspect.signature(self.pipe.__call__).parameters
        if unknown := [name for name in given if name not in known]:
            raise ValueError(f"{type(self.pipe).__name__} takes no {', '.join(unknown)}.")


class Landscape(Painter):
    """A pipeline of ours, or Stable Diffusion's parts with a motion adapter."""

    takes_adapter = True
    steps = 25

    @staticmethod
    def pipeline_class() -> Any:
        from pipeline_landscape_video import LandscapeVideoPipeline

        return LandscapeVideoPipeline

    @classmethod
    def defaults(cls, folder: Path) -> dict[str, Any]:
        config = json.loads((folder / "unet" / "config.json").read_text(encoding="utf-8"))
        return super().defaults(folder) | default_sampling(config)._asdict()

    def parts(self, spec: SystemSpec, dtype: torch.dtype) -> dict[str, Any]:
        return {} if spec.adapter is None else {"motion_adapter": load_adapter(spec.adapter, dtype)}

    def arguments(self, settings: Settings) -> dict[str, Any]:
        given = super().arguments(settings) | {"interpolate": settings.interpolate}
        given |= choose_sampling(self.pipe, settings.guidance_scale)
        if settings.interpolate:
            given["num_frames"] = settings.num_frames // 2 + 1
        return given


class AnimateDiff(Painter):
    """AnimateDiff as diffusers has it: Stable Diffusion's parts and a motion adapter, DDIM with linear betas."""

    needs_adapter = takes_adapter = True
    steps, guidance_scale = 25, 7.5

    @staticmethod
    def pipeline_class() -> Any:
        from diffusers import AnimateDiffPipeline

        return AnimateDiffPipeline

    def parts(self, spec: SystemSpec, dtype: torch.dtype) -> dict[str, Any]:
        return {"motion_adapter": load_adapter(spec.adapter, dtype)}

    def finish(self, spec: SystemSpec) -> None:
        super().finish(spec)
        self.pipe.scheduler = self.scheduler(self.pipe.scheduler.config)

    def scheduler(self, config: dict[str, Any]) -> Any:
        """What takes the place of the image model's scheduler."""
        from diffusers import DDIMScheduler

        changes = {"beta_schedule": "linear", "clip_sample": False, "steps_offset": 1}
        return DDIMScheduler.from_config(config, timestep_spacing="linspace", **changes)


class AnimateLCM(AnimateDiff):
    """AnimateLCM: its adapter, its LoRA at 0.8, the LCM scheduler, few steps."""

    steps, guidance_scale, lora_scale = 6, 2.0, 0.8

    def scheduler(self, config: dict[str, Any]) -> Any:
        from diffusers import LCMScheduler

        return LCMScheduler.from_config(config, beta_schedule="linear")


class AnimateDiffLightning(AnimateDiff):
    """AnimateDiff-Lightning: a distilled adapter, Euler with trailing steps, no guidance."""

    steps, guidance_scale = 4, 1.0

    def scheduler(self, config: dict[str, Any]) -> Any:
        from diffusers import EulerDiscreteScheduler

        return EulerDiscreteScheduler.from_config(config, timestep_spacing="trailing", beta_schedule="linear")


class Text2VideoZero(Painter):
    """Text2Video-Zero: an image model whose frames look at the first one, and latents that are moved."""

    steps, guidance_scale = 50, 7.5

    @staticmethod
    def pipeline_class() -> Any:
        from diffusers import TextToVideoZeroPipeline

        return TextToVideoZeroPipeline

    def parts(self, spec: SystemSpec, dtype: torch.dtype) -> dict[str, Any]:
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}

    def arguments(self, settings: Settings) -> dict[str, Any]:
        given = super().arguments(settings)
        given["video_length"] = given.pop("num_frames")
        # The published 44 and 47 of 50 steps: when the latents are moved, at the same place among fewer steps.
        steps = given["num_inference_steps"]
        t0 = min(round(44 / 50 * steps), steps - 3)
        if t0 < 1:
            raise ValueError(f"Text2Video-Zero moves latents between steps: {steps} steps are too few, 4 are needed.")
        return given | {"t0": t0, "t1": max(t0 + 1, min(round(47 / 50 * steps), steps - 2))}

    def frames_of(self, output: Any) -> np.ndarray:
        return output.images


class Diffusers(Painter):
    """Any other pipeline of diffusers that takes `num_frames` and returns `frames`: ModelScope's, CogVideoX, Wan."""


FORMS: dict[str, type[Painter]] = {
    "landscape": Landscape,
    "animatediff": AnimateDiff,
    "animatelcm": AnimateLCM,
    "animatediff-lightning": AnimateDiffLightning,
    "text2video-zero": Text2VideoZero,
    "diffusers": Diffusers,
}


def parse_system(text: str, settings: Settings) -> SystemSpec:
    """A system from one line, `FORM=MODEL[,adapter=...][,lora=...][,name=...][,steps=...][,guidance=...]`.

    Raises:
        ValueError: another shape, an unknown key or form, or a number that is none.
    """
    form, equals, rest = text.partition("=")
    model, *pairs = rest.split(",")
    if not (form and equals and model):
        raise ValueError(f"{text!r} has to be of the form FORM=MODEL[,adapter=...][,steps=...], ...")
    converters: dict[str, Callable[[str], Any]] = {"steps": int, "guidance": float, "adapter": str, "lora": str}
    values: dict[str, Any] = {"name": form}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if key not in (*converters, "name") or not equals or not value:
            raise ValueError(f"{text!r}: {pair!r} is none of {', '.join(converters)} and name, each with =VALUE.")
        try:
            values[key] = converters.get(key, str)(value)
        except ValueError as error:
            raise ValueError(f"{text!r}: {key} has to be a number, not {value!r}.") from error
    # A step count for one pipeline says nothing about another: what was given for ours does not reach a baseline.
    own = {"steps": values.pop("steps", None), "guidance_scale": values.pop("guidance", None)}
    own["interpolate"] = settings.interpolate and form == "landscape"
    return SystemSpec(form=form, model=model, settings=Settings(**(asdict(settings) | own)), **values)
