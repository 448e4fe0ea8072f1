"""Links between pages lead somewhere."""

import re
from pathlib import Path

import pytest

from markdown_pages import CHINESE, ENGLISH, PAGES, ROOT


CARD = ROOT / "pipeline_landscape_video" / "shanshui_tiny" / "README.md"
FILES = (*PAGES, CARD, ROOT / "tests" / "upstream_results.md")


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", FILES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_and_images_exist(page):
    text = page.read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    for target in targets:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.is_file(), target
        assert not anchor or anchor in anchors_of(file), target


def test_the_index_lists_every_page():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in ENGLISH:
        if page.name != "README.md":
            assert f"({page.name})" in index
            assert f"(docs/{page.name})" in readme


def test_the_chinese_pages_are_listed_and_translate_english_ones():
    index = (ROOT / "docs" / "README.zh.md").read_text(encoding="utf-8")
    for page in CHINESE:
        assert page.name == "README.zh.md" or f"({page.name})" in index
        assert (ROOT / "docs" / page.name.replace(".zh", "")) in ENGLISH


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_files_that_a_page_names_exist(page):
    folders = "pipeline_landscape_video|motion_adapter|landscape_video|training|benchmarks|examples|tests"
    for name in re.findall(rf"`((?:{folders})/[\w/.]*)`", page.read_text(encoding="utf-8")):
        assert (ROOT / name).exists(), name
