"""Training videos in each layout: captions, frames and their times."""

import csv
import io
import json
import shutil
import tarfile
import tracemalloc
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from landscape_video.training.data.clip_sampling import ClipRequest
from landscape_video.training.data.video_dataset import VideoDataset
from pipeline_landscape_video.video_io import write_video
from video_files import gray_clip, make_video, make_video_folder, moving_frames


def request(clip: int = 0, start: int = 0, num_frames: int = 4, stride: int = 1) -> ClipRequest:
    return ClipRequest(clip, start, stride, num_frames, text="", timestep=0, noise_seed=0)


def frame_numbers(clip: torch.Tensor) -> list[int]:
    """Which frames of a `gray_clip` those of a clip are."""
    return ((clip[:, :, 8:24, 2:30].mean(dim=(1, 2, 3)) + 1) * 127.5 / 8).round().int().tolist()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return make_video_folder(tmp_path_factory.mktemp("videos"), [20, 9])


# Layouts


def test_video_folder_reads_captions_and_lengths(folder):
    videos = VideoDataset(folder, resolution=32)
    assert videos.captions == [["clip 0", "片0"], ["clip 1", "片1"]] and videos.lengths == [20, 9]
    assert videos.name(1) == str(folder / "1.mp4")


def test_metadata_as_csv_in_the_train_folder_with_another_caption_column(folder, tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    shutil.copy(folder / "1.mp4", tmp_path / "train" / "a" / "1.mp4")
    rows = 'file_name,prompt\r\na/1.mp4,"mist,\r\nrising"\r\n'
    (tmp_path / "train" / "metadata.csv").write_bytes(b"\xef\xbb\xbf" + rows.encode())
    videos = VideoDataset(tmp_path, caption_column="prompt")
    assert videos.captions == [["mist,\r\nrising"]] and videos.lengths == [9]
    with pytest.raises(ValueError, match="line 3: `text` is missing"):
        VideoDataset(tmp_path)


def write_webvid(path: Path, rows: list[dict]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["videoid", "contentUrl", "duration", "page_dir", "name"])
        writer.writeheader()
        writer.writerows(rows)
    return path


def test_webvids_columns_and_folders(folder, tmp_path):
    (tmp_path / "videos" / "000001_000050").mkdir(parents=True)
    shutil.copy(folder / "0.mp4", tmp_path / "videos" / "000001_000050" / "11.mp4")  # 2.5 s
    shutil.copy(folder / "1.mp4", tmp_path / "videos" / "12.mp4")  # 1.1 s
    rows = [
        {"videoid": 11, "duration": "PT00H00M02S", "page_dir": "000001_000050", "name": "Mist, rising"},
        {"videoid": 12, "duration": "", "page_dir": "000001_000050", "name": "A boat"},
    ]
    table = write_webvid(tmp_path / "results.csv", rows)
    for location in (table, tmp_path):
        videos = VideoDataset(location)
        assert videos.captions == [["Mist, rising"], ["A boat"]] and videos.lengths == [20, 9]
    rows[1]["duration"] = "PT00H01M07S"
    rows[0]["duration"] = "2 s"
    rows += [{"videoid": "../11", "name": "outside"}, {"videoid": 13, "name": "missing"}]
    with pytest.raises(ValueError, match="4 of 4 clips") as error:
        VideoDataset(write_webvid(table, rows))
    text = str(error.value)
    assert "line 2: `duration` must be like PT00H00M15S, got '2 s'" in text
    assert "12.mp4: lasts 1.1 s, but its row declares 67.0 s" in text
    assert "'../11.mp4' is outside" in text and "13.mp4: no such file" in text


def add(archive: tarfile.TarFile, name: str, data: bytes, **attributes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for key, value in attributes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def make_shards(directory: Path, folder: Path) -> Path:
    """Two shards of three samples, with captions of both kinds."""
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(directory / "clips-0.tar", "w") as archive:
        add(archive, "000.mp4", (folder / "0.mp4").read_bytes())
        add(archive, "000.txt", b"\xef\xbb\xbfmist rising\n")
        add(archive, "001.json", json.dumps({"text": "a boat", "texts": ["船"]}).encode())
        add(archive, "001.mp4", (folder / "1.mp4").read_bytes())
    with tarfile.open(directory / "clips-1.tar", "w") as archive:
        add(archive, "more/", b"", type=tarfile.DIRTYPE)
        add(archive, "more/000.MP4", (folder / "1.mp4").read_bytes())
        add(archive, "more/000.txt", b"rain")
        add(archive, "more/000.jpg", b"a picture that nobody asks for")
    return directory


def test_webdataset_shards_are_read_in_place(folder, tmp_path):
    videos = VideoDataset(make_shards(tmp_path, folder), resolution=32)
    assert videos.captions == [["mist rising"], ["a boat", "船"], ["rain"]] and videos.lengths == [20, 9, 9]
    assert videos.name(2) == f"{tmp_path / 'clips-1.tar'}: more/000.MP4"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clips-0.tar", "clips-1.tar"]
    alone = VideoDataset(folder, resolution=32)
    assert torch.equal(videos.read(0, 3, 4, 5), alone.read(0, 3, 4, 5))
    assert videos.sources[1].open().read() == (folder / "1.mp4").read_bytes()


def test_folders_without_a_dataset_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="neither a metadata.jsonl or metadata.csv .*nor a latent cache"):
        VideoDataset(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        VideoDataset(tmp_path / "nowhere")
    (tmp_path / "metadata.jsonl").touch()
    (tmp_path / "metadata.csv").touch()
    with pytest.raises(ValueError, match="holds both"):
        VideoDataset(tmp_path)
    (tmp_path / "metadata.jsonl").unlink()
    with pytest.raises(ValueError, match="has no usable clip"):
        VideoDataset(tmp_path)


# Frames


def test_frames_come_at_the_asked_stride_in_the_asked_size(folder):
    item = VideoDataset(folder, resolution=32)[request(start=3, num_frames=4, stride=5)]
    clip = item["pixel_values"]
    assert clip.shape == (4, 3, 32, 32) and -1 <= clip.min() and clip.max() <= 1
    expected = torch.tensor([3, 8, 13, 18]) * 8 / 127.5 - 1
    # The frame is wider than high: resized to 32 in height, cropped in the middle, the dark sides are gone.
    torch.testing.assert_close(clip[:, :, 8:24, 2:30].mean(dim=(1, 2, 3)), expected, atol=0.03, rtol=0)


def test_a_long_clip_is_not_held_at_the_size_of_its_file(tmp_path):
    videos = VideoDataset(folder_of(tmp_path, frames=moving_frames(60, 240, 320)), resolution=32)
    tracemalloc.start()
    try:
        clip = videos.read(0, 0, 60, 1)
        _, peak = tracemalloc.get_traced_memory()  # decoded frames are arrays of NumPy, which are counted
    finally:
        tracemalloc.stop()
    assert clip.shape == (60, 3, 32, 32) and peak < 12 * 240 * 320 * 3


def folder_of(directory: Path, **video) -> Path:
    make_video(directory / "clip.mkv", **video)
    (directory / "metadata.jsonl").write_text('{"file_name": "clip.mkv", "text": "a"}')
    return directory


def test_a_varying_frame_rate_keeps_its_speed(tmp_path):
    # 16 frames at 16 a second, then 8 at 4 a second: 3 s, 24 frames, so that positions are 1/8 s apart.
    timestamps = [Fraction(i, 16) for i in range(16)] + [1 + Fraction(i, 4) for i in range(8)]
    videos = VideoDataset(folder_of(tmp_path, frames=gray_clip(24), timestamps=timestamps), resolution=32)
    assert videos.lengths == [24]
    times = [position * 2.75 / 23 for position in range(24)]  # the last frame begins at 2.75 s
    # The frame that is shown at each of them; a quarter of a position is the tolerance.
    shown = [max(i for i, at in enumerate(timestamps) if at <= time + 0.25 * 2.75 / 23) for time in times]
    assert frame_numbers(videos.read(0, 0, 24, 1)) == shown and shown != list(range(24))
    assert frame_numbers(videos.read(0, 1, 4, 6)) == [shown[position] for position in (1, 7, 13, 19)]


@pytest.mark.parametrize("fps", [24, 25, 60])
def test_rounded_timestamps_lose_and_repeat_no_frame(tmp_path, fps):
    # Matroska rounds to milliseconds.
    videos = VideoDataset(folder_of(tmp_path, frames=gray_clip(30), fps=fps), resolution=32)
    assert frame_numbers(videos.read(0, 0, 30, 1)) == list(range(30))


def test_a_clip_that_became_shorter_is_an_error(tmp_path):
    folder = make_video_folder(tmp_path, [20])
    videos = VideoDataset(folder)
    write_video(folder / "0.mp4", gray_clip(9), fps=8)
    with pytest.raises(ValueError, match="0.mp4: has become shorter since it was checked"):
        videos.read(0, 0, 10, 2)
