"""Render the HTML pages of reports and user studies. Each page holds its styles and scripts and loads nothing else."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


PAGES = Path(__file__).parent


def render_page(template: str, **content: Any) -> str:
    """Fill in a template of this folder."""
    loader = FileSystemLoader(PAGES)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template(template).render(content)
