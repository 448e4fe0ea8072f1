"""Read the documentation: its pages, and the code blocks in them."""

import re
from pathlib import Path
from typing import NamedTuple


ROOT = Path(__file__).parents[2]
ENGLISH = tuple(page for page in sorted((ROOT / "docs").glob("*.md")) if not page.name.endswith(".zh.md"))
CHINESE = tuple(sorted((ROOT / "docs").glob("*.zh.md")))
PAGES = (ROOT / "README.md", *ENGLISH, ROOT / "README.zh.md", *CHINESE)


class CodeBlock(NamedTuple):
    """A fenced code block of a page, with the number of its first line."""

    page: Path
    line: int
    language: str
    code: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def code_blocks(language: str) -> list[CodeBlock]:
    """Return all code blocks of a language, over all pages."""
    blocks = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start(1)) + 1
            blocks.append(CodeBlock(page, line, language, match[1]))
    return blocks


def prose_of(text: str) -> str:
    """Return the running text of a Markdown page: no code blocks, tables, headings, images or link targets."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"^(\||#|<|    ).*$", "", text, flags=re.MULTILINE)
    text = re.sub(r"!\[[^]]*\]\([^)]*\)", "", text)
    return re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", text)
