"""The model card that `train_tiny.py` writes, and the one of the bundled family."""

import re
from string import Formatter

import pytest

from pipeline_landscape_video import SHANSHUI_TINY
from shanshui.stages.model_card import HEADER, TRAINING


@pytest.mark.parametrize("template", [HEADER, TRAINING], ids=["header", "training"])
def test_the_bundled_card_has_the_prose_of_the_template(template):
    literals = [literal for literal, *_ in Formatter().parse(template)]
    assert len(literals) > 1  # with something to fill in
    pattern = "[^\\n]+?".join(map(re.escape, literals))
    card = (SHANSHUI_TINY / "README.md").read_text(encoding="utf-8")
    assert re.search(pattern, card), "change the prose in the template and in the bundled card alike"
