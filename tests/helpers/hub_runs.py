"""Run the command in this process and scripts in fresh ones, and digest models for comparison."""

import subprocess
import sys
from pathlib import Path

import torch
from typer.testing import CliRunner

from landscape_video.cli.main import app


def run(*arguments: object):
    return CliRunner().invoke(app, list(map(str, arguments)))


def frames_of(pipe) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    arguments = {"num_frames": 4, "num_inference_steps": 2, "output_type": "pt", "flow_estimator": "dis"}
    return pipe("misty mountains", generator=generator, **arguments).frames


def run_elsewhere(server, folder: Path, script: str, user: str | None = None, **extra: str) -> None:
    """Run Python lines in a fresh process with empty caches, which finds this package only if it is installed."""
    environment = server.environment(folder / "home", user) | {"OMP_NUM_THREADS": str(torch.get_num_threads())} | extra
    command = [sys.executable, "-c", script]
    finished = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
