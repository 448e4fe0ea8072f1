"""The bundled shanshui-tiny: its size, the weights that its card names, and its two commands."""

import re

import numpy as np
import pytest
from typer.testing import CliRunner

from pipeline_landscape_video import SHANSHUI_TINY
from pipeline_landscape_video.video_io import read_video
from retention_models import painting


CARD = (SHANSHUI_TINY / "README.md").read_text(encoding="utf-8")


def test_sizes():
    sizes = {file.parent.name: file.stat().st_size for file in SHANSHUI_TINY.rglob("*.safetensors")}
    assert sum(sizes.values()) <= 60e6
    assert sizes["decoder"] <= 6e6
    assert sum(sizes.values()) - sizes["image_retention"] - sizes["decoder"] <= 40e6


def test_the_card_is_about_these_weights():
    from shanshui.stages.export_family import weights_table

    files = {file.parent.name: file for file in SHANSHUI_TINY.rglob("*.safetensors")}
    rows = dict(re.findall(r"^\| (\w+) \| ([\d.]+ M \| `[0-9a-f]{16}`) \|$", CARD, re.MULTILINE))
    assert rows.keys() == files.keys()
    for part, row in rows.items():
        assert weights_table({part: files[part]}).splitlines()[-1] == f"| {part} | {row} |"


@pytest.mark.parametrize("command", ["generate", "animate"])
def test_its_commands(command, tmp_path, monkeypatch):
    from landscape_video.cli.main import app

    monkeypatch.chdir(tmp_path)
    painting(1, (96, 64)).save("painting.png")
    image = ["painting.png"] if command == "animate" else []
    options = "--num-frames 8 --steps 3 --seed 1 --device cpu --no-interpolate --output clip.mp4".split()
    result = CliRunner().invoke(app, [command, *image, "a boat sails left, the camera pans right", *options])
    assert result.exit_code == 0, result.stderr
    frames = np.stack(read_video("clip.mp4").frames)
    assert frames.shape == (8, 256, 256, 3)
    assert frames[0].std() > 5 and np.abs(frames[-1].astype(int) - frames[0]).mean() > 1
