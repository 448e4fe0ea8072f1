"""`landscape-video evaluate`: a run from the command line, and wrong input in one line."""

import re
from pathlib import Path
from typing import get_args

import pytest
from typer.testing import CliRunner

from known_motion import moving_noise
from landscape_video.cli.evaluate import I3DPreset
from landscape_video.cli.main import app
from landscape_video.evaluation.metrics.video_features import I3D_PRESETS
from landscape_video.evaluation.results import read_results
from landscape_video.evaluation.systems.text_to_video import FORMS
from pipeline_landscape_video.video_io import write_video


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Run the command in a folder with clips/ of six frames and prompts.txt."""
    monkeypatch.chdir(tmp_path)
    Path("clips").mkdir()
    for speed in (1, 2):
        write_video(Path("clips") / f"{speed}.mp4", moving_noise(speed)[:, :64, :64], 8, {"prompt": "mist"})
    Path("prompts.txt").write_text("misty mountains\n", encoding="utf-8")
    return lambda *arguments: CliRunner().invoke(app, ["evaluate", "--device", "cpu", *map(str, arguments)])


def test_a_model_a_baseline_and_a_folder(evaluate, models):
    arguments = ("--prompts", "prompts.txt", "--model", models / "still", "--motion-adapter", models / "adapter")
    baseline = f"animatediff={models / 'still'},adapter={models / 'adapter'},steps=1,name=stock"
    settings = ("--num-frames", 4, "--steps", 1, "--output", "out", "--reference", "clips")
    result = evaluate(*arguments, "--baseline", baseline, "--videos", "given=clips", *settings)
    assert result.exit_code == 0, result.stderr
    names = ["adapter", "stock", "given", "still", "reference"]
    assert [system.name for system in read_results("out").systems] == names
    assert "| adapter (1) | " in result.stdout and "FVD4[shanshui-clip]" in result.stdout
    assert "out/results.json" in result.stderr


def test_the_camera_of_clips_with_labels(evaluate):
    rows = [
        f'{{"file_name": "{number}.mp4", "text": "mist", "camera": "{way}"}}'
        for number, way in ((1, "left"), (2, "away"))
    ]
    Path("clips/metadata.jsonl").write_text("\n".join(rows))
    result = evaluate("--videos", "clips", "--num-frames", 4, "--metrics", "camera,dynamic-degree,motif")
    assert result.exit_code == 0, result.stderr
    clips, still = read_results("evaluation").systems
    labels = ["dynamic degree", "camera accuracy", "camera pan", "camera zoom"]
    assert list(clips.metrics) == labels == list(still.metrics)
    assert clips.metrics["camera accuracy"].value == 0.5 and still.metrics["camera accuracy"].value == 0
    pans = [clip.metrics["camera pan"] for clip in clips.clips]
    assert pans == pytest.approx([100 / 64, 200 / 64], rel=0.15)  # 1 and 2 pixels of 64 a frame
    assert "camera accuracy ↑ | camera pan, % of the width a frame |" in result.stdout
    assert "motif accuracy (needs --scene-classifier, labels of all motifs that" in result.stdout


def test_only_a_folder(evaluate):
    result = evaluate("--videos", "clips", "--num-frames", 4)
    assert result.exit_code == 0, result.stderr
    assert [system.name for system in read_results("evaluation").systems] == ["clips", "still"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--reference", "clips"], "nothing to evaluate: give a folder"),
        (["--videos", "none"], "none: no such folder"),
        (["--videos", "a=clips", "--videos", "a=clips"], "--videos must have different names, got 'a' twice"),
        (["--videos", "clips"], "1.mp4: has 6 frames, but 16 at stride 1 need 16"),
        (["--videos", "clips", "--num-frames", "1"], "--num-frames"),
        (["--model", "shanshui-tiny"], "a model needs prompts"),
        (["--prompts", "none.txt"], "--prompts none.txt: no such file"),
        (["--prompts", "prompts.txt", "--motion-adapter", "x"], "--motion-adapter and --lora need a --model"),
        (["--prompts", "prompts.txt", "--model", "./none"], "./none: no such file or folder"),
        (["--prompts", "prompts.txt", "--baseline", "zeroscope=x"], "got 'zeroscope'"),
        (["--prompts", "prompts.txt", "--height", "100"], "--height must be a multiple of 8, got 100."),
        (["--videos", "clips", "--num-frames", "4", "--clip", "./none"], "./none: no such file or folder"),
        (
            ["--videos", "clips", "--num-frames", "4", "--i3d", "prompts.txt"],
            "prompts.txt: must end in .safeten",
        ),
        (["--videos", "clips", "--num-frames", "4", "--i3d", "none.pt"], "none.pt: no such file"),
        (["--videos", "clips", "--num-frames", "4", "--video-classifier", "clips"], "clips: not a video classifier"),
        (["--videos", "clips", "--metrics", "charm"], "--metrics must be names of metrics, got 'charm'. Choose from"),
        (["--videos", "clips", "--num-frames", "4", "--scene-classifier", "x.st"], "x.st: no such file"),
        (["--videos", "clips", "--seed", "-1"], "--seed must be from 0"),
        (["--videos", "clips", "--device", "abacus"], "--device must be available on this machine, got abacus"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_line_and_writes_nothing(evaluate, arguments, message):
    before = sorted(Path().rglob("*"))
    result = evaluate(*arguments)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("landscape-video: ")]
    assert len(errors) == 1 and message in errors[0], result.stderr
    assert result.stdout == "" and sorted(Path().rglob("*")) == before


def test_the_help_names_every_form_and_preset():
    text = CliRunner().invoke(app, ["evaluate", "--help"], env={"COLUMNS": "200"}).stdout
    assert all(form in text for form in FORMS)
    assert list(get_args(I3DPreset)) == list(I3D_PRESETS)
    for flag in "--videos --reference --baseline --prompts --repeats --clip --clip-sim --i3d --images".split():
        assert re.search(rf"{flag}(?![\w-])", text), flag
