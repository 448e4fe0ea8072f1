"""The command line on files that people have: all frames are there, or one line names the file and the reason."""

from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from landscape_video.cli.main import app
from media_files import RATE, encode, moving_texture, woven
from pipeline_landscape_video.video_io import probe_video, read_video, write_video
from video_files import make_video


FRAMES = moving_texture(8, speed=3)


def joined(folder: Path) -> Path:
    path = encode(folder / "joined.ts", FRAMES, "mpeg2video", options={"b": "4M", "bf": "0"})
    path.write_bytes(path.read_bytes() * 2)
    return path


def late(folder: Path) -> Path:
    return encode(folder / "late.mkv", FRAMES, start=10)


def interlaced(folder: Path) -> Path:
    options = {"crf": "6", "flags": "+ilme+ildct", "x264-params": "tff=1"}
    return encode(folder / "fields.mp4", woven(moving_texture(16, speed=3)), options=options)


def animation(folder: Path) -> Path:
    write_video(folder / "ours.webp", FRAMES, RATE)
    return folder / "ours.webp"


def images(folder: Path) -> Path:
    write_video(folder / "ours", FRAMES, RATE)
    return folder / "ours"


@pytest.mark.parametrize(
    ("make", "num_frames", "start"),
    [(joined, 16, 0), (late, 8, 10), (interlaced, 8, 0), (animation, 8, 0), (images, 8, 0)],
)
def test_every_source_is_interpolated_at_its_own_times(tmp_path, make, num_frames, start):
    source = make(tmp_path)
    result = CliRunner().invoke(app, ["interpolate", str(source), str(tmp_path / "out.mp4"), "--flow", "dis"])
    assert result.exit_code == 0, result.stderr
    clip = read_video(tmp_path / "out.mp4")
    assert len(clip.frames) == 2 * num_frames - 1
    np.testing.assert_allclose(clip.timestamps, start + np.arange(len(clip.frames)) / RATE / 2, atol=2e-3)


@pytest.mark.parametrize("audio", ["aac", "mp2"])  # copied, and encoded again
def test_the_sound_of_joined_files_continues_with_the_video(tmp_path, audio):
    path = make_video(tmp_path / "joined.ts", list(FRAMES) * 3, fps=RATE, audio=audio)
    path.write_bytes(path.read_bytes() * 2)
    result = CliRunner().invoke(app, ["interpolate", str(path), str(tmp_path / "out.mp4"), "--flow", "dis"])
    assert result.exit_code == 0, result.stderr
    with av.open(str(tmp_path / "out.mp4")) as container:
        times = [float(frame.pts * frame.time_base) for frame in container.decode(audio=0)]
    steps = np.diff(times)
    assert times[-1] == pytest.approx(2 * 24 / RATE, abs=0.1) and (steps > 0).all() and steps.max() < 0.08


def test_the_size_that_is_printed_is_the_size_that_was_written(tmp_path):
    write_video(tmp_path / "odd.gif", moving_texture(3, 95, 127), 10)
    result = CliRunner().invoke(app, ["interpolate", *map(str, (tmp_path / "odd.gif", tmp_path / "out.mp4"))])
    info = probe_video(tmp_path / "out.mp4")
    assert f"5 frames of {info.width} x {info.height}" in result.stdout and (info.width, info.height) == (128, 96)


def test_a_file_whose_frames_change_size_is_named_and_nothing_is_written(tmp_path):
    encode(tmp_path / "a.ts", FRAMES, options={"bf": "0"})
    encode(tmp_path / "b.ts", moving_texture(8, 96, 160), options={"bf": "0"}, start=1)
    (tmp_path / "change.ts").write_bytes((tmp_path / "a.ts").read_bytes() + (tmp_path / "b.ts").read_bytes())
    result = CliRunner().invoke(app, ["interpolate", str(tmp_path / "change.ts"), str(tmp_path / "out.mp4")])
    assert result.exit_code == 2 and "change.ts: frames change from 128 x 96 to 160 x 96" in result.stderr
    assert not (tmp_path / "out.mp4").exists()
