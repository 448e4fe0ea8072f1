"""`landscape-video repeat`: the recipe in a file gives the same frames again, or says why not."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from landscape_video.cli.main import app
from pipeline_landscape_video.video_io import read_metadata, read_video, write_video


@pytest.fixture
def repeat(generate, models):
    """Make mist.mp4 in an empty folder, and return a runner of `repeat`."""
    assert generate("a boat", "--seed", 3, "--output", "mist.mp4").exit_code == 0

    def run(*arguments: object):
        return CliRunner().invoke(app, ["repeat", *map(str, arguments), "--device", "cpu"])

    return run


def test_the_frames_are_bit_identical(repeat, models):
    result = repeat("mist.mp4", "--model", models / "video")
    assert result.exit_code == 0, result.stderr
    assert "All frames are bit-identical to those of mist.mp4." in result.stdout
    assert (read_video("mist.mp4").frames == read_video("mist-again.mp4").frames).all()


def test_differences_are_named(repeat, models):
    metadata = read_metadata("mist.mp4")
    metadata["versions"]["torch"], metadata["threads"] = "1.0", 64
    write_video("mist.mp4", read_video("mist.mp4").frames[::-1], 16, metadata)
    result = repeat("mist.mp4", "--model", models / "video", "--output", "new.mp4")
    assert result.exit_code == 0
    assert "The frames differ" in result.stdout and "torch: 1.0 then" in result.stdout
    assert "threads: 64 then" in result.stdout


def test_a_file_loads_no_model_by_itself(repeat, models):
    result = repeat("mist.mp4")
    assert result.exit_code == 2
    assert f"was made with --model {models / 'video'}, got shanshui-tiny" in result.stderr
    assert not Path("mist-again.mp4").exists()


def test_wrong_files_are_one_line(repeat, models):
    Path("notes.mp4").write_text("no clip")
    for arguments, message in (
        (("notes.mp4",), "is not a clip"),
        (("nothing.mp4",), "no such file"),
        (("mist.mp4", "--model", models / "video", "--output", "x.gif"), "must have the format"),
    ):
        result = repeat(*arguments)
        assert result.exit_code == 2 and message in result.stderr and len(result.stderr.splitlines()) == 1
