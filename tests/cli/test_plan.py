"""`landscape-video plan` shows the windows that a clip is sampled in."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from typer.testing import CliRunner

from landscape_video.cli.main import app
from landscape_video.cli.plan import draw_text, lanes_of
from pipeline_landscape_video.landscape_windows import WindowPlan


def run(*arguments):
    return CliRunner().invoke(app, ["plan", *arguments])


def test_the_picture_has_a_bar_for_each_window_of_each_step():
    plan = WindowPlan(48)
    text = draw_text(plan, steps=3)
    assert text.count("[==============]") == sum(len(plan.windows(step)) for step in range(3))
    first, second = text.splitlines()[1:3]
    assert [first.index("["), second.index("[")] == [9 + plan.windows(0)[0][0], 9 + plan.windows(0)[1][0]]


@pytest.mark.parametrize("plan", [WindowPlan(100, 16, 15), WindowPlan(40, closed_loop=True), WindowPlan(8)])
def test_no_two_windows_of_a_row_overlap(plan):
    windows = plan.windows(3)
    rows = lanes_of(windows, plan.length)
    for row in rows:
        frames = [frame for parts in row for start, end in parts for frame in range(start, end)]
        assert len(set(frames)) == len(frames)
    assert sum(len(row) for row in rows) == len(windows)


def test_a_drawing_has_the_windows_with_their_frames(tmp_path):
    result = run("--num-frames", "96", "--output", str(tmp_path / "plan.svg"))
    assert result.exit_code == 0, result.output
    assert "8.58 windows a step, 1.43 times the cost" in result.output
    drawing = ElementTree.parse(tmp_path / "plan.svg")
    titles = [title.text for title in drawing.iter("{http://www.w3.org/2000/svg}title")]
    windows = [window for step in range(4) for window in WindowPlan(96).windows(step)]
    assert sorted(titles) == sorted(f"frames {window[0]} to {window[-1]}" for window in windows)


def test_one_window_needs_no_plan():
    assert "16 frames in one window" in run("--num-frames", "16").output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--context-overlap", "16", "--num-frames", "96"], "--context-overlap must be smaller than --context-length"),
        (["--context-schedule", "uniform", "--num-frames", "9"], "--context-schedule must be one of moved, static"),
        (["--output", "plan.png"], "--output must be an .svg file in an existing folder, got plan.png"),
    ],
)
def test_wrong_input_is_one_line(arguments, message):
    result = run(*arguments)
    assert result.exit_code == 2 and message in result.stderr
    assert not Path("plan.png").exists()
