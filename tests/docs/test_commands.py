"""Commands and snippets of the documentation: flags exist, files exist, names can be imported, short snippets run."""

import argparse
import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest
import typer

from command_parsers import parser_of, typer_commands
from markdown_pages import ROOT, CodeBlock, code_blocks


def command_lines() -> list[tuple[str, list[str]]]:
    """Return (place, words) of each command: comments and environment variables removed, `&&` split."""
    found = []
    for block in code_blocks("bash"):
        text = block.code.replace("\\\n", " ")
        for number, line in enumerate(text.splitlines(), start=block.line):
            words = shlex.split(line, comments=True)
            for part in " ".join(map(shlex.quote, words)).split(" '&&' "):
                command = shlex.split(part)
                while command and re.fullmatch(r"[A-Z_]+=.*", command[0]):
                    command = command[1:]
                if command:
                    found.append((f"{block.page.relative_to(ROOT)}:{number} {shlex.join(command[:3])}", command))
    return found


def parse_with_typer(words: list[str]) -> None:
    """Parse the words after `landscape-video`, without running the command."""
    commands = typer_commands()
    name = next(name for name in (" ".join(words[:2]), words[0]) if name in commands)
    try:
        commands[name].make_context(name, words[len(name.split()) :])
    except typer.TyperException as error:
        raise AssertionError(error.format_message()) from error
    except typer.Exit:  # --help
        pass


def parse_with_argparse(script: Path, words: list[str], monkeypatch) -> None:
    def fail(self: argparse.ArgumentParser, message: str) -> None:
        raise AssertionError(message)

    monkeypatch.setattr(argparse.ArgumentParser, "error", fail)
    parser_of(script).parse_args(words)


@pytest.mark.parametrize("words", [pytest.param(words, id=place) for place, words in command_lines()])
def test_the_command_parses(words, monkeypatch):
    program, *rest = words
    if program == "landscape-video":
        return parse_with_typer(rest)
    if rest[:2] == ["-m", "landscape_video"] or program in ("pip", "mkdir", "pytest"):
        return None
    if program == "accelerate":
        assert rest.pop(0) == "launch"
        while rest[0] == "--config_file":
            assert (ROOT / rest[1]).is_file()
            rest = rest[2:]
    elif program != "python":  # a script of ours that is started by its path
        assert (ROOT / program).is_file()
        return None
    parse_with_argparse(ROOT / rest[0], rest[1:], monkeypatch)
    return None


@pytest.mark.parametrize("words", [pytest.param(words, id=place) for place, words in command_lines()])
def test_its_input_files_exist(words):
    for word in words:
        if re.match(r"(examples|benchmarks|training|tests)/", word) and "*" not in word:
            assert (ROOT / word).exists(), word


@pytest.mark.parametrize("block", [pytest.param(block, id=block.name) for block in code_blocks("python")])
def test_names_of_the_snippet_exist(block: CodeBlock):
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            for alias in node.names:
                assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


def offline_snippets() -> list:
    """The snippets that need no download and no GPU."""
    blocks = [
        block for block in code_blocks("python") if "shanshui" in block.code.lower() or "read_video" in block.code
    ]
    assert len(blocks) >= 4
    return [pytest.param(block, id=block.name) for block in blocks]


class Shorten(ast.NodeTransformer):
    """Let each call of `pipe` take one step, and half of the frames that it asks for."""

    def visit_Call(self, node: ast.Call) -> ast.Call:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "pipe":
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            num_frames = ast.literal_eval(given.get("num_frames", ast.Constant(16))) // 2
            given |= {"num_frames": ast.Constant(num_frames), "num_inference_steps": ast.Constant(1)}
            node.keywords = [ast.keyword(name, value) for name, value in given.items()]
        return node


@pytest.mark.parametrize("block", offline_snippets())
def test_the_snippet_runs(block: CodeBlock, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shortened = ast.fix_missing_locations(Shorten().visit(ast.parse(block.code)))
    names: dict = {}
    exec(compile(shortened, block.name, "exec"), names)
    assert len(names["frames"]) > 1
