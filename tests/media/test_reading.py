"""Files that people have, read through the one reader: all frames, rising times, no combs, or the exact reason.

The clips are made here with PyAV. Each row of faults that public bug reports describe has at least three inputs.
"""

import io
import json
import logging
from fractions import Fraction
from pathlib import Path

import av
import av.logging
import numpy as np
import pytest
from PIL import Image

from landscape_video.evaluation.systems.clips import list_clips
from landscape_video.training.preparation.dataset import find_sources
from media_files import RATE, encode, moving_texture, woven
from pipeline_landscape_video.video_io import (
    VideoError,
    is_clip,
    iterate_video,
    probe_video,
    read_metadata,
    read_video,
    write_video,
)
from prepare_dataset import run as prepare


FRAMES = moving_texture(20)


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a.astype(np.float64) - b.astype(np.float64)).mean())


def check_times(path: Path, num_frames: int, start: float, frames: np.ndarray | None = None) -> None:
    """The file has that many frames, 1/25 s apart from `start`, and shows `frames`."""
    clip = read_video(path)
    np.testing.assert_allclose(clip.timestamps, start + np.arange(num_frames) / RATE, atol=1e-3)
    if frames is not None:
        assert max(map(mean_difference, clip.frames, frames)) < 8


# Clocks of containers

CODECS = {"nut": "ffv1", "webm": "libvpx-vp9", "asf": "wmv2", "ts": "mpeg2video", "mpg": "mpeg2video"}


@pytest.mark.parametrize("suffix", ["mkv", "webm", "nut", "asf", "mov", "mp4", "flv", "ts", "mpg"])
def test_a_file_that_starts_late_is_whole(tmp_path, suffix):
    options = {"b": "4M"} if CODECS.get(suffix) in ("wmv2", "mpeg2video") else {}
    path = encode(tmp_path / f"late.{suffix}", FRAMES, CODECS.get(suffix, "libx264"), start=10, options=options)
    counts_from_start = suffix in ("ts", "mpg")  # their clocks can start anywhere
    check_times(path, 20, start=0 if counts_from_start else 10, frames=FRAMES)


@pytest.mark.parametrize("suffix", ["mkv", "webm", "flv"])
def test_a_late_file_that_is_cut_short_is_an_error(tmp_path, suffix):
    frames = moving_texture(80)
    path = encode(tmp_path / f"late.{suffix}", frames, CODECS.get(suffix, "libx264"), start=10)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(VideoError, match=f"late.{suffix}: (is cut short|cannot be decoded to its end)"):
        read_video(path)


# Timestamps


def write_joined(path: Path, parts: list[bytes]) -> Path:
    path.write_bytes(b"".join(parts))
    return path


def test_b_frames_in_avi_come_in_order(tmp_path, caplog):
    path = encode(tmp_path / "b.avi", FRAMES, options={"bf": "3", "crf": "8"})
    with av.open(str(path)) as container:
        times = [frame.pts for frame in container.decode(video=0)]
    assert times != sorted(times)  # as FFmpeg gives them
    check_times(path, 20, start=read_video(path).timestamps[0], frames=FRAMES)


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({5: 4}, range(20)),  # doubled: it goes halfway to the next one
        ({5: 4, 11: 10}, range(20)),
        ({0: 1}, [1, 1.5, *range(2, 20)]),
        ({7: 3}, range(20)),  # one falls back
    ],
    ids=["doubled", "twice doubled", "first", "falls back"],
)
def test_single_wrong_times_are_repaired_and_said(tmp_path, caplog, wrong, expected):
    path = encode(tmp_path / "wrong.mkv", FRAMES, "ffv1", "yuv444p", start=2, wrong_times=wrong)
    clip = read_video(path)
    np.testing.assert_allclose(clip.timestamps * RATE - 50, list(expected), atol=1e-6)
    (said,) = (record.getMessage() for record in caplog.records)
    assert said == f"{path}: timestamps of {len(wrong)} of 20 frames were missing or did not rise; they are repaired."


@pytest.mark.parametrize("times", [2, 3])
def test_joined_transport_streams_continue(tmp_path, caplog, times):
    one = encode(tmp_path / "one.ts", FRAMES, "mpeg2video", options={"b": "4M", "bf": "0"})
    joined = write_joined(tmp_path / "joined.ts", [one.read_bytes()] * times)
    check_times(joined, 20 * times, start=0)
    assert f"timestamps of {times - 1} of {20 * times} frames" in caplog.text


def test_undamaged_files_are_read_without_a_word(tmp_path, caplog):
    for suffix in ("mp4", "mkv", "ts"):
        check_times(encode(tmp_path / f"good.{suffix}", FRAMES), 20, start=0)
    assert not caplog.records


# Fields


def combs(frames: np.ndarray) -> float:
    """How far odd rows are from the mean of their neighbors, in levels: large where two fields are woven."""
    rows = frames.astype(np.float64)
    return float(np.abs(rows[:, 1:-1:2] - (rows[:, :-2:2] + rows[:, 2::2]) / 2).mean())


FIELDS = moving_texture(48, speed=4)


@pytest.mark.parametrize(
    ("name", "codec", "options", "top_first"),
    [
        ("tff.mp4", "libx264", {"crf": "6", "flags": "+ilme+ildct", "x264-params": "tff=1"}, True),
        ("bff.mkv", "libx264", {"crf": "6", "flags": "+ilme+ildct", "x264-params": "bff=1"}, False),
        ("tv.ts", "mpeg2video", {"b": "9M", "flags": "+ilme+ildct", "top": "1"}, True),
    ],
)
def test_fields_are_deinterlaced_and_said(tmp_path, caplog, name, codec, options, top_first):
    path = encode(tmp_path / name, woven(FIELDS, top_first), codec, options=options)
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).interlaced_frame
    assert combs(woven(FIELDS, top_first)) > 3 * combs(FIELDS)
    clip = read_video(path)
    np.testing.assert_allclose(clip.timestamps, np.arange(24) / RATE, atol=1e-3)
    assert combs(clip.frames) < 2 * combs(FIELDS)  # half of the rows are interpolated
    assert f"{path}: is interlaced from frame 0; it is deinterlaced." in caplog.text


# Frames that change inside


def joined_sizes(tmp_path: Path, sizes: list[tuple[int, int]]) -> Path:
    parts = []
    for number, (height, width) in enumerate(sizes):
        part = encode(
            tmp_path / f"part{number}.ts", moving_texture(12, height, width), options={"bf": "0"}, start=number
        )
        parts.append(part.read_bytes())
        part.unlink()
    return write_joined(tmp_path / "change.ts", parts)


@pytest.mark.parametrize("sizes", [[(96, 128), (96, 160)], [(96, 128), (64, 128)], [(96, 128), (192, 256), (96, 128)]])
def test_a_file_whose_frames_change_size_is_named(tmp_path, sizes):
    (height, width), (other_height, other_width) = sizes[:2]
    message = f"change.ts: frames change from {width} x {height} to {other_width} x {other_height} pixels at frame 12"
    with pytest.raises(VideoError, match=message):
        read_video(joined_sizes(tmp_path, sizes))


# Transparency


def test_what_is_transparent_is_on_white(tmp_path):
    rgba = np.zeros((4, 32, 32, 4), np.uint8)
    rgba[...] = (255, 0, 255, 0)  # magenta that nobody sees
    rgba[:, 8:24, 8:24] = (200, 30, 30, 255)
    rgba[:, :8, :8] = (0, 0, 0, 128)
    expected = np.full((32, 32, 3), 255)
    expected[8:24, 8:24] = (200, 30, 30)
    expected[:8, :8] = 127
    encode(tmp_path / "png.mov", rgba, "png", "rgba", format="rgba")
    encode(tmp_path / "qtrle.mov", rgba, "qtrle", "argb", format="rgba")
    encode(tmp_path / "ffv1.mkv", rgba, "ffv1", "bgra", format="rgba")
    images = [Image.fromarray(frame) for frame in rgba]
    images[0].save(tmp_path / "a.webp", save_all=True, append_images=images[1:], lossless=True, exact=True)
    for name in ("png.mov", "qtrle.mov", "ffv1.mkv", "a.webp"):
        assert np.abs(read_video(tmp_path / name).frames[0].astype(int) - expected).max() <= 1, name
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], disposal=2)
    corner = read_video(tmp_path / "a.gif").frames[0][-1, -1]
    assert corner.tolist() == [255, 255, 255]


# What one command writes, every other reads


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.webp", "clip"])
def test_every_written_format_is_read(tmp_path, name):
    write_video(tmp_path / name, FRAMES[:6], 8, {"prompt": "mist"})
    assert is_clip(tmp_path / name) and read_metadata(tmp_path / name)["prompt"] == "mist"
    clip, info = read_video(tmp_path / name), probe_video(tmp_path / name)
    assert clip.frames.shape == (6, 96, 128, 3) and (info.width, info.height, info.num_frames) == (128, 96, 6)
    assert float(info.fps) == pytest.approx(8, rel=0.05)  # GIF counts hundredths of a second
    np.testing.assert_allclose(clip.timestamps, np.arange(6) / 8, atol=0.011)
    limit = {"clip": 0, "clip.gif": 12}.get(name, 5)
    assert mean_difference(clip.frames, FRAMES[:6]) <= limit


def test_animations_in_avif_are_read(tmp_path):
    images = [Image.fromarray(frame) for frame in FRAMES[:6]]
    images[0].save(tmp_path / "a.avif", save_all=True, append_images=images[1:], duration=125, quality=90)
    assert mean_difference(read_video(tmp_path / "a.avif").frames, FRAMES[:6]) < 5


def test_a_webp_in_a_file_object_is_read(tmp_path):
    write_video(tmp_path / "a.webp", FRAMES[:3], 8)
    assert len(list(iterate_video("shard: a.webp", io.BytesIO((tmp_path / "a.webp").read_bytes())))) == 3


SUFFIXES = ("MTS", "m2ts", "wmv", "flv", "3gp", "vob", "ogv", "mp4", "webp")


def test_folders_are_searched_for_every_kind_and_the_rest_is_counted(tmp_path, caplog):
    for suffix in SUFFIXES:
        (tmp_path / f"a.{suffix}").touch()
    write_video(tmp_path / "frames", FRAMES[:2], 8)
    for name in ("a.txt", "metadata.jsonl", "b.xyz", "c.xyz", "cover.jpg", ".hidden.mp4"):
        (tmp_path / name).touch()
    assert find_sources(tmp_path) == sorted([f"a.{suffix}" for suffix in SUFFIXES] + ["frames"])
    assert "3 files have no name of a video and are left out: 1 of .jpg, 2 of .xyz." in caplog.text


def test_evaluation_lists_what_the_commands_write(tmp_path):
    for name in ("a.mp4", "b.webp", "c", "d.gif"):
        write_video(tmp_path / name, FRAMES[:4], 8, {"prompt": f"mist {name}"})
    clips = list_clips(tmp_path, 4, 1)
    assert [clip.prompt for clip in clips] == ["mist a.mp4", "mist b.webp", "mist c", "mist d.gif"]
    assert all(clip.frames(4, 1).shape == (4, 96, 128, 3) for clip in clips)
    assert len({clip.key(4, 1, "") for clip in clips}) == 4


# Reasons


def write_sound(path: Path, codec: str, cover: bool) -> Path:
    with av.open(str(path), "w") as container:
        sound = container.add_stream(codec, rate=48000, layout="mono")
        if cover:
            picture = container.add_stream("png", rate=1)
            picture.width, picture.height, picture.pix_fmt = 16, 16, "rgb24"
            picture.disposition = av.stream.Disposition.attached_pic
        for start in range(0, 48000, 1024):
            silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            silence.sample_rate, silence.pts, silence.time_base = 48000, start, Fraction(1, 48000)
            container.mux(sound.encode(silence))
        container.mux(sound.encode())
        if cover:
            image = av.VideoFrame.from_ndarray(np.zeros((16, 16, 3), np.uint8), format="rgb24")
            container.mux(picture.encode(image))
            container.mux(picture.encode())
    return path


@pytest.mark.parametrize(
    ("name", "codec", "cover", "reason"),
    [
        ("cover.mp4", "aac", True, "has no video, only a cover image"),
        ("sound.m4a", "aac", False, "has no video, only other streams"),
        ("sound.mka", "flac", False, "has no video, only other streams"),
    ],
)
def test_files_without_video_are_told_from_damaged_ones(tmp_path, name, codec, cover, reason):
    with pytest.raises(VideoError, match=f"{name}: {reason}"):
        read_video(write_sound(tmp_path / name, codec, cover))


# A folder with such files among good ones


def test_no_file_ends_the_preparation_of_the_others(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("a.mp4", "z.mkv"):
        encode(raw / name, moving_texture(70, 96, 128, speed=2 if name == "a.mp4" else 1))
    joined_sizes(raw, [(96, 128), (96, 160)])
    write_sound(raw / "cover.mp4", "aac", cover=True)
    encode(raw / "fields.mkv", woven(FIELDS), options={"flags": "+ilme+ildct", "x264-params": "tff=1"})
    (raw / "text.mp4").write_text("mist")
    flags = ["--min_size", "90", "--min_seconds", "0.5", "--workers", "1", "--max_hash_distance", "-1"]
    (tmp_path / "captions.jsonl").write_text(
        "".join(json.dumps({"file_name": path.name, "text": path.stem}) + "\n" for path in sorted(raw.iterdir()))
    )
    flags += ["--captions", str(tmp_path / "captions.jsonl")]
    logging.getLogger().setLevel(logging.INFO)
    assert prepare([str(raw), "--output_dir", str(tmp_path / "clips"), *flags]) == 0
    rows = [json.loads(line) for line in (tmp_path / "clips" / "metadata.jsonl").read_text().splitlines()]
    assert {row["source"] for row in rows} == {"a.mp4", "fields.mkv", "z.mkv"}
    rejected = (tmp_path / "clips" / "refused.jsonl").read_text()
    for name, reason in (
        ("change.ts", "frames change from 128 x 96 to 160 x 96"),
        ("cover.mp4", "only a cover image"),
        ("text.mp4", "not a video that can be read"),
    ):
        assert any(f'"{name}"' in line and reason in line for line in rejected.splitlines())


def test_decoding_threads_never_log_into_python(tmp_path):
    """They would deadlock; older versions of torchvision turn PyAV's log on when they are imported."""
    write_video(tmp_path / "clip.mp4", np.zeros((2, 16, 16, 3), np.uint8), 8)
    av.logging.set_level(av.logging.ERROR)
    read_video(tmp_path / "clip.mp4")
    assert av.logging.get_level() is None
