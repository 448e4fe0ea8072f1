"""Make the page's controls from the settings dataclasses, and settings from the values of controls.

A field that `landscape_video.generation.settings` gains appears on the page by itself; `field_texts.py` has its label.
"""

from collections.abc import Mapping
from dataclasses import Field, dataclass, fields
from typing import Any, TypeVar, get_args

import gradio as gr

from landscape_video.generation.setting_fields import Settings, choices
from landscape_video.generation.settings import TextToVideoSettings
from landscape_video.web.texts import i18n, label_of, say


# Settings that name a file or a download: the one who starts the page chooses them, not its visitors.
NOT_ON_THE_PAGE = ("flow_weights",)
# Shown above the fold; all others are folded away.
MAIN = ("num_frames", "steps", "seed", "interpolate")
LARGEST_SEED = 2**53 - 1  # the largest whole number that a browser holds exactly

SettingsClass = TypeVar("SettingsClass", bound=TextToVideoSettings)


class PageError(Exception):
    """A message for the visitor, in their language."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The most that a visitor may ask for; checked on the server.

    Args:
        frames: Sampled frames of a clip.
        side: Height and width in pixels.
        steps: Denoising steps.
        prompt: Characters of a prompt.
        stages: Stages of an animated image.
        video_frames: Frames of a video to interpolate.
        video_side: Its height and width in pixels.
        upload_mb: Size of an uploaded file in MB.
    """

    frames: int = 32
    side: int = 512
    steps: int = 100
    prompt: int = 1000
    stages: int = 4
    video_frames: int = 1000
    video_side: int = 1920
    upload_mb: int = 64

    def of(self, name: str) -> int | None:
        """The largest value of a setting on the page; None if only the setting's own range counts."""
        return {"num_frames": self.frames, "height": self.side, "width": self.side, "steps": self.steps}.get(name)


def fields_on_the_page(settings_class: type[Settings]) -> list[Field]:
    """The fields of a settings class that the page shows, in their order."""
    return [each for each in fields(settings_class) if each.name not in NOT_ON_THE_PAGE]


def make_control(each: Field, default: Any, limits: Limits, allowed: tuple[str, ...] | None = None) -> gr.Component:
    """Make the control of a field.

    Args:
        each: Field of a settings class.
        default: Its value when the page opens: what the model recommends, where the field leaves it to the model.
        limits: Upper ends of the sliders.
        allowed: Choices offered, if not all that the field has.
    """
    shown = {"label": i18n(f"label_{each.name}"), "info": i18n(f"info_{each.name}")}
    about, options = each.metadata, choices(each.type)
    if options:
        offered = [option for option in options if allowed is None or option in allowed]
        return gr.Dropdown(offered, value=default if default in offered else offered[0], **shown)
    if each.type is bool:
        return gr.Checkbox(value=default, **shown)
    if str in (each.type, *get_args(each.type)):
        return gr.Textbox(value=default or "", max_length=limits.prompt, **shown)
    maximum = limits.of(each.name)
    if maximum is not None:
        step = about["multiple_of"] or 1
        return gr.Slider(about["minimum"], maximum, value=min(default or maximum, maximum), step=step, **shown)
    if default is None:  # a number field would show, and send, 0 for it
        return gr.Textbox(placeholder=i18n("automatic"), max_length=20, **shown)
    return gr.Number(value=default, precision=0 if _is_whole(each) else None, **shown)


def _is_whole(each: Field) -> bool:
    return int in (each.type, *get_args(each.type))


def _number(each: Field, value: Any, language: str) -> float | int:
    """The value of a numeric field, which a browser sends as text or as a float."""
    try:
        number = float(value) if not isinstance(value, int) else value
        return int(number) if _is_whole(each) and number == int(number) else number
    except (ValueError, TypeError, OverflowError) as error:
        raise PageError(say("error_number", language, label=label_of(each.name, language), value=value)) from error


def settings_from(
    settings_class: type[SettingsClass], values: Mapping[str, Any], limits: Limits, language: str
) -> SettingsClass:
    """Make settings from the values of controls; an empty control leaves the choice to the model.

    Raises:
        PageError: A value is out of its range, or above a limit of the page.
    """
    given = {}
    for each in fields_on_the_page(settings_class):
        value = values.get(each.name, each.default)
        if value is None or value == "":
            continue
        if not choices(each.type) and (_is_whole(each) or float in (each.type, *get_args(each.type))):
            value = _number(each, value, language)
        maximum = LARGEST_SEED if each.name == "seed" else limits.of(each.name)
        if maximum is not None and value > maximum:
            raise PageError(
                say("error_limit", language, label=label_of(each.name, language), limit=maximum, value=value)
            )
        given[each.name] = value
    length = len(given.get("negative_prompt", ""))
    if length > limits.prompt:
        raise PageError(say("error_prompt_length", language, limit=limits.prompt, length=length))
    try:
        return settings_class(**given)
    except ValueError as error:
        raise PageError(with_labels(str(error), language)) from error


def check_prompt(prompt: str, limits: Limits, language: str) -> str:
    """Return the prompt without spaces around it. Raises `PageError` for an empty or too long one."""
    prompt = (prompt or "").strip()
    if not prompt:
        raise PageError(say("error_prompt", language))
    if len(prompt) > limits.prompt:
        raise PageError(say("error_prompt_length", language, limit=limits.prompt, length=len(prompt)))
    return prompt


def with_labels(message: str, language: str) -> str:
    """A message of the code below the page, with its settings called by their labels."""
    for each in fields_on_the_page(TextToVideoSettings):
        message = message.replace(f"`{each.name}`", label_of(each.name, language))
    return message
