"""Flags are made from settings: their help, their defaults, and errors that name them."""

from dataclasses import dataclass
from typing import Annotated, Literal

import pytest
import typer
from typer.testing import CliRunner, Result

from landscape_video.cli.options import Command, option_of, with_settings
from landscape_video.generation.setting_fields import SAMPLING, Settings, setting


@dataclass(frozen=True, kw_only=True)
class Inks(Settings):
    """Settings of every kind."""

    num_strokes: int = setting(3, "Strokes, see `ink`.", SAMPLING, unit="NUMBER", minimum=1)
    ink: Literal["black", "red"] | None = setting(None, "Color.", SAMPLING, default_text="the painter's own")
    is_wet: bool = setting(True, "Wet the paper.", SAMPLING)
    is_signed: bool = setting(False, "Add a seal.", SAMPLING)


@dataclass(frozen=True, kw_only=True)
class Sizes(Settings):
    """Settings of which a command takes one."""

    size: int = setting(4, "Size of the paper.", SAMPLING, unit="NUMBER")


def run(*arguments: str, error: Exception | None = None) -> Result:
    """Run a command that prints its settings, or raises `error`."""
    app = typer.Typer()

    @app.command(cls=Command)
    @with_settings
    def paint(
        title: Annotated[str, typer.Argument(help="Title.")],
        size: option_of(Sizes, "size", help="Size.") = 5,
        *,
        inks: Inks,
    ) -> None:
        if error is not None:
            raise error
        typer.echo(f"{title} {size} {inks}")

    return CliRunner().invoke(app, [*arguments], env={"COLUMNS": "200"})


def test_settings_are_made_from_flags():
    assert run("mist").output == f"mist 5 {Inks()}\n"
    chosen = Inks(num_strokes=7, ink="red", is_wet=False, is_signed=True)
    flags = ["--num-strokes", "7", "--ink", "red", "--no-is-wet", "--is-signed", "--size", "2"]
    assert run("mist", *flags).output == f"mist 2 {chosen}\n"


def test_the_help_names_flags_choices_and_defaults_in_one_form():
    text = run("--help").output
    for part in (
        "Strokes, see --ink. (default: 3)",
        "Color. (default: the painter's own)",
        "black|red",
        "--no-is-wet",
        "Wet the paper. (default: on)",
        "Add a seal. (default: off)",
        "Size. (default: 5)",
    ):
        assert part in text, part
    assert "[default" not in text and "--no-is-signed" not in text


@pytest.mark.parametrize("kind", [ValueError, FileNotFoundError, ConnectionError, FloatingPointError])
def test_errors_name_the_flag(kind):
    result = run("mist", error=kind("`num_strokes` is too much for `paper`; change `ink`."))
    assert type(result.exception) is kind
    assert str(result.exception) == "--num-strokes is too much for `paper`; change --ink."


def test_errors_of_the_system_stay_as_they_are():
    error = OSError(28, "No space left on device", "mist.mp4")
    assert str(run("mist", error=error).exception) == "[Errno 28] No space left on device: 'mist.mp4'"


def test_a_value_out_of_range_names_its_flag():
    assert str(run("mist", "--ink", "blue").exception) == "--ink must be one of black, red, got 'blue'."
    assert str(run("mist", "--num-strokes", "0").exception) == "--num-strokes must be at least 1, got 0."
