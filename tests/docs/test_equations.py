"""Each function that docs/equations.md lists exists and begins its docstring with the citation."""

import ast
import re
from pathlib import Path

import pytest

from markdown_pages import ROOT


PAGE = ROOT / "docs" / "equations.md"


CODE = ("pipeline_landscape_video", "motion_adapter", "landscape_video", "training")


def listed() -> list[tuple[str, Path, str]]:
    """Return (citation, file, function) of each row; the function is qualified by its class."""
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    found = []
    for citation, functions in rows:
        links = re.findall(r"\[`([\w.]+)`\]\(\.\./([^)]+)\)", functions)
        found += [(citation, ROOT / file, function) for function, file in links]
    return found


def docstring_of(file: Path, name: str) -> str:
    """Return the docstring of a function, class or method."""
    node: ast.AST = ast.parse(file.read_text(encoding="utf-8"))
    for part in name.split("."):
        children = [child for child in ast.iter_child_nodes(node) if getattr(child, "name", None) == part]
        assert children, f"{file.relative_to(ROOT)} has no {name}."
        node = children[0]
    return (ast.get_docstring(node) or "").strip()


@pytest.mark.parametrize("citation, file, function", [pytest.param(*row, id=f"{row[0]} {row[2]}") for row in listed()])
def test_the_docstring_begins_with_the_citation(citation, file, function):
    # "NADM Eq. 8" is met by "NADM Eq. 8: ...", "NADM Eq. 8, ..." and "NADM Eq. 8 and ...".
    assert re.match(rf"{re.escape(citation)}\b", docstring_of(file, function))


def test_functions_that_cite_an_equation_are_listed():
    functions = {(file, name.split(".")[-1]) for _, file, name in listed()}
    for folder in CODE:
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                    continue
                if re.match(r"\w+ (Eqs?|Alg)\. \d", (ast.get_docstring(node) or "").strip()):
                    assert (file, node.name) in functions, f"{file.relative_to(ROOT)}: {node.name}"
