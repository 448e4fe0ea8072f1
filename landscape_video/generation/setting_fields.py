"""Declare settings as dataclass fields with type, default, range and help, and check their values.

Importing this file loads no heavy library: `--help` must not wait for torch.
"""

import math
from collections.abc import Mapping
from dataclasses import Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args, get_origin


# The panels that group options in a help text or on a page.
CONTENT, SAMPLING, LONG_CLIPS, MOTION, INTERPOLATION, MODELS, DEVICE = (
    "What to generate",
    "Sampling",
    "Long clips",
    "Image to video",
    "Interpolation",
    "Models",
    "Device and precision",
)
# `argument` of a setting that is not an argument of the pipeline's call; `generate_clip` uses it itself.
NOT_PASSED = ""


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
