"""Datasets on the Hub: downloaded once, read from the copy, and one line if one is not available."""

import os
import subprocess
import sys
from pathlib import Path

from hub_stand_in import COMMIT, serve_dataset
from landscape_video.training.data.video_dataset import VideoDataset
from video_files import make_video_folder


# In a process of its own: the Hub's address is read when huggingface_hub is imported.
SCRIPT = """
import sys
from landscape_video.training.data.batches import download_dataset
for name in sys.argv[1:]:
    try:
        print(*download_dataset(*name.split("@")))
    except ValueError as error:
        print(error)
"""


def download(address: str, cache: Path, *names: str, offline: bool = False) -> list[str]:
    environment = {"HF_ENDPOINT": address, "HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": str(int(offline))}
    environment = os.environ | environment | {"HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", SCRIPT, *names]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_a_dataset_is_fetched_and_read_through_the_links_of_the_cache(tmp_path):
    source = make_video_folder(tmp_path / "source" / "train", [8, 9]).parent
    with serve_dataset(source) as address:
        (line,) = download(address, tmp_path / "cache", "org/clips")
    assert download(address, tmp_path / "cache", "org/clips", offline=True) == [line]
    folder, root = map(Path, line.split())
    assert folder.name == COMMIT and (folder / "train" / "0.mp4").is_symlink()
    videos = VideoDataset(folder, resolution=32, root=root)
    assert videos.captions == [["clip 0", "片0"], ["clip 1", "片1"]] and videos.lengths == [8, 9]


def test_an_unavailable_dataset_is_one_line(tmp_path):
    names = ["org/none", "org/gated", "org/clips@v9", "org/cli ps"]
    with serve_dataset(tmp_path) as address:
        lines = download(address, tmp_path / "cache", *names)
        lines += download(address, tmp_path / "cache", "org/clips", offline=True)
    reasons = [
        "it does not exist, or it is private",
        "its owner grants access on request",
        "Revision Not Found",
        "Repo id must",
        "not on this machine, and the Hub cannot be reached",
    ]
    for name, line, reason in zip([*names, "org/clips"], lines, reasons, strict=True):
        assert line.startswith(f"Dataset {name.split('@')[0]!r}: ") and reason in line
