"""The `landscape-video` command: what is common to its subcommands.

Nothing heavy is imported here, nor at the top of a subcommand's file: `--help` must not wait for torch.
"""

import errno
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from safetensors import SafetensorError
from typer.core import TyperGroup

from landscape_video.cli.animate import animate
from landscape_video.cli.convert import convert
from landscape_video.cli.evaluate import evaluate
from landscape_video.cli.generate import generate
from landscape_video.cli.interpolate import interpolate
from landscape_video.cli.pull import pull
from landscape_video.cli.push import push
from landscape_video.cli.report import report
from landscape_video.cli.study import study


# What is wrong with the path that was given; other errors of the system (a full disk) are no wrong input.
_WRONG_PATH = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EEXIST)


class OneLineErrors(TyperGroup):
    """Says what went wrong in one line on stderr.

    Exit codes: 2 for wrong input, 1 for a run that failed (disk full, no network), 130 after Ctrl-C. What nobody
    foresaw keeps its traceback.
    """

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except typer.TyperException as error:
            _fail(error.format_message(), error.exit_code)
        except ConnectionError as error:  # the Hub is out of reach: nothing to correct in the command
            _fail(str(error), 1)
        except OSError as error:
            _fail(str(error), 2 if error.errno in _WRONG_PATH else 1)
        except ValueError as error:
            _fail(str(error), 2)
        except SafetensorError as error:
            reading = "deserializ" in str(error)
            _fail(f"weights cannot be {'read' if reading else 'written'}: {error}", 2 if reading else 1)
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported here
                raise
            _fail(
                "the memory of the GPU is too small. A smaller picture or fewer frames take less, so does --offload"
                " model where a command has it; --device cpu takes none.",
                1,
            )
        if code == 130:
            _fail("interrupted.", 130)
        sys.exit(code)


def _fail(message: str, code: int) -> NoReturn:
    if message:  # none where the help was printed, because a command was given nothing at all
        typer.echo(f"landscape-video: {' '.join(message.split())}", err=True)
    sys.exit(code)


app = typer.Typer(
    cls=OneLineErrors,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(no_args_is_help=True)(generate)
app.command(no_args_is_help=True)(animate)
app.command(no_args_is_help=True)(interpolate)
app.command(no_args_is_help=True)(convert)
app.command(no_args_is_help=True)(evaluate)
app.command(no_args_is_help=True)(push)
app.command(no_args_is_help=True)(pull)
app.command(no_args_is_help=True)(report)
app.add_typer(study, name="study")


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"landscape-video {version('landscape-video')}")
        raise typer.Exit


@app.callback()
def roof(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Landscape-painting video from a prompt, and smoother video from any file."""


def _on_terminate(signal_number: int, frame: Any) -> NoReturn:
    signal.signal(signal_number, signal.SIG_IGN)  # a second one must not end the cleaning up
    sys.exit(128 + signal_number)  # an exception, so that half-written files are removed on the way out


def main() -> None:
    """Entry point of the `landscape-video` script."""
    signal.signal(signal.SIGTERM, _on_terminate)
    app(prog_name="landscape-video")
