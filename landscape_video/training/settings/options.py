"""Options of training settings: dataclass fields that carry their help text and the values they accept.

A settings class lists its options with `option(default, help)`. The command line's flags are made from the fields
(`landscape_video.training.run.command_line`), and `OptionGroup` checks the values wherever they come from.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, NamedTuple, Self


class Range(NamedTuple):
    """Values that a number may have, and how to say so."""

    contains: Callable[[float], bool]
    text: str


AT_LEAST_ONE = Range(lambda value: value >= 1, "at least 1")
POSITIVE = Range(lambda value: 0 < value < math.inf, "above 0")
NOT_NEGATIVE = Range(lambda value: value >= 0, "0 or more")
PROBABILITY = Range(lambda value: 0 <= value <= 1, "between 0 and 1")
FRACTION = Range(lambda value: 0 < value < 1, "above 0 and below 1")


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    within: Range | None = None,
    default_text: str | None = None,
    flags: tuple[str, ...] = (),
    free: bool = False,
    private: bool = False,
    **argument: Any,
) -> Any:
    """A dataclass field with what a command line needs to know about it.

    Args:
        default: Default value; an option without one is required.
        help: Help text of the flag, without the default.
        within: Range of a number.
        default_text: What the help shows as the default where the value alone does not tell, as for None.
        flags: Names of the flag if they differ from the field's; the last one is also the name in saved files.
        free: May change when a run is resumed, because it does not affect what a step computes.
        private: Says where files are rather than how the weights were trained, so it is not published.
        argument: Keywords for `ArgumentParser.add_argument`, such as `choices`, `nargs` and `metavar`.
    """
    metadata = {
        "help": help, "within": within, "default_text": default_text, "flags": flags, "free": free,
        "private": private, "argument": argument,
    }  # fmt: skip
    return dataclasses.field(default=default, metadata=metadata)


class OptionGroup:
    """Base of groups of options: checks each value against its option's range and choices."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value, within = getattr(self, field.name), field.metadata["within"]
            choices = field.metadata["argument"].get("choices")
            if value is None or value is field.default:
                continue
            if within is not None and not within.contains(value):
                raise ValueError(f"`{field.name}` must be {within.text}, got {value}.")
            for item in value if isinstance(value, tuple) else (value,):
                if choices is not None and item not in choices:
                    raise ValueError(f"`{field.name}` must be one of {', '.join(choices)}, got {item!r}.")


class GroupedSettings:
    """Base of a script's settings, a dataclass of option groups; `from_options` makes them from flat names.

    Attributes:
        DEFAULTS: Values of options whose default differs from that of their group.
        PRESETS: Further defaults by name of a preset; the first preset is the default one.
        PRESETS_HELP: Help text of the presets.
    """

    DEFAULTS: ClassVar[dict[str, Any]] = {}
    PRESETS: ClassVar[dict[str, dict[str, Any]]] = {}
    PRESETS_HELP: ClassVar[str] = ""

    @classmethod
    def groups(cls) -> dict[str, type[OptionGroup]]:
        """Classes of the groups by name."""
        return {field.name: field.type for field in fields(cls) if issubclass(field.type, OptionGroup)}

    @classmethod
    def from_options(cls, preset: str | None = None, **options: Any) -> Self:
        """Settings from the names of single options, such as `max_train_steps`; others have their defaults.

        Raises:
            ValueError: An option is unknown, missing or out of range, or options contradict each other.
        """
        more = {}
        if cls.PRESETS:
            preset = preset or next(iter(cls.PRESETS))
            if preset not in cls.PRESETS:
                raise ValueError(f"`preset` must be one of {', '.join(cls.PRESETS)}, got {preset!r}.")
            more = {"preset": preset}
        values = cls.DEFAULTS | cls.PRESETS.get(preset, {}) | options
        groups = {}
        for name, group in cls.groups().items():
            taken = {field.name: values.pop(field.name) for field in fields(group) if field.name in values}
            for field in fields(group):
                if field.default is MISSING and field.name not in taken:
                    raise ValueError(f"`{field.name}` must be given: {field.metadata['help']}.")
            groups[name] = group(**taken)
        if values:
            raise ValueError(f"Unknown settings: {', '.join(values)}.")
        return cls(**more, **groups)

    def options(self) -> Iterator[tuple[Field, Any]]:
        """Field and value of each single option, in the order of the groups."""
        for name in self.groups():
            group = getattr(self, name)
            yield from ((field, getattr(group, field.name)) for field in fields(group))


def saved_name(field: Field) -> str:
    """Name of an option in checkpoints and in `training.json`, which older files share."""
    return (field.metadata["flags"] or (field.name,))[-1].lstrip("-")
