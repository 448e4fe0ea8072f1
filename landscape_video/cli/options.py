"""Make the flags of a command from the settings dataclasses, and name flags instead of settings in its errors."""

import functools
import inspect
import re
from collections.abc import Callable
from dataclasses import Field, fields
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from landscape_video.generation.setting_fields import Settings, choices


class Command(TyperCommand):
    """A command whose help ends every option with "(default: X)" and whose errors name flags.

    The code below the command line names a setting in backticks, "`num_frames` must be ...". Here the name becomes
    the flag, "--num-frames must be ...".
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            default = self._default_in_words(parameter)
            if default is not None:
                parameter.help = f"{parameter.help} (default: {default})"
            parameter.show_default = False

    def _default_in_words(self, parameter: Any) -> str | None:
        if isinstance(parameter.show_default, str):
            return parameter.show_default
        if parameter.default is None or parameter.show_default is False or parameter.required:
            return None
        if isinstance(parameter.default, bool):
            return "on" if parameter.default else "off"
        return str(parameter.default)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (ValueError, OSError, FloatingPointError) as error:
            if error.args and isinstance(error.args[0], str):
                error.args = (self.with_flags(error.args[0]), *error.args[1:])
            raise

    def with_flags(self, message: str) -> str:
        """The message with the names of settings replaced by this command's flags."""
        flags = {parameter.name: parameter.opts[0] for parameter in self.params if parameter.opts[0].startswith("-")}
        return re.sub(r"`(\w+)`", lambda match: flags.get(match[1], match[0]), message)


def option_of(settings_class: type[Settings], name: str, **changes: Any) -> Any:
    """Return the annotation of a command's parameter for one setting.

    Args:
        changes: Keywords of `typer.Option` that replace those of the setting: `help`, `show_default`.
    """
    return annotate(next(each for each in fields(settings_class) if each.name == name), **changes)


def annotate(each: Field, **changes: Any) -> Any:
    """The type of a field with the `typer.Option` that its metadata describe."""
    about, flag = each.metadata, "--" + each.name.replace("_", "-")
    allowed = choices(each.type)
    declared = [flag, f"--no-{flag[2:]}"] if each.default is True else [flag]
    described = {
        "help": re.sub(r"`(\w+)`", lambda match: "--" + match[1].replace("_", "-"), about["help"]),
        "rich_help_panel": about["panel"],
        "metavar": about["unit"] or "|".join(allowed) or None,
        "show_default": about["default_text"] or True,
    }
    # A choice is read as text, so that the dataclass checks it and words the error.
    annotation = each.type if not allowed else str | None if each.default is None else str
    return Annotated[annotation, typer.Option("/".join(declared), **(described | changes))]


def with_settings(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command one option for each field of the settings dataclasses among its parameters.

        @with_settings
        def generate(prompt: str, settings: TextToVideoSettings) -> None: ...

    has the parameter `prompt` and one for each field of `TextToVideoSettings`, from whose values `settings` is made.
    """
    classes, parameters = {}, []
    for parameter in inspect.signature(command).parameters.values():
        if isinstance(parameter.annotation, type) and issubclass(parameter.annotation, Settings):
            classes[parameter.name] = parameter.annotation
            for each in fields(parameter.annotation):
                parameters.append(
                    inspect.Parameter(
                        each.name, inspect.Parameter.KEYWORD_ONLY, default=each.default, annotation=annotate(each)
                    )
                )
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @functools.wraps(command)
    def with_options(**values: Any) -> None:
        made = {
            name: settings_class(**{each.name: values.pop(each.name) for each in fields(settings_class)})
            for name, settings_class in classes.items()
        }
        command(**values, **made)

    with_options.__signature__ = inspect.Signature(parameters)
    return with_options
