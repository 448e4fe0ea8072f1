"""Presets: scheduler, timesteps, guidance and few-step weights that belong together, under one name.

`docs/speed.md` has the measurements that the presets were chosen by. Importing this file loads no heavy library.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from landscape_video.generation.few_steps import FEW_STEPS, use_few_step_weights
from motion_adapter.sources import local_path


if TYPE_CHECKING:
    from landscape_video.generation.generate_clip import Pipeline
    from landscape_video.generation.settings import ModelSettings, TextToVideoSettings


@dataclass(frozen=True)
class Preset:
    """How to sample.

    Args:
        scheduler: Class of diffusers; `None` keeps the model's own scheduler.
        config: Entries of the scheduler's config that differ from the model's.
        sampling: Recommended settings of text to video, by keyword of the pipeline's call; others are the model's.
        is_distilled: Whether guidance is built into the weights, so that neither a guidance scale nor a negative
            prompt has the usual effect, and the number of steps is fixed.
        motion_adapter: Name on the Hub of the motion modules that the preset is for; `None` for any.
    """

    scheduler: str | None
    config: dict[str, Any] = field(default_factory=dict)
    sampling: dict[str, float] = field(default_factory=dict)
    is_distilled: bool = False
    motion_adapter: str | None = None


PRESETS: dict[str, Preset] = {
    # With few-step weights without guidance, else with the model's own guidance.
    "draft": Preset(
        "DDIMScheduler",
        {"timestep_spacing": "trailing", "set_alpha_to_one": True},
        {"num_inference_steps": 4, "eta": 0.0},
    ),
    "standard": Preset(None, {"timestep_spacing": "trailing"}, {"num_inference_steps": 10}),
    "fine": Preset(None, sampling={"num_inference_steps": 50}),
    # Both as their authors recommend; they are for Stable Diffusion 1.5.
    "animatelcm": Preset(
        "LCMScheduler",
        {"beta_schedule": "linear", "timestep_spacing": "leading"},
        {"num_inference_steps": 6, "guidance_scale": 2.0, "eta": 0.0},
        motion_adapter="wangfuyun/AnimateLCM",
    ),
    "lightning": Preset(
        "EulerDiscreteScheduler",
        {"beta_schedule": "linear", "timestep_spacing": "trailing"},
        {"num_inference_steps": 4, "guidance_scale": 1.0, "eta": 0.0},
        is_distilled=True,
        motion_adapter="ByteDance/AnimateDiff-Lightning",
    ),
}


def check_preset(settings: "TextToVideoSettings", models: "ModelSettings") -> None:
    """Raise `ValueError` for settings and models that contradict the preset, before anything is loaded."""
    if settings.preset is None:
        return
    preset, name = PRESETS[settings.preset], settings.preset
    if preset.motion_adapter is not None and models.motion_adapter is None:
        raise ValueError(
            f"`preset` {name} is for the motion modules of {preset.motion_adapter}: set `motion_adapter`."
        )
    folder = local_path(models.model)
    has_weights = name == "draft" and folder is not None and (folder / FEW_STEPS).is_dir()
    if preset.is_distilled or has_weights:
        check_distilled(settings, preset.sampling["num_inference_steps"])
    if has_weights and models.lora:
        raise ValueError("`lora` cannot be combined with `preset` draft, which is a LoRA itself: choose standard.")
    if has_weights and models.offload != "none":
        raise ValueError(f"`offload` must be none with `preset` draft, got {models.offload!r}.")


def check_distilled(settings: "TextToVideoSettings", steps: int) -> None:
    """Raise `ValueError` for settings that have no place with weights that were distilled for `steps` steps."""
    name = settings.preset
    if settings.steps not in (None, steps):
        raise ValueError(f"`steps` must be {steps} with `preset` {name}, got {settings.steps}; leave it out.")
    if (settings.guidance_scale or 1) > 1:
        raise ValueError(
            f"`guidance_scale` must be 1 with `preset` {name}, whose weights have it built in, got "
            f"{settings.guidance_scale:g}; leave it out."
        )
    if settings.negative_prompt:
        raise ValueError(f"`negative_prompt` has no effect with `preset` {name}: leave it out or choose standard.")


@contextmanager
def use_preset(pipe: "Pipeline", settings: "TextToVideoSettings") -> Iterator[None]:
    """Give a pipeline the scheduler and the weights of a preset; afterwards it has its own ones again.

    The preset's settings are those that the scheduler recommends, so settings that are `None` take them.

    Raises:
        ValueError: The settings, or the weights of the model, contradict the preset.
    """
    name = settings.preset
    if name is None or getattr(pipe, "preset_in_use", None) == name:
        yield
        return
    import diffusers

    from pipeline_landscape_video.landscape_sampling import SAMPLING_ENTRY

    preset, own = PRESETS[name], pipe.scheduler
    is_distilled = preset.is_distilled or (name == "draft" and has_few_step_weights(pipe))
    sampling = preset.sampling | ({"guidance_scale": 1.0} if is_distilled else {})
    if is_distilled:
        check_distilled(settings, sampling["num_inference_steps"])
    recommended = own.config.get(SAMPLING_ENTRY, {})
    config = {**own.config, **preset.config}
    config[SAMPLING_ENTRY] = recommended | {"text": recommended.get("text", {}) | sampling}
    scheduler_class = type(own) if preset.scheduler is None else getattr(diffusers, preset.scheduler)
    with ExitStack() as stack:
        if is_distilled and name == "draft":
            stack.enter_context(use_few_step_weights(pipe))
        pipe.scheduler, pipe.preset_in_use = scheduler_class.from_config(config), name
        stack.callback(setattr, pipe, "preset_in_use", None)
        stack.callback(setattr, pipe, "scheduler", own)
        yield


def has_few_step_weights(pipe: "Pipeline") -> bool:
    """Whether the folder of a loaded pipeline has few-step weights. They are for text to video."""
    folder = getattr(pipe, "source_folder", None)
    return folder is not None and (folder / FEW_STEPS).is_dir() and not hasattr(pipe, "image_retention")
