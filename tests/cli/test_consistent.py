"""`landscape-video consistent`: a clip of the bundled model; wrong input is one line before anything is loaded."""

import numpy as np
import pytest
from typer.testing import CliRunner

from landscape_video.cli.main import app
from pipeline_landscape_video.video_io import read_metadata, read_video, write_video


CLIP = np.random.default_rng(0).integers(0, 255, (4, 64, 64, 3)).astype(np.uint8)
MASK = np.zeros((4, 64, 64), bool)
MASK[:, 16:32, 16:48] = True


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video("clip.mp4", CLIP, fps=6)
    np.save("mask.npy", MASK)
    return tmp_path


def test_a_clip_of_the_bundled_model(files, monkeypatch):
    monkeypatch.setenv("LANDSCAPE_VIDEO_CACHE", str(files / "cache"))
    words = "clip.mp4 --masks mask.npy --prompt mist --steps 2 --tune-steps 1 --height 64 --width 64 --decoder native"
    result = CliRunner().invoke(app, ["consistent", *words.split(), "--output", "new"])
    assert result.exit_code == 0, result.output
    clip = read_video("new")
    assert clip.frames.shape == (4, 64, 64, 3)
    assert clip.fps == pytest.approx(6)
    metadata = read_metadata("new")
    assert metadata["source"] == "clip.mp4"
    assert metadata["strength"] == 0.6
    repeated = CliRunner().invoke(app, ["repeat", "new"])
    assert repeated.exit_code == 2 and "follows another clip" in repeated.stderr
    assert any((files / "cache" / "consistency").glob("*/run/lora/pytorch_lora_weights.safetensors"))


@pytest.mark.parametrize(
    "words, message",
    [
        ("none.mp4 --masks mask.npy --prompt mist", "none.mp4"),
        ("clip.mp4 --prompt mist", "--masks must be given to fuse backgrounds"),
        ("clip.mp4 --masks mask.npy", "give either --prompt or --prompts-over-time"),
        ("clip.mp4 --masks short.npy --prompt mist", "--masks must have 4 frames of 64 x 64"),
        ("clip.mp4 --masks small.npy --prompt mist", "--masks must have 4 frames of 64 x 64"),
        ("clip.mp4 --masks mask.npy --prompt mist --num-frames 9", "--num-frames must be at most 4"),
        ("clip.mp4 --masks mask.npy --prompt mist --fusion-step 2", "--fusion-step must be from 0 to 1"),
        ("clip.mp4 --masks mask.npy --prompt mist --controlnet x", "needs --detector or --condition-video"),
        ("clip.mp4 --masks mask.npy --prompt mist --detector canny", "need --controlnet or --t2i-adapter"),
        ("clip.mp4 --masks mask.npy --prompt mist --controlnet x --detector pose", "--detector must be one of canny"),
        (
            "clip.mp4 --masks mask.npy --prompt mist --controlnet x --condition-video short_clip",
            "--condition-video must have at least 4 frames, as the clip, got 3",
        ),
        ("clip.mp4 --prompt mist --segmenter x", "--segmenter needs --points or --boxes"),
        ("clip.mp4 --prompt mist --points 1,2", "--points and --boxes are for --segmenter"),
        ("clip.mp4 --prompt mist --segmenter x --points 1,2,3", "--points must be numbers such as x,y"),
        ("clip.mp4 --prompt mist --segmenter x --boxes 0,0,90,9", "--boxes must be inside of the clip, 64 x 64"),
        ("clip.mp4 --masks mask.npy --prompt mist --strength 2", "--strength must be from 0.01 to 1"),
    ],
)
def test_wrong_input_is_one_line(files, words, message, monkeypatch):
    np.save("short.npy", MASK[:3])
    np.save("small.npy", MASK[:, :32])
    write_video("short_clip", CLIP[:3], fps=6)
    monkeypatch.setattr(
        "landscape_video.cli.consistent.load_pipeline", lambda models: pytest.fail("a model was loaded")
    )
    result = CliRunner().invoke(app, ["consistent", *words.split()])
    assert result.exit_code == 2
    assert message in result.stderr and len(result.stderr.strip().splitlines()) == 1
    assert not list(files.glob("consistent*"))
