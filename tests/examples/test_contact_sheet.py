"""The contact sheet holds the right frames at the right places."""

import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from pipeline_landscape_video.video_io import read_video, write_video


SCRIPT = Path(__file__).parents[2] / "examples" / "contact_sheet.py"


def test_rows_are_clips_and_columns_go_from_first_to_last_frame():
    contact_sheet = runpy.run_path(str(SCRIPT))["contact_sheet"]
    clips = [np.arange(5, dtype=np.uint8).reshape(5, 1, 1, 1).repeat(3, axis=3) + 10 * row for row in range(2)]
    assert contact_sheet(clips, 3)[:, :, 0].tolist() == [[0, 2, 4], [10, 12, 14]]


def test_the_command_writes_an_image(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", np.full((4, 16, 32, 3), 0.5, np.float32), fps=8)
    monkeypatch.setattr(sys, "argv", ["contact_sheet.py", str(tmp_path / "clip.mp4"), "--columns", "2"])
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--output", str(tmp_path / "sheet.png")])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    assert cv2.imread(str(tmp_path / "sheet.png")).shape == (16, 64, 3)


def test_clips_play_side_by_side(tmp_path, monkeypatch):
    fade = np.linspace(0, 0.1, 3, dtype=np.float32)[:, None, None, None] * np.ones((16, 32, 3), np.float32)
    for name, clip in (("before", fade), ("after", 1 - fade)):
        write_video(tmp_path / f"{name}.gif", clip, fps=8)
    clips = [str(tmp_path / f"{name}.gif") for name in ("before", "after")]
    output = tmp_path / "pair.webp"
    monkeypatch.setattr(
        sys, "argv", ["contact_sheet.py", *clips, "--moving", "--height", "8", "--output", str(output)]
    )
    runpy.run_path(str(SCRIPT), run_name="__main__")
    pair = read_video(output)
    assert pair.frames.shape == (3, 8, 32, 3) and pair.fps == pytest.approx(8, abs=0.2)
    assert pair.frames[:, :, :12].max() < 40 and pair.frames[:, :, 20:].min() > 215


def test_an_unwritable_output_ends_with_one_line(tmp_path, monkeypatch):
    write_video(tmp_path / "clip.mp4", np.full((2, 16, 16, 3), 0.5, np.float32), fps=8)
    output = tmp_path / "missing" / "sheet.png"
    monkeypatch.setattr(sys, "argv", ["contact_sheet.py", str(tmp_path / "clip.mp4"), "--output", str(output)])
    with pytest.raises(SystemExit, match="cannot be written"):
        runpy.run_path(str(SCRIPT), run_name="__main__")
