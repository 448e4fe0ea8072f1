"""The check of all clips before training: every bad file is named and reported, good ones are decoded once."""

import json
import os
from pathlib import Path

import pytest
import torch

from landscape_video.training.data.video_dataset import REPORT, VideoDataset
from video_files import half_of, make_video, make_video_folder, moving_frames


def report_of(path: Path) -> dict[str, str | None]:
    return {row["clip"]: row["refused"] for row in map(json.loads, path.read_text().splitlines())}


def folder_of(directory: Path, **video) -> Path:
    make_video(directory / "clip.mkv", **video)
    (directory / "metadata.jsonl").write_text('{"file_name": "clip.mkv", "text": "a"}')
    return directory


def test_every_unusable_video_is_named_and_reported(tmp_path, caplog):
    folder = make_video_folder(tmp_path / "videos", [12, 12, 12, 3])
    half_of(folder / "1.mp4").replace(folder / "1.mp4")
    (folder / "2.mp4").unlink()
    report = tmp_path / "out" / REPORT
    with pytest.raises(ValueError, match="(?s)3 of 4 clips.*--skip_bad") as error:
        VideoDataset(folder, num_frames=3, stride=4, report=report)
    assert all(f"{number}.mp4" in str(error.value) for number in (1, 2, 3)) and "0.mp4" not in str(error.value)
    rejected = report_of(report)
    assert rejected[str(folder / "0.mp4")] is None and rejected[str(folder / "2.mp4")] == "no such file."
    assert rejected[str(folder / "3.mp4")] == "3 frames, but 3 frames at a stride of 4 take at least 9."
    assert rejected[str(folder / "1.mp4")] and len(rejected) == 4

    videos = VideoDataset(folder, num_frames=3, stride=4, skip_bad=True, report=report)
    assert videos.captions == [["clip 0", "片0"]] and videos.lengths == [12]
    assert "3 of 4 clips cannot be used" in caplog.text


def test_half_a_matroska_file_is_refused_though_it_declares_no_count(tmp_path):
    folder = folder_of(tmp_path, frames=moving_frames(100, 96, 128), fps=10)
    half_of(folder / "clip.mkv").replace(folder / "clip.mkv")
    with pytest.raises(ValueError, match="clip.mkv: (is cut short|cannot be decoded)"):
        VideoDataset(folder)


def test_an_unchanged_file_is_decoded_once(tmp_path, monkeypatch):
    folder = make_video_folder(tmp_path / "videos", [12, 9])
    report = tmp_path / REPORT
    first = VideoDataset(folder, report=report)
    decoded = []
    monkeypatch.setattr(
        "landscape_video.training.data.video_dataset._decode",
        lambda source, _: decoded.append(source.path.name) or "counted",
    )
    again = VideoDataset(folder, report=report)
    assert (
        decoded == []
        and again.lengths == first.lengths
        and torch.equal(again.read(1, 1, 3, 2), first.read(1, 1, 3, 2))
    )
    os.utime(folder / "1.mp4", ns=(1, 1))
    with pytest.raises(ValueError, match="1.mp4: counted"):
        VideoDataset(folder, report=report)
    assert decoded == ["1.mp4"]


def test_a_damaged_report_is_not_believed(tmp_path):
    folder = make_video_folder(tmp_path / "videos", [12, 9])
    report = tmp_path / REPORT
    VideoDataset(folder, report=report)
    whole = report.read_text()
    report.write_text(whole[: len(whole) // 2] + "\n[]\nnull\n")
    assert VideoDataset(folder, report=report).lengths == [12, 9] and report.read_text() == whole


def test_only_twenty_rejected_clips_are_shown(tmp_path):
    lines = [json.dumps({"file_name": f"{number}.mp4", "text": "a"}) for number in range(30)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(lines))
    with pytest.raises(ValueError, match="30 of 30 clips") as error:
        VideoDataset(tmp_path)
    assert str(error.value).count("no such file") == 20 and "and 10 more" in str(error.value)
