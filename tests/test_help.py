"""Every flag of every command has a help text, and every default has the form "(default: X)"."""

import argparse
import re

import pytest

from command_parsers import ROOT, parser_of, scripts, typer_commands


FORM = re.compile(r"\(default: [^()]+(\([^()]*\)[^()]*)*\)$")


def check_help(flag: str, text: str, has_default: bool) -> None:
    """Raise `AssertionError` for a text that is missing, or that gives its default in another form."""
    assert text, f"{flag} has no help text."
    assert not has_default or FORM.search(text), f'{flag} must end with "(default: X)": {text!r}'
    rest = FORM.sub("", text)
    assert "default:" not in rest.lower() and "by default" not in rest.lower(), f"{flag}: {text!r}"


@pytest.mark.parametrize("script", scripts(), ids=lambda script: str(script.relative_to(ROOT)))
def test_flags_of_scripts(script):
    parser = parser_of(script)
    for action in parser._actions:
        if isinstance(action, argparse._HelpAction):
            continue
        flag = "/".join(action.option_strings) or action.dest
        text = parser._get_formatter()._expand_help(action) if action.help else ""
        is_switch = action.nargs == 0 and not action.default
        check_help(flag, text, not is_switch and not action.required and action.default is not None)


@pytest.mark.parametrize("script", scripts(), ids=lambda script: str(script.relative_to(ROOT)))
def test_scripts_print_their_help(script):
    text = parser_of(script).format_help()
    assert parser_of(script).description
    assert "%(" not in text


@pytest.mark.parametrize("name", typer_commands())
def test_flags_of_commands(name):
    command = typer_commands()[name]
    assert command.help
    for parameter in command.params:
        if "--help" in parameter.opts:
            continue
        # The other form of typer, "[default: X]", must be off.
        assert not parameter.show_default, f'{name} {parameter.opts[0]}: the help shows "[default: ...]".'
        is_off = parameter.default is False
        has_default = parameter.default is not None and not is_off and not parameter.required
        check_help(f"{name} {parameter.opts[0]}", parameter.help or "", has_default)
