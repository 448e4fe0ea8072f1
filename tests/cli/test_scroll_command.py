"""`landscape-video scroll`: a scroll of the bundled model; wrong input is one line before anything is loaded."""

import pytest
from PIL import Image
from typer.testing import CliRunner

from landscape_video.cli.main import app
from landscape_video.cli.scroll import read_prompts_along
from pipeline_landscape_video.video_io import read_video


def run(*words):
    return CliRunner().invoke(app, ["scroll", *words])


def test_a_scroll_of_the_bundled_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = "--length 2 --num-frames 9 --width 128 --steps 1 --decoder native --no-interpolate --output s.mp4"
    result = run("mist drifting right", *words.split())
    assert result.exit_code == 0, result.output
    assert "256 pixels of scroll, 9 frames that move by 16 pixels, 3 windows a step" in result.stderr
    assert read_video("s.mp4").frames.shape == (9, 128, 128, 3)
    assert Image.open("s.png").size == (256, 128)


def test_prompts_along_the_scroll_are_read_from_a_file(tmp_path):
    (tmp_path / "seasons.txt").write_text("0: snow on the hills\n\n0.5: hills at dawn\n")
    assert read_prompts_along(tmp_path / "seasons.txt") == {0: "snow on the hills", 0.5: "hills at dawn"}


@pytest.mark.parametrize(
    ("words", "lines", "message"),
    [
        ([], "", "give either a prompt or --prompts-along"),
        (["mist", "--prompts-along", "along.txt"], "0: a", "give either a prompt or --prompts-along"),
        ([" "], "", "a prompt must not be empty"),
        (["--prompts-along", "along.txt"], "0.5: a", "must begin with share 0, got 0.5"),
        (["--prompts-along", "along.txt"], "0: a\n1: b", "a share from 0 to below 1, got '1: b'"),
        (["--prompts-along", "along.txt"], "0: a\nnan: b", "a share from 0 to below 1, got 'nan: b'"),
        (["--prompts-along", "along.txt"], "0: a\n0.5: b\n0.5: c", "shares must increase, got 0.5 after 0.5"),
        (["mist", "--picture", "none/s.png"], "", "--picture must be a .png file in an existing folder"),
        (["mist", "--picture", "s.jpg"], "", "--picture must be a .png file in an existing folder"),
        (["mist", "--length", "0.5"], "", "--length must be at least 1"),
        (["mist", "--output", "s.avi"], "", "s.avi"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, monkeypatch, words, lines, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "along.txt").write_text(lines)
    monkeypatch.setattr("landscape_video.cli.scroll.load_pipeline", lambda models: pytest.fail("a model was loaded"))
    result = run("--seed", "1", *words)
    assert result.exit_code == 2 and message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert [file.name for file in tmp_path.iterdir()] == ["along.txt"]
