"""Clips and their edits: the renderer changes what the edit names, and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from shanshui.renderer.brushwork import View
from shanshui.renderer.composition import Layout
from shanshui.renderer.edits import KINDS, MOTIFS, Edit, changes_of, draw_edits
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import ATTRIBUTES, Scene


TIMES = [0.5, 1.5]
FULL = Scene(
    "autumn", layers=3, camera="left", water="lake", boat="right", mist="left", birds="right", trees="pines",
    light="sun", waterfall=True, pavilion=True, seed=6,
)  # fmt: skip


def test_edits_are_of_all_kinds_and_change_one_attribute():
    edits = draw_edits(10, seed=2)
    assert [edit.kind for edit in edits] == [*KINDS, *KINDS]
    assert draw_edits(3, seed=2) == edits[:3]
    for edit in edits:
        differing = [name for name in ATTRIBUTES if getattr(edit.source, name) != getattr(edit.target, name)]
        assert differing == [edit.attribute] and edit.source.seed == edit.target.seed
        assert edit.source_prompt != edit.prompt


@pytest.mark.parametrize("attribute", MOTIFS)
def test_removing_a_motif_leaves_the_rest_of_the_frame(attribute):
    without = replace(FULL, **{attribute: dict(changes_of(FULL, "removed"))[attribute]})
    before, after = Edit("removed", attribute, FULL, without, "", "").render(TIMES)
    assert np.array_equal(before, render_clip(FULL, TIMES))
    share = (np.abs(before.astype(int) - after).max(-1) > 2).mean()
    assert 0.005 < share < (0.5 if attribute == "mist" else 0.25)  # the lake mirrors mist
    # Adding the motif to the scene without it gives the same two clips.
    added = Edit("added", attribute, without, FULL, "", "").render(TIMES)
    assert np.array_equal(added[0], after) and np.array_equal(added[1], before)


def test_a_palette_keeps_every_edge():
    edit = Edit("palette", "palette", FULL, replace(FULL, palette="ink"), "", "")
    before, after = (clip.astype(float).mean(-1) for clip in edit.render(TIMES))
    edges = [np.hypot(*np.gradient(clip, axis=(1, 2))).ravel() for clip in (before, after)]
    assert np.corrcoef(edges)[0, 1] > 0.8 and np.abs(before - after).mean() > 5


def test_a_boat_needs_water():
    dry = Scene(water="none", seed=3)
    assert "boat" not in dict(changes_of(dry, "added")) and "boat" in dict(
        changes_of(replace(dry, water="lake"), "added")
    )
    assert not list(changes_of(dry, "light")) and not list(changes_of(dry, "removed"))


def test_another_landscape_cannot_be_composed_like():
    with pytest.raises(ValueError, match="`composed_like` must have the same"):
        Layout(View(64, 64), FULL, composed_like=replace(FULL, layers=4))
