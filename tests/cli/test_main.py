"""`landscape-video`: its help comes fast and teaches, and its examples are commands that exist."""

import re
import resource
import shlex
import subprocess
import sys

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from landscape_video.cli.main import app


def test_help_comes_before_anything_heavy_is_imported():
    for arguments in (["--help"], *([name, "--help"] for name in COMMANDS), ["--version"]):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = subprocess.run(
            [sys.executable, "-X", "importtime", "-m", "landscape_video", *arguments], capture_output=True, text=True
        )
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert result.returncode == 0 and result.stdout
        imported = set(re.findall(r"\|\s+([\w.]+)$", result.stderr, re.MULTILINE))
        assert "typer" in imported
        assert not imported & {"torch", "numpy", "diffusers", "transformers", "cv2", "av", "PIL"}
        # Of the processor, so that a busy machine fails no test.
        assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


def test_help_teaches_every_flag_with_its_default():
    result = CliRunner().invoke(app, ["generate", "--help"], env={"COLUMNS": "200"})
    flags = "--prompts --negative-prompt --output --seed --num-frames --height --width --steps --guidance-scale --eta"
    flags += " --no-interpolate --sofp-mode --flow --flow-weights --fps --model --motion-adapter --lora --device"
    flags += " --dtype --offload"
    for flag in flags.split():
        row = rf"^\W*(--[\w-]+[ /,]+)?{flag}(?![\w-])"  # --flow is not --flow-weights
        assert re.search(row, result.stdout, re.MULTILINE), flag
    for default in (
        "landscape.mp4",
        "16",
        "the model's own, else 25",
        "quadratic",
        "shanshui-tiny",
        "auto",
        "none",
        "the model's own",
    ):
        assert f"(default: {default})" in result.stdout
    for choice in ("raft|raft-small|dis", "quadratic|projection|linear", "float16"):
        assert choice in result.stdout


def test_animate_has_the_options_of_generate_and_its_own():
    generate, animate = (get_command(app).commands[name] for name in ("generate", "animate"))
    shared = {option for parameter in generate.params for option in parameter.opts if option.startswith("--")}
    found = {option for parameter in animate.params for option in parameter.opts}
    shared.remove("--prompts-over-time")  # an animated clip has a prompt for each stage
    shared.remove("--jobs")  # and there is one clip
    assert shared <= found
    own = "--fit --stages --image-guidance-scale --guidance-order --retention-scale --image-retention"
    assert {*own.split(), "--drop-duplicate-frame", "--match-stage-colors"} <= found - shared


COMMANDS = "generate animate edit plan interpolate repeat web convert evaluate push pull space report study".split()
WITH_EXAMPLES = (*COMMANDS, "study build", "study count")


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_the_help_are_commands_that_exist(name):
    command = get_command(app)
    for word in name.split():
        command = command.commands[word]
    text = re.sub(r"\n\s+--", " --", command.help)  # an example may go on in the next line
    examples = re.findall(r"^\s*\$ (.+)$", text, re.MULTILINE)
    assert len(examples) >= 2
    for example in examples:
        program, *arguments = shlex.split(example)
        words = name.split()
        assert [program, *arguments[: len(words)]] == ["landscape-video", *words]
        command.make_context(name, arguments[len(words) :])  # raises for what it does not know


def test_version_and_unknown_commands():
    from importlib.metadata import version

    assert CliRunner().invoke(app, ["--version"]).stdout == f"landscape-video {version('landscape-video')}\n"
    result = CliRunner().invoke(app, ["sculpt", "mist"])
    assert result.exit_code == 2 and result.stderr == "landscape-video: No such command 'sculpt'.\n"
    result = CliRunner().invoke(app, [])
    assert all(name in result.output for name in COMMANDS)
