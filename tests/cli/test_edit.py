"""`landscape-video edit` keeps frames, rate and aspect ratio; wrong input is one line, and nothing is written."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from landscape_video.cli.main import app
from pipeline_landscape_video import LandscapeVideoEditingPipeline
from pipeline_landscape_video.video_io import probe_video, read_metadata, read_video, write_video
from tiny_models import build_components, build_unet2d


CLIP = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3)).astype(np.uint8)
MASK = np.zeros((3, 64, 96), bool)
MASK[:, :, :48] = True


@pytest.fixture
def edit(tmp_path, monkeypatch, models):
    monkeypatch.chdir(tmp_path)
    write_video("river.mp4", CLIP, fps=6)
    np.save("mask.npy", MASK)

    def run(*words):
        fixed = ["--model", str(models / "video"), "--steps", "2", "--seed", "1", "--device", "cpu"]
        return CliRunner().invoke(app, ["edit", *fixed, *map(str, words)])

    return run


def test_an_edit_keeps_frames_times_and_aspect_ratio(edit):
    result = edit("river.mp4", "snow", "--source-prompt", "mist", "--output", "snow.mp4", "--mask", "mask.npy")
    assert result.exit_code == 0, result.output
    clip, source = read_video("snow.mp4"), probe_video("river.mp4")
    assert len(clip.frames) == 3 and clip.fps == pytest.approx(6)
    assert clip.frames.shape[2] / clip.frames.shape[1] == pytest.approx(source.width / source.height, rel=0.02)
    metadata = read_metadata("snow.mp4")
    assert (metadata["edit"], metadata["source_prompt"], metadata["source"]) == ("snow", "mist", "river.mp4")
    assert metadata["seed"] == 1 and metadata["edit_mode"] == "paired"


def test_several_prompts_are_several_edits(edit):
    result = edit("river.mp4", "snow", "rain", "--source-prompt", "mist", "--output", "new.gif", "--resize", 32)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path.cwd().glob("new*")) == ["new-01.gif", "new-02.gif"]
    assert min(read_video("new-01.gif").frames.shape[1:3]) == 32


def test_a_model_that_reads_depth_gets_that_of_the_file(edit, tmp_path):
    LandscapeVideoEditingPipeline(**build_components(unet=build_unet2d(in_channels=5))).save_pretrained(
        tmp_path / "deep"
    )
    clips = []
    for name, depth in (("near", np.linspace(0, 1, 96)), ("far", np.linspace(1, 0, 96))):
        np.save(f"{name}.npy", np.broadcast_to(depth, (3, 64, 96)))
        words = ("river.mp4", "snow", "--source-prompt", "mist", "--output", name, "--depth", f"{name}.npy")
        result = edit(*words, "--model", tmp_path / "deep")
        assert result.exit_code == 0, result.output
        clips.append(read_video(name).frames)
    assert (clips[0] != clips[1]).any()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("mask.npy", "snow", "--source-prompt", "mist"), "mask.npy"),
        (("nothing.mp4", "snow", "--source-prompt", "mist"), "nothing.mp4"),
        (("river.mp4", "snow"), "--source-prompt"),
        (("river.mp4", " ", "--source-prompt", "mist"), "must not be empty"),
        (("river.mp4", "snow", "--source-prompt", "mist", "--mask", "none.npy"), "existing files or folders"),
        (("river.mp4", "snow", "--source-prompt", "mist", "--output", "river.mp4"), "is the input"),
        (("river.mp4", "snow", "--source-prompt", "mist", "--strength", "2"), "--strength"),
        (("river.mp4", "snow", "--source-prompt", "mist", "--depth", "d.npy"), "reads no depth"),
        (("river.mp4", "snow", "--source-prompt", "mist", "--tuned", "mask.npy"), "mask.npy"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(edit, words, message):
    before = sorted(path.name for path in Path.cwd().iterdir())
    result = edit(*words)
    lines = [line for line in result.stderr.splitlines() if line.startswith("landscape-video")]
    assert result.exit_code != 0 and len(lines) == 1 and message in lines[0], result.stderr
    assert sorted(path.name for path in Path.cwd().iterdir()) == before
