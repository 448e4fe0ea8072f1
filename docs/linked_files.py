"""Add the files that pages link to, but which are outside `docs/`, to the site of mkdocs.

A link such as `../benchmarks/results/sofp.md` works in a checkout. On the site, that file is
`files/benchmarks/results/sofp.md`, and links lead there.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files


ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()(?!https?:|#)([^)#\s]+)")


def on_files(files: Files, config: Any) -> Files:
    """Add each linked file, and those that Markdown pages among them link to."""
    pending = [Path(page.abs_src_path) for page in files.documentation_pages()]
    while pending:
        page = pending.pop()
        for link in LINK.findall(page.read_text(encoding="utf-8")):
            target = (page.parent / link).resolve()
            name = _name_on_the_site(target)
            if target.is_file() and name.startswith("files/") and not files.get_file_from_path(name):
                files.append(File.generated(config, name, abs_src_path=str(target)))
                pending += [target] if target.suffix == ".md" else []
    home, english = files.get_file_from_path("README.zh.md"), files.get_file_from_path("README.md")
    if home is not None and home.inclusion.is_included():  # the site in Chinese begins with its own page
        home.dest_uri, english.dest_uri = english.dest_uri, home.dest_uri
        home.url, english.url = english.url, home.url
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Point links at the names that files have on the site."""
    source = Path(page.file.abs_src_path)
    up = "../" * page.file.src_uri.count("/")
    return LINK.sub(lambda match: up + _name_on_the_site((source.parent / match[1]).resolve()), markdown)


def _name_on_the_site(file: Path) -> str:
    docs = ROOT / "docs"
    return (
        file.relative_to(docs).as_posix()
        if file.is_relative_to(docs)
        else f"files/{file.relative_to(ROOT).as_posix()}"
    )
