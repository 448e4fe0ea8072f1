"""The folder of a Space holds all that the page needs, and is published with the user's adapter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from landscape_video.cli.main import app
from landscape_video.web.space_folder import TEMPLATES, requirements, write_space


ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def space(tmp_path_factory, models) -> Path:
    return write_space(tmp_path_factory.mktemp("space") / "page", models / "adapter")


def test_the_folder_holds_code_weights_and_front_matter(space):
    for name in ("app.py", "requirements.txt", "adapter/config.json", "landscape_video/web/files/page.js"):
        assert (space / name).is_file(), name
    assert (space / "pipeline_landscape_video/shanshui_tiny/unet/diffusion_pytorch_model.safetensors").is_file()
    assert not list(space.rglob("__pycache__"))
    front = yaml.safe_load((space / "README.md").read_text(encoding="utf-8").split("---")[1])
    assert front["sdk"] == "gradio" and front["app_file"] == "app.py" and front["python_version"] == "3.12"
    assert len(front["short_description"]) <= 60  # the Hub refuses longer ones


def test_requirements_are_ours_without_extras():
    lines = requirements().splitlines()
    names = {line.split(">")[0].lower() for line in lines}
    assert {"torch", "diffusers", "pillow"} <= names and not {"pytest", "gradio[mcp]"} & names


def test_the_code_of_the_folder_is_what_runs(space):
    code = "import landscape_video.web.space_folder as s, pipeline_landscape_video as p; print(s.__file__, p.__file__)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    found = subprocess.run(command, cwd=space, env=environment, capture_output=True, text=True, check=True)
    assert all(path.startswith(str(space)) for path in found.stdout.split())


def test_the_example_is_what_the_command_writes(space):
    for file in TEMPLATES.iterdir():
        if file.is_file():
            assert (ROOT / "examples/space" / file.name).read_bytes() == file.read_bytes()
            assert (space / file.name).read_bytes() == file.read_bytes()


def test_the_command_says_what_it_wrote_and_keeps_what_is_there(tmp_path, models):
    result = CliRunner().invoke(app, ["space", "--to", str(tmp_path / "page")])
    assert result.exit_code == 0 and "app.py, requirements.txt, README.md" in result.stdout
    result = CliRunner().invoke(app, ["space", "--to", str(tmp_path / "page")])
    assert result.exit_code == 2 and "exists already" in result.stderr
    result = CliRunner().invoke(app, ["space", "--to", str(tmp_path / "x"), "--motion-adapter", str(tmp_path)])
    assert result.exit_code == 2 and "no config.json" in result.stderr
    assert not (tmp_path / "x").exists()


def test_a_space_is_pushed_with_the_adapter_inside(hub, models):
    arguments = ["push", str(models / "adapter"), "me/page", "--license", "apache-2.0", "--space"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "huggingface.co/spaces/me/page" in result.stdout
    pushed = hub.repos["me/page"].files()
    assert {"app.py", "adapter/config.json", "requirements.txt"} <= set(pushed)
