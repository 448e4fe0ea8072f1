"""Check what a machine can check of the English: length of sentences, words to avoid, spelling, docstrings.

This is a floor, not the aim. A rule that hits a good sentence is a reason to look at the rule.
"""

import ast
import re
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from markdown_pages import ENGLISH, ROOT, prose_of


CODE = (
    "pipeline_landscape_video",
    "motion_adapter",
    "landscape_video",
    "comfyui_landscape_video",
    "training",
    "benchmarks",
    "examples",
)
RESULTS = ROOT / "benchmarks" / "results"
CARD = ROOT / "pipeline_landscape_video" / "shanshui_tiny" / "README.md"
MAX_WORDS = 25  # of a sentence; one sentence in ten may be longer


class Rule(NamedTuple):
    """Words to avoid, and what to write instead."""

    pattern: str
    instead: str
    allowed: str = r"(?!)"  # in a line that matches this, the words are right


RULES = (
    Rule(r"\b(has|have|had) to be\b", "must be"),
    Rule(r"\b(is|are) to be had\b|\bthere (is|was|are) none\b|\bto be had\b", "not available, missing"),
    Rule(r"\bto the bit\b", "bit-identical"),
    Rule(r"\bfor ever\b", "the exact meaning"),
    Rule(r"\bmanyth\b", "every N-th"),
    Rule(r"\b(go|goes|going|went) on (where|from|until|with)\b", "resume, continue"),
    Rule(r"\bway (down|up)\b", "encoder, decoder"),
    Rule(r"came with the program", "bundled"),
    Rule(r"\btext.states?\b|\bTextStates\b", "prompt embeddings"),
    Rule(r"\bfrom nothing\b", "from scratch"),
    Rule(r"\b(drawn|made|painted|measured) anew\b", "fresh, again"),
    Rule(r"\bnobody else has\b", "not public"),
    Rule(r"\bstands? (in|beside|below|above|where|there|for itself)\b(?! for)", "is, is listed"),
    Rule(r"\blies?\b(?! (outside|closer|below|at anchor|on a))", "is, is stored", r"lying/lies"),
    Rule(r"(?<![Tt]here )\b(is|are|was|were) no (?!longer\b|more\b)", "is not a"),
    Rule(r"\bso many\b", "N, this many"),
    Rule(r"[Pp]aints a clip|\bpaints the same\b|\b[Pp]aint a clip\b", "generate"),
)
BRITISH = re.compile(
    r"\b\w*(colour|neighbour|behaviour|favour|centre[sd]?\b|grey|licence|programme\b|artefact|judgement|learnt|labell(?!edby)|"
    r"modell|travell|catalogue|"
    r"(normal|initial|optim|minim|maxim|summar|visual|serial|synchron|recogn|organ|general|random|quant|vector|real|"
    r"util|special|token|character|categor|parallel|standard|stabil|penal|final)is(e|ed|es|er|ing|ation)\b)\w*",
    re.IGNORECASE,
)
MACHINE = re.compile(r"(?<![\w.])/(work|root)/\w|\bworktrees?\b|\bsub-?agents?\b")
REGISTRY_HOSTS = ("pypi" + ".org", "python" + "hosted", "npmjs" + ".", "crates" + ".io", "anaconda" + ".")


def files_of_the_tree() -> list[Path]:
    """Return all files that people read: code, pages, launch files; not measured results."""
    found = [ROOT / "README.md", ROOT / "setup.py", ROOT / ".ci" / "run", ROOT / "pyproject.toml"]
    for folder in (*CODE, "docs", "tests"):
        for suffix in ("py", "md", "sh", "yaml", "html", "js", "css"):
            found += (ROOT / folder).rglob(f"*.{suffix}")
    return sorted(file for file in found if RESULTS not in file.parents and file != Path(__file__))


@cache
def text_of(file: Path) -> str:
    return file.read_text(encoding="utf-8")


def name_of(file: Path) -> str:
    return file.relative_to(ROOT).as_posix()


def sentences_of(page: str) -> list[str]:
    """Return the sentences of a Markdown page; an item of a list ends a sentence."""
    blocks = re.split(r"\n\s*\n|\n\s*(?:[-*]|\d+\.) ", "\n" + prose_of(page))
    found = []
    for block in blocks:
        text = re.sub(r"\be\.g\.|\bi\.e\.|\bet al\.", "", " ".join(block.split()))
        found += re.split(r"(?<=[.?!])\s+(?=[A-Z`*\d(])", text)
    return [sentence for sentence in found if re.search(r"[a-z]", sentence)]


@pytest.mark.parametrize("page", (ROOT / "README.md", *ENGLISH), ids=name_of)
def test_sentences_are_short(page):
    lengths = [len(re.findall(r"[\w`'./-]+", sentence)) for sentence in sentences_of(text_of(page))]
    assert np.percentile(lengths, 90) <= MAX_WORDS


@pytest.mark.parametrize("file", files_of_the_tree(), ids=name_of)
def test_words_to_avoid(file):
    for number, line in enumerate(text_of(file).splitlines(), start=1):
        for rule in RULES:
            match = re.search(rule.pattern, line)
            if match and not re.search(rule.allowed, line):
                raise AssertionError(f'{name_of(file)}:{number}: "{match[0]}"; write {rule.instead}: {line.strip()}')


@pytest.mark.parametrize("file", files_of_the_tree(), ids=name_of)
def test_spelling_is_american(file):
    for number, line in enumerate(text_of(file).splitlines(), start=1):
        match = BRITISH.search(re.sub(r"match.stage.colours", "", line))  # a public flag
        assert not match, f"{name_of(file)}:{number}: {match[0]}"


@pytest.mark.parametrize("file", files_of_the_tree(), ids=name_of)
def test_nothing_names_the_machine_it_was_written_on(file):
    text = text_of(file)
    assert not MACHINE.search(text), MACHINE.search(text)
    for host in REGISTRY_HOSTS:
        assert host not in text


def python_files() -> list[Path]:
    return [file for file in files_of_the_tree() if file.suffix == ".py"]


@pytest.mark.parametrize("file", python_files(), ids=name_of)
def test_module_docstrings_say_what_the_file_does(file):
    docstring = ast.get_docstring(ast.parse(text_of(file)))
    assert docstring or file.name in ("__init__.py", "setup.py") or "tests" in file.parts
    assert not re.match(r"(What|How|Which|Where|Whether|Who|Why|When)\b", docstring or ""), docstring


def arguments_of(docstring: str) -> list[tuple[str, str]]:
    """Return (name, description) of each item in the section `Args:`."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", docstring, re.DOTALL | re.MULTILINE)
    if section is None:
        return []
    items = re.split(r"^    (?=\S)", section[1], flags=re.MULTILINE)[1:]
    return [tuple(" ".join(item.split()).partition(": ")[::2]) for item in items]


# A line that begins so continues its heading: "path: of the file".
FRAGMENT = re.compile(r"(Of|As|In|By|With|From|To|Which|That|Where|And|Instead|Beside|Until|Without)\b")
START = re.compile(r"[A-Z\d`\"'(\[]|(float|uint|int|bool)\d*\b")


@pytest.mark.parametrize("file", [file for file in python_files() if "tests" not in file.parts], ids=name_of)
def test_lines_of_args_stand_alone(file):
    for node in ast.walk(ast.parse(text_of(file))):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        for name, description in arguments_of(ast.get_docstring(node) or ""):
            place = f"{name_of(file)}: {node.name}, {name}: {description}"
            assert START.match(description), f"{place} must begin with a capital letter or code."
            assert not FRAGMENT.match(description), f"{place} must stand alone."
            assert description.endswith((".", ")", "`")), f"{place} must end with a period."
