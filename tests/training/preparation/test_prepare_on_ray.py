"""The same preparation by Ray Data: two workers, one of them killed on the way, and the same manifests."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np

from pipeline_landscape_video.video_io import write_video
from prepare_dataset import run
from processes import wait_for, workers_of
from video_files import half_of, painted_pan


SCRIPT = Path(__file__).parents[3] / "training" / "prepare_dataset.py"


def test_two_workers_of_ray_one_killed_make_the_same_manifests(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(5):
        scenes = [painted_pan(2 * number + place, 26, speed=1, blot=3) for place in (0, 1)]
        write_video(raw / f"{number}.mp4", np.concatenate(scenes), fps=10)
        (raw / f"{number}.txt").write_text(f"ink {number}")
    write_video(raw / "copy of 1.mp4", painted_pan(3, 26, speed=1, blot=3) // 4 * 4, fps=10)
    (raw / "copy of 1.txt").write_text("ink")
    half_of(raw / "0.mp4")
    alone, together = tmp_path / "alone", tmp_path / "together"
    flags = [str(raw), "--min_size", "90", "--workers"]
    assert run([*flags, "1", "--output_dir", str(alone)]) == 0

    command = [sys.executable, str(SCRIPT), *flags, "2", "--ray", "local", "--output_dir", str(together)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        # A worker bears this title while it works on a source.
        wait_for(lambda: workers_of(process, "ray::Map(prepare)"), process)
        workers_of(process, "ray::Map(prepare)")[0].send_signal(signal.SIGKILL)
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    for name in ("metadata.jsonl", "refused.jsonl", "report.html", "README.md"):
        assert (together / name).read_text(encoding="utf-8") == (alone / name).read_text(encoding="utf-8")
    assert len((together / "metadata.jsonl").read_text().splitlines()) == 10
    assert "duplicate of 1.mp4" in (together / "refused.jsonl").read_text()


def test_no_cluster_at_the_address_is_one_line(tmp_path):
    (tmp_path / "raw").mkdir()
    write_video(tmp_path / "raw" / "a.mp4", painted_pan(0, 26, blot=3), fps=10)
    command = [sys.executable, str(SCRIPT), str(tmp_path / "raw"), "--output_dir", str(tmp_path / "clips")]
    result = subprocess.run([*command, "--ray", "auto"], capture_output=True, text=True, timeout=300)
    assert result.returncode == 1 and "--ray auto: " in result.stderr and "Traceback" not in result.stderr
    assert not (tmp_path / "clips").exists()
