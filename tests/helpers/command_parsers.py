"""Collect the parsers of the project: the commands of `landscape-video`, and the argparse parser of each script."""

import argparse
import runpy
import sys
from functools import cache
from pathlib import Path

import typer
from typer.core import TyperCommand, TyperGroup


ROOT = Path(__file__).parents[2]
SCRIPT_FOLDERS = ("training", "training/shanshui", "benchmarks", "examples")


def scripts() -> list[Path]:
    """Return all scripts with a command line."""
    files = sorted(file for folder in SCRIPT_FOLDERS for file in (ROOT / folder).glob("*.py"))
    return [file for file in files if '__name__ == "__main__"' in file.read_text(encoding="utf-8")]


class Captured(BaseException):
    """Carries the parser whose help a script was about to print."""

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        self.parser = parser


def capture(parser: argparse.ArgumentParser) -> None:
    raise Captured(parser)


@cache
def parser_of(script: Path) -> argparse.ArgumentParser:
    """Run a script with `--help`, and return the parser that would print it."""
    print_help, argv = argparse.ArgumentParser.print_help, sys.argv
    argparse.ArgumentParser.print_help, sys.argv = capture, [str(script), "--help"]
    try:
        runpy.run_path(str(script), run_name="__main__")
    except Captured as captured:
        return captured.parser
    finally:
        argparse.ArgumentParser.print_help, sys.argv = print_help, argv
    raise AssertionError(f"{script.name} --help prints no help.")


@cache
def typer_commands() -> dict[str, TyperCommand]:
    """Return each command of `landscape-video` by its name, those of groups as "study build"."""
    from landscape_video.cli.main import app

    found = {}

    def visit(command: TyperCommand | TyperGroup, name: str) -> None:
        if not isinstance(command, TyperGroup):
            found[name] = command
            return
        for child, subcommand in command.commands.items():
            visit(subcommand, f"{name} {child}".strip())

    visit(typer.main.get_command(app), "")
    return found
