"""Options of training settings: dataclass fields that carry their help text and the values they accept.

A settings class lists its options with `option(default, help)`. The command line's flags are made from the fields
(`landscape_video.training.run.command_line`), and `OptionGroup` checks the values wherever they come from.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar, Self

from landscape_video.generation.setting_fields import check_value, setting


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    default_text: str | None = None,
    minimum: float | None = None,
    maximum: float | None = None,
    above: float | None = None,
    flags: tuple[str, ...] = (),
    free: bool = False,
    private: bool = False,
    **argument: Any,
) -> Any:
    """Declare a dataclass field with the metadata that the command line needs.

    Args:
        default: Default value; an option without one is required.
        help: Help text of the flag, without the default.
        default_text: Default in the help text, if the value alone does not explain it, as for None.
        minimum, maximum, above: Range of a number.
        flags: Names of the flag if they differ from the field's; the last one is also the name in saved files.
        free: May change when a run is resumed, because it does not affect what a step computes.
        private: Not published, because it says where files are rather than how the weights were trained.
        argument: Keywords for `ArgumentParser.add_argument`, such as `nargs` and `metavar`.
    """
    limits = {"minimum": minimum, "maximum": maximum, "above": above}
    metadata = setting(default, help, "", default_text=default_text, **limits).metadata
    more = {"flags": flags, "free": free, "private": private, "argument": argument}
    return dataclasses.field(default=default, metadata=metadata | more)


class OptionGroup:
    """Base of groups of options: checks each value against its option's range and choices."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            for item in value if isinstance(value, tuple) else (value,):
                check_value(field, item)


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

    def comparable(self) -> dict[str, str]:
        """Return the settings that affect a step. Checkpoints record them, so a resumed run can report changes."""
        return {saved_name(field): str(value) for field, value in self.options() if not field.metadata["free"]}

    def published(self) -> dict[str, Any]:
        """What the model card may show, as JSON values: how the weights were trained, without paths."""
        values = {saved_name(field): value for field, value in self.options() if not field.metadata["private"]}
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
        return {"preset": self.preset, **{name: value for name, value in values.items() if value is not None}}


def saved_name(field: Field) -> str:
    """Name of an option in checkpoints and in `training.json`, which older files share."""
    return (field.metadata["flags"] or (field.name,))[-1].lstrip("-")
