"""Templates are filled in with escaped text, and missing content is an error."""

import pytest
from jinja2 import UndefinedError

from landscape_video.evaluation.pages import PAGES, render_page


def test_a_page_holds_its_styles_and_scripts():
    html = render_page("study.html", data="{}")
    for name in ("page.css", "study.css", "study_logic.js", "study_page.js"):
        assert (PAGES / name).read_text(encoding="utf-8").strip() in html
    assert "src=" not in html and "href=" not in html.replace("link.href", "")


def test_missing_content_is_an_error():
    with pytest.raises(UndefinedError, match="title"):
        render_page("report.html")
