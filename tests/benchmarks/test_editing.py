"""The benchmark of edits: SDEdit, what a repeated command makes again, and its sheets."""

import sys
from pathlib import Path

import numpy as np
import pytest

import editing
from editing import Clip, Editor, draw_true, keep_source, sdedit
from editing_figures import psnr
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier
from shanshui.measuring.classifier_training import ATTRIBUTES
from shanshui.renderer.edits import draw_edits
from shanshui.renderer.scene import HELD_OUT_SEED


@pytest.fixture(scope="module")
def clip() -> Clip:
    return Clip.render(draw_edits(1, HELD_OUT_SEED)[0], 2)


def test_a_rendered_clip_has_its_true_edit_and_depth(clip):
    assert clip.source.shape == clip.true.shape == (2, 128, 128, 3) and psnr(clip.source, clip.true) < 25
    assert clip.depth.shape == (2, 1, 128, 128) and (clip.depth.min(), clip.depth.max()) == (-1, 1)


def test_sdedit_keeps_less_with_more_strength(clip, tmp_path: Path):
    pipe = Editor(1, tmp_path).pipe()
    source = keep_source(pipe, clip, 0, 1)
    weak, strong = (sdedit(pipe, clip, 0, 10, strength) for strength in (0.1, 0.3))
    assert psnr(weak, source) > psnr(strong, source) + 2
    assert np.array_equal(weak, sdedit(pipe, clip, 0, 10, 0.1)) and psnr(weak, sdedit(pipe, clip, 1, 10, 0.1)) < 60
    assert psnr(draw_true(pipe, clip, 0, 1), clip.true) > 25


def test_a_repeated_command_makes_only_what_is_missing(monkeypatch, tmp_path: Path):
    SceneClassifier(ATTRIBUTES).save(tmp_path / "classifier.safetensors")
    command = [
        "editing", "--scene_classifier", str(tmp_path / "classifier.safetensors"), "--edits", "1", "--seeds", "2",
        "--num_frames", "2", "--output_dir", str(tmp_path), "--ways", "source",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "argv", command)
    editing.main()
    lines = (tmp_path / "clips.jsonl").read_text()
    assert lines.count("\n") == 1 and (tmp_path / "00 seed 0 palette.png").stat().st_size > 1000
    monkeypatch.setattr(sys, "argv", [*command, "true edit"])
    editing.main()
    assert (tmp_path / "clips.jsonl").read_text().startswith(lines)
    assert (tmp_path / "tables.md").read_text().count("| true edit | 1 |") == 2  # of all edits, and of its kind
