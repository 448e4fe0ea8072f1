"""Run the four training commands of the README: from a folder of videos to a published model that loads by name."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from hub_runs import run_elsewhere
from pipeline_landscape_video import SHANSHUI_TINY
from shanshui.renderer.dataset import write_video_folder


ROOT = Path(__file__).parents[2]
TO_SHORTEN = ("--max_train_steps 1000", "--max_train_steps 2")

LOADING = """
import torch
from diffusers import DiffusionPipeline

pipe = DiffusionPipeline.from_pretrained("me/my-mountains", custom_pipeline="me/my-mountains", trust_remote_code=True)
pipe.set_progress_bar_config(disable=True)
frames = pipe(
    "mist over mountains", num_frames=4, num_inference_steps=1, output_type="pt", flow_estimator="dis"
).frames
assert frames.shape == (1, 7, 3, 128, 128), frames.shape
assert torch.isfinite(frames).all() and frames.std() > 0.01
"""


def commands() -> list[str]:
    """Return the commands of the README's training section, one per line."""
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("## Train and publish")[1]
    return re.search(r"```bash\n(.*?)```", section, re.DOTALL)[1].strip().splitlines()


@pytest.fixture
def raw_videos(tmp_path) -> Path:
    """Render three clips of three seconds, and write a caption beside each."""
    videos = tmp_path / "videos"
    write_video_folder(videos, 3, frames=24, fps=8, height=256, width=256, fine_motifs=False, workers=0)
    (videos / "metadata.jsonl").unlink()
    for index, video in enumerate(sorted(videos.glob("*.mp4"))):
        video.with_suffix(".txt").write_text(f"mist over mountains, view {index}")
    return videos


def test_from_a_folder_of_videos_to_a_published_model(hub, raw_videos, tmp_path):
    install, *rest = commands()
    assert install == 'pip install ".[train]"' and len(rest) == 3
    (tmp_path / "training").symlink_to(ROOT / "training")
    programs = str(Path(sys.executable).parent)
    environment = hub.environment(tmp_path / "home") | {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for command in rest:
        command = command.replace(*TO_SHORTEN)
        finished = subprocess.run(shlex.split(command), cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert finished.returncode == 0, f"{command}\n{finished.stdout}\n{finished.stderr}"
    files = hub.repos["me/my-mountains"].files()
    assert {"model_index.json", "pipeline.py", "README.md", "motion_adapter/config.json"} <= files.keys()
    card = files["README.md"].decode()
    for row in ("| num frames range | 8, 16 |", "| step | 2 |", "| clips | "):
        assert row in card, row
    unet = "unet/diffusion_pytorch_model.safetensors"  # in half precision, and stays that
    assert len(files[unet]) == pytest.approx((SHANSHUI_TINY / unet).stat().st_size, rel=0.01)
    run_elsewhere(hub, tmp_path, LOADING)


def test_the_shortened_flag_is_in_the_command():
    assert sum(TO_SHORTEN[0] in command for command in commands()) == 1
