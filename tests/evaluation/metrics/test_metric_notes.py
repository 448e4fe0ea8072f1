"""Every label that an evaluation can print is explained on the page that shows it."""

import pytest

from landscape_video.evaluation.metrics.metric_notes import explain
from landscape_video.evaluation.metrics.registry import DIRECTIONS
from landscape_video.evaluation.report.page import COSTS
from miniature_tables import OWN_DIRECTIONS


@pytest.mark.parametrize("label", [*DIRECTIONS, *COSTS, *OWN_DIRECTIONS, "FVD16", "KVD16", "PSNR, even"])
def test_every_label_has_a_note_of_its_own(label):
    (note,) = explain([label])
    assert note.label == label and len(note.text) > 40
    others = [explain([other])[0].text for other in DIRECTIONS if other != label and not label.startswith(other)]
    assert note.text not in others


def test_brackets_are_explained_once_and_ours_most_of_all():
    notes = explain(["FVD16[shanshui-clip]", "KVD16[shanshui-clip]", "FVD16[i3d]", "CLIP-text[ViT-L/14]"])
    assert [note.label for note in notes] == ["FVD16", "KVD16", "CLIP-text", "[…]", "[shanshui-clip]"]
    assert "nothing that was published" in notes[-1].text
    assert [note.label for note in explain(["FVD16[i3d]"])] == ["FVD16", "[…]"]


def test_an_unknown_label_has_no_note():
    assert explain(["charm"]) == []
