"""The model card that `train_tiny.py` writes, and the one of the bundled family."""

import re
from string import Formatter

from pipeline_landscape_video import SHANSHUI_TINY
from shanshui.stages.export_family import CARD


def test_the_bundled_card_has_the_prose_of_the_template():
    literals = [literal for literal, *_ in Formatter().parse(CARD)]
    assert len(literals) > 2  # with something to fill in
    # A field is a word in a line, or a table in a paragraph of its own.
    pattern = "(?:[^\\n]|\\n(?=\\|))+?".join(map(re.escape, literals))
    card = (SHANSHUI_TINY / "README.md").read_text(encoding="utf-8")
    assert re.search(pattern, card), "change the prose in the template and in the bundled card alike"
