"""Run the example scripts, with fewer frames and steps."""

import runpy
import shutil
from pathlib import Path

import pytest

from pipeline_landscape_video.video_io import read_video


EXAMPLES = Path(__file__).parents[2] / "examples"
SHORTENED = {"num_frames=16": "num_frames=4", "num_inference_steps=25": "num_inference_steps=2"}


def run_example(name: str, folder: Path, replacements: dict[str, str]) -> Path:
    """Run a copy of an example with some of its text replaced, and return the clip that it writes."""
    text = (EXAMPLES / name).read_text(encoding="utf-8")
    for old, new in replacements.items():
        assert text.count(old) == 1, f"{name} must hold {old} once."
        text = text.replace(old, new)
    (folder / name).write_text(text, encoding="utf-8")
    runpy.run_path(str(folder / name), run_name="__main__")
    return (folder / name).with_suffix(".mp4")


@pytest.fixture(autouse=True)
def work_in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("name", ["text_to_video.py", "image_to_video.py"])
def test_the_example_generates_a_clip(name, tmp_path):
    shutil.copy(EXAMPLES / "painting.png", tmp_path)
    clip = read_video(run_example(name, tmp_path, SHORTENED))
    assert clip.frames.shape == (7, 128, 128, 3)
    assert clip.frames.std() > 5


def test_the_example_doubles_the_frame_rate(tmp_path):
    shutil.copy(EXAMPLES / "mist.gif", tmp_path)
    source = read_video(EXAMPLES / "mist.gif")
    clip = read_video(run_example("interpolate_video.py", tmp_path, {}))
    assert len(clip.frames) == 2 * len(source.frames) - 1
    assert clip.fps == pytest.approx(2 * source.fps)


@pytest.mark.parametrize("name", ["text_to_video.py", "image_to_video.py", "interpolate_video.py"])
def test_the_example_is_short(name):
    # Imports, blank lines and the docstring do not count.
    lines = (EXAMPLES / name).read_text(encoding="utf-8").splitlines()[1:]
    assert len([line for line in lines if line and not line.startswith(("import ", "from "))]) <= 10
