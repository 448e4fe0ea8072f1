"""The `landscape-video` command: register its subcommands and print errors as one line.

No heavy library is imported here, nor at the top of a subcommand's file: `--help` must not wait for torch.
"""

import errno
import signal
import sys
from typing import Annotated, Any, NoReturn

import typer
from safetensors import SafetensorError
from typer.core import TyperGroup

from landscape_video.cli.animate import animate
from landscape_video.cli.consistent import consistent
from landscape_video.cli.convert import convert
from landscape_video.cli.edit import edit
from landscape_video.cli.evaluate import evaluate
from landscape_video.cli.generate import generate
from landscape_video.cli.interpolate import interpolate
from landscape_video.cli.options import Command
from landscape_video.cli.plan import plan
from landscape_video.cli.pull import pull
from landscape_video.cli.push import push
from landscape_video.cli.repeat import repeat
from landscape_video.cli.report import report
from landscape_video.cli.scroll import scroll
from landscape_video.cli.space import space
from landscape_video.cli.study import study
from landscape_video.cli.web import web
from landscape_video.generation.lean_imports import plan_lean_imports


# OS errors that mean a wrong path; others, such as a full disk, are not the user's mistake. None: raised by our code.
_WRONG_PATH = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EACCES, errno.EEXIST)


class OneLineErrors(TyperGroup):
    """Prints an error as one line on stderr.

    Exit codes: 2 for wrong input, 1 for a run that failed (disk full, no network), 130 after Ctrl-C. Unforeseen
    errors keep their traceback.
    """

    def main(self, *args: Any, standalone_mode: bool = True, **extra: Any) -> Any:
        if not standalone_mode:
            return super().main(*args, standalone_mode=False, **extra)
        try:
            code = super().main(*args, standalone_mode=False, **extra)
        except typer.TyperException as error:
            _fail(error.format_message(), error.exit_code)
        except (ConnectionError, FloatingPointError) as error:  # no Hub, or NaN: the input is correct
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
            _fail("out of GPU memory. Use smaller or fewer frames, --offload model, or --device cpu.", 1)
        if code == 130:
            _fail("interrupted.", 130)
        sys.exit(code)


def _fail(message: str, code: int) -> NoReturn:
    if message:  # empty if a command without arguments has printed its help
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
MAKING = (generate, animate, scroll, edit, consistent, plan, interpolate, repeat)
for command in (*MAKING, convert, evaluate, push, pull, space, report):
    app.command(cls=Command, no_args_is_help=True)(command)
app.command(cls=Command)(web)  # needs no argument
app.add_typer(study, name="study")


def _print_version(is_asked: bool) -> None:
    if is_asked:
        from importlib.metadata import version

        typer.echo(f"landscape-video {version('landscape-video')}")
        raise typer.Exit


@app.callback()
def landscape_video(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Generate landscape-painting videos from a prompt or an image, and make any video smoother."""


def _on_terminate(signal_number: int, frame: Any) -> NoReturn:
    signal.signal(signal_number, signal.SIG_IGN)  # a second signal must not end the clean-up
    sys.exit(128 + signal_number)  # an exception, so that half-written files are removed on the way out


def main() -> None:
    """Entry point of the `landscape-video` script."""
    signal.signal(signal.SIGTERM, _on_terminate)
    plan_lean_imports(sys.argv[1:])
    app(prog_name="landscape-video")
