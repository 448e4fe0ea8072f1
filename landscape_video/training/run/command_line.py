"""Make command lines from settings, and turn flags into settings."""

import argparse
from dataclasses import MISSING, Field, fields
from types import NoneType, UnionType
from typing import Any, TypeVar, Union, get_args, get_origin

from landscape_video.generation.setting_fields import choices
from landscape_video.training.settings.options import GroupedSettings


Settings = TypeVar("Settings", bound=GroupedSettings)


def parse_settings(
    settings: type[Settings], description: str, argv: list[str] | None = None, epilog: str | None = None
) -> Settings:
    """Parse and check the flags of a script; wrong ones end the process with code 2 and one line.

    Args:
        settings: Class of the script's settings.
        description: What the script does, printed unchanged.
        argv: Command line without the program's name; the process's own by default.
        epilog: Text after the flags, printed unchanged.
    """
    parser = argparse.ArgumentParser(
        allow_abbrev=False,  # a misspelled flag must be an error, not another flag
        argument_default=argparse.SUPPRESS,  # only given flags are passed on; the settings know their defaults
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    defaults = settings.DEFAULTS
    if settings.PRESETS:
        first = next(iter(settings.PRESETS))
        defaults = defaults | settings.PRESETS[first]
        text = f"{settings.PRESETS_HELP} (default: {first})"
        parser.add_argument("--preset", choices=tuple(settings.PRESETS), help=text)
    for name, group in settings.groups().items():
        flags = parser.add_argument_group(name, group.__doc__.splitlines()[0])
        for field in fields(group):
            add_flag(flags, field, defaults.get(field.name, field.default))
    options = vars(parser.parse_args(argv))
    try:
        return settings.from_options(**options)
    except ValueError as error:
        parser.error(str(error))


def add_flag(parser: argparse._ArgumentGroup, field: Field, default: Any) -> None:
    """Add the flag of one option."""
    argument, kind = dict(field.metadata["argument"]), field.type
    if isinstance(kind, UnionType) or get_origin(kind) is Union:
        (kind,) = (part for part in get_args(kind) if part is not NoneType)
    if kind is bool:
        argument["action"] = argparse.BooleanOptionalAction if argument.pop("negatable", False) else "store_true"
    elif get_origin(kind) is tuple:
        argument["action"], kind = StoreTuple, get_args(kind)[0]
    if allowed := choices(kind):
        argument["choices"] = allowed
    elif kind is not bool:
        argument["type"] = kind
    text = field.metadata["default_text"] or show(default)
    help = f"{field.metadata['help']} (default: {text})".replace("%", "%%")
    names = field.metadata["flags"] or (f"--{field.name}",)
    if names[0].startswith("-"):  # a positional argument takes no other name
        argument["dest"] = field.name
    parser.add_argument(*names, help=help, **argument)


class StoreTuple(argparse.Action):
    """Store values as a tuple; one value of a flag that takes MIN MAX means both."""

    def __call__(self, parser: Any, namespace: argparse.Namespace, values: Any, option: str | None = None) -> None:
        is_range = self.metavar == ("MIN", "MAX")
        setattr(namespace, self.dest, tuple(values * 2 if is_range and len(values) == 1 else values))


def show(default: Any) -> str:
    """A default value in a help text."""
    if default is MISSING:
        return "none, required"
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, tuple):
        return " ".join(map(str, dict.fromkeys(default)))  # a fixed range is one number
    return "none" if default is None else str(default)
