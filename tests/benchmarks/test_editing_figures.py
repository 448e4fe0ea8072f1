"""Figures of edited clips: what they are where the answer is known, and their tables."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from editing_figures import FIGURES, MOST_PSNR, edge_correlation, flow_error, measure_edit, psnr, table
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier, label_index
from landscape_video.evaluation.metrics.video_features import ClipScorer
from shanshui.measuring.classifier_training import ATTRIBUTES
from shanshui.renderer.edits import Edit
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import Scene


SCENE = Scene("ink", layers=3, camera="left", water="lake", seed=4)
TIMES = [0.5, 0.75, 1.0]


@pytest.fixture(scope="module")
def clip() -> np.ndarray:
    return render_clip(SCENE, TIMES)


def classifier_that_sees(scene: Scene) -> SceneClassifier:
    """A classifier whose biases alone decide."""
    model = SceneClassifier(ATTRIBUTES).eval()
    for name, head in model.heads.items():
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.zeros_(head.bias)
        head.bias.data[label_index(ATTRIBUTES[name], getattr(scene, name))] = 1.0
    return model


def test_a_clip_is_like_itself(clip):
    assert edge_correlation(clip, clip) == pytest.approx(1)
    assert flow_error(clip, clip) == 0 and psnr(clip, clip) == MOST_PSNR
    assert psnr(np.zeros((1, 2, 2, 3), np.uint8), np.full((1, 2, 2, 3), 255, np.uint8)) == 0


def test_another_layout_and_another_motion_are_seen(clip):
    other = render_clip(replace(SCENE, seed=5), TIMES)
    repainted = render_clip(replace(SCENE, palette="dawn"), TIMES)
    assert edge_correlation(clip, other) < 0.5 < 0.8 < edge_correlation(clip, repainted)
    back = render_clip(replace(SCENE, camera="right"), TIMES)
    assert flow_error(clip, repainted) < 0.5 < flow_error(clip, back)


def test_an_edit_is_seen_where_the_classifier_sees_it(clip):
    edit = Edit("palette", "palette", SCENE, replace(SCENE, palette="dawn"), "ink", "dawn")
    figures = measure_edit(clip, clip, clip, edit, classifier_that_sees(edit.target), ClipScorer())
    assert figures.keys() == FIGURES.keys() and (figures["seen"], figures["kept"]) == (1, 1)
    figures = measure_edit(clip, clip, clip, edit, classifier_that_sees(SCENE), ClipScorer())
    assert (figures["seen"], figures["kept"]) == (0, 1)


def test_tables_average_seeds_and_compare_the_same_edits():
    def record(way: str, edit: int, seed: int, value: float, kind: str = "light") -> dict:
        return {"way": way, "edit": edit, "seed": seed, "kind": kind} | dict.fromkeys(FIGURES, value)

    records = [
        record("ours", 0, 0, 1.0), record("ours", 0, 1, 3.0), record("ours", 1, 0, 5.0, "added"),
        record("other", 0, 0, 1.5), record("alone", 2, 0, 9.0),
    ]  # fmt: skip
    means, differences = table(records, "ours").split("\n\n")
    assert "| ours | 2 | 3.50 [2.00, 5.00]" in means and "| other | 1 | 1.50" in means
    assert "| other | 1 | 0.50" in differences and "alone" not in differences
    assert "| ours | 1 | 2.00" in table(records, "ours", ["light"])
