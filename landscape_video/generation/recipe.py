"""Read the recipe of a clip from its file, generate it again, and compare the two."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from types import NoneType
from typing import Any, get_args

import numpy as np

from landscape_video.generation.setting_fields import choices
from landscape_video.generation.settings import (
    EMBEDDED_MODEL,
    ImageModelSettings,
    ImageToVideoSettings,
    TextToVideoSettings,
)
from pipeline_landscape_video.video_io import read_metadata, read_video


# Settings that the file cannot restore: a path of the machine that made the clip.
NOT_IN_A_RECIPE = ("flow_weights",)
MODEL_NAMES = ("model", "motion_adapter", "decoder", "lora", "image_retention")


@dataclass(frozen=True)
class Recipe:
    """What a clip was made from.

    Args:
        prompts: Prompt of each stage, or prompts by the frame at which they begin; empty if an image alone guided the
            clip.
        settings: Settings with seed.
        models: Names of model, adapters and LoRA.
        environment: Device, threads, dtype and versions.
        picture: Name of the image file that the clip begins with; None for text to video.
    """

    prompts: list[str | dict[int, str]]
    settings: TextToVideoSettings
    models: dict[str, Any]
    environment: dict[str, Any]
    picture: str | None

    @property
    def from_image(self) -> bool:
        """Whether the clip begins with an image."""
        return isinstance(self.settings, ImageToVideoSettings)


def read_recipe(path: str | Path) -> Recipe:
    """Read the recipe of a clip.

    Raises:
        ValueError: The file holds no recipe of ours, or one whose values are not those of a recipe.
        FileNotFoundError: The file does not exist.
    """
    name = Path(path).name
    try:
        metadata = read_metadata(path)
    except (ValueError, OSError, SyntaxError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        raise ValueError(f"{name}: is not a clip: {error}") from error
    if "interpolation" in metadata:
        raise ValueError(f"{name}: was interpolated after it was made; repeat the clip before that.")
    if "final_strength" in metadata:
        raise ValueError(f"{name}: follows another clip; run `landscape-video consistent` again with its settings.")
    if "seed" not in metadata or not {"prompt", "prompts"} & set(metadata):
        raise ValueError(f"{name}: holds no recipe; only clips that this program made have one.")
    from_image = "prompts" in metadata
    prompts = metadata["prompts"] if from_image else [_over_time(metadata["prompt"])]
    texts = [text for prompt in prompts for text in (prompt.values() if isinstance(prompt, dict) else [prompt])]
    if not isinstance(prompts, list) or not all(isinstance(text, str | NoneType) for text in texts):
        raise ValueError(f"{name}: `prompts` must be a list of texts, got {prompts!r}.")
    try:
        settings = _settings_from(metadata, ImageToVideoSettings if from_image else TextToVideoSettings)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
    return Recipe(
        [prompt for prompt in prompts if prompt is not None],
        settings,
        # Older clips name no decoder and have native ones; those that name no model have the bundled one.
        {"model": EMBEDDED_MODEL, "decoder": "native"}
        | {key: metadata.get(key) for key in MODEL_NAMES if key in metadata},
        {key: metadata.get(key) for key in ("device", "device_name", "threads", "dtype", "versions")},
        str(metadata["picture"]) if from_image and "picture" in metadata else None,
    )


def _over_time(prompt: Any) -> Any:
    """A prompt with the frames of prompts over time as numbers, which JSON has as texts."""
    if not isinstance(prompt, dict) or not all(frame.isdecimal() for frame in prompt):
        return prompt
    return {int(frame): text for frame, text in prompt.items()}


def _settings_from(metadata: Mapping[str, Any], settings_class: type[TextToVideoSettings]) -> TextToVideoSettings:
    given = {}
    for each in fields(settings_class):
        value = metadata.get(each.name)
        if value is None or each.name in NOT_IN_A_RECIPE:
            continue
        _check_type(each.name, each.type, value)
        given[each.name] = value
    return settings_class(**given)


def _check_type(name: str, annotation: Any, value: Any) -> None:
    """Raise `ValueError` for a value of another type: a file can hold anything."""
    if choices(annotation):
        return  # the settings check choices themselves
    types = tuple(part for part in (annotation, *get_args(annotation)) if part in (int, float, str, bool))
    types += (int,) if float in types else ()
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        words = " or ".join(part.__name__ for part in types if part is not NoneType)
        raise ValueError(f"`{name}` must be of type {words}, got {value!r}.")


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Say what differs between two environments, as `Recipe.environment` has them: one text for each difference."""
    found = [
        f"{key}: {then.get(key)} then, {now.get(key)} now"
        for key in ("device", "device_name", "threads", "dtype")
        if then.get(key) != now.get(key)
    ]
    before, after = then.get("versions") or {}, now.get("versions") or {}
    if isinstance(before, dict):
        names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
        found += [f"{name}: {before.get(name, 'none')} then, {after.get(name, 'none')} now" for name in names]
    return found


def same_frames(first: str | Path, second: str | Path) -> bool:
    """Whether two clips decode to bit-identical frames. Both must be of one format."""
    one, other = read_video(first).frames, read_video(second).frames
    return one.shape == other.shape and bool(np.array_equal(one, other))


def models_to_repeat(recipe: Recipe, models: ImageModelSettings) -> ImageModelSettings:
    """The models of a run, with the native decoder if the recipe has that one and the run leaves the choice open.

    A file can name any model, so only those that the run names itself are loaded.

    Raises:
        ValueError: The recipe was made with other models.
    """
    if models.decoder == "auto" and recipe.models["decoder"] == "native":
        models = replace(models, decoder="native")
    described = models.as_metadata()
    for name in MODEL_NAMES:
        theirs, ours = recipe.models.get(name) or None, described.get(name) or None
        if theirs != ours:
            raise ValueError(f"was made with `{name}` {theirs or 'unset'}, got {ours or 'unset'}.")
    return models
