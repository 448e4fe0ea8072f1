"""Clips are read and written upright, complete and with their metadata, or an error says why not."""

import json
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from pipeline_landscape_video.video_io import (
    VideoError,
    as_pixels,
    check_output,
    iterate_video,
    open_mp4,
    probe_video,
    read_metadata,
    read_video,
    write_video,
)
from processes import largest_files
from video_files import half_of, make_video, moving_frames, quadrants


def mean_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)).mean())


# Reading


def test_frames_and_even_timestamps_come_back(tmp_path):
    frames = moving_frames(9)
    clip = read_video(make_video(tmp_path / "a.mp4", frames, fps=10))
    assert clip.frames.shape == (9, 48, 64, 3) and clip.frames.dtype == np.uint8
    assert mean_difference(clip.frames, np.stack(frames)) < 3
    np.testing.assert_allclose(clip.timestamps, np.arange(9) / 10)
    assert clip.fps == pytest.approx(10)


def test_variable_frame_rate_keeps_every_timestamp_and_duration(tmp_path):
    times = [Fraction(t, 100) for t in (0, 10, 15, 40, 45, 90)]
    path = make_video(tmp_path / "vfr.mp4", moving_frames(6), timestamps=times)
    frames = list(iterate_video(path))
    assert [frame.timestamp for frame in frames] == times
    assert [frame.duration for frame in frames[:-1]] == [b - a for a, b in zip(times, times[1:], strict=False)]
    assert read_video(path).fps == pytest.approx(6 / float(times[-1] + frames[-1].duration))


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path, rotation):
    stored = quadrants()
    path = make_video(tmp_path / "turned.mp4", [stored] * 3, rotation=rotation)
    upright = np.rot90(stored, rotation // 90)  # both count counter-clockwise
    assert mean_difference(read_video(path).frames[0], upright) < 5
    info = probe_video(path)
    assert (info.height, info.width) == upright.shape[:2]


def test_mirroring_is_applied(tmp_path):
    stored = quadrants()
    path = make_video(tmp_path / "mirrored.mp4", [stored] * 3, hflip=True)
    assert mean_difference(read_video(path).frames[0], stored[:, ::-1]) < 5


def test_a_rotation_by_less_than_a_quarter_turn_is_an_error(tmp_path):
    path = make_video(tmp_path / "tilted.mp4", [quadrants()] * 3, rotation=30)
    with pytest.raises(VideoError, match=r"tilted\.mp4: rotation must be a multiple of 90 degrees"):
        read_video(path)


@pytest.mark.parametrize(
    ("aspect", "size"), [(Fraction(4, 3), (48, 85)), (Fraction(1, 2), (96, 64)), (Fraction(1), (48, 64))]
)
def test_pixels_come_out_square_and_none_is_lost(tmp_path, aspect, size):
    path = make_video(tmp_path / "wide.mp4", moving_frames(3), pixel_aspect=aspect)
    assert read_video(path).frames.shape[1:3] == size
    assert (probe_video(path).height, probe_video(path).width) == size


def test_pixel_aspect_counts_before_rotation(tmp_path):
    path = make_video(tmp_path / "both.mp4", moving_frames(3), pixel_aspect=Fraction(2), rotation=90)
    assert read_video(path).frames.shape[1:3] == (128, 48)


def test_high_definition_without_a_declared_matrix_is_read_as_players_read_it(tmp_path):
    image = np.zeros((720, 64, 3), dtype=np.uint8)
    image[:] = (200, 40, 40)
    path = tmp_path / "hd.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 720, "yuv420p"
        frame = av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="yuv420p", dst_colorspace="ITU709")
        frame.colorspace = 2  # unspecified
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with av.open(str(path)) as container:
        assert next(container.decode(video=0)).colorspace == 2
    assert mean_difference(read_video(path).frames[0], image) < 3


def test_probe_tells_what_the_file_declares(tmp_path):
    path = make_video(tmp_path / "a.mp4", moving_frames(12), fps=12, tags={"title": "River"})
    info = probe_video(path)
    assert (info.width, info.height, info.fps, info.num_frames) == (64, 48, 12, 12)
    assert info.duration == pytest.approx(1.0)
    assert info.tags["title"] == "River"


@pytest.mark.parametrize("options", [{}, {"movflags": "+faststart"}], ids=["index last", "index first"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_a_truncated_mp4_is_an_error_that_names_it(tmp_path, options, share):
    path = make_video(tmp_path / "a.mp4", moving_frames(40), options=options)
    assert len(read_video(path).frames) == 40
    with pytest.raises(VideoError, match=r"short_a\.mp4: "):
        read_video(half_of(path, share))


@pytest.mark.parametrize("audio", [None, "aac"])
def test_a_truncated_mkv_is_an_error_although_it_decodes(tmp_path, audio):
    path = make_video(tmp_path / "a.mkv", moving_frames(60), audio=audio)
    assert len(read_video(path).frames) == 60
    short = half_of(path)
    with av.open(str(short)) as container:  # nothing else notices
        assert 0 < len(list(container.decode(video=0))) < 60
    with pytest.raises(VideoError, match=r"short_a\.mkv: is cut short: \d+ frames decoded, up to .* of 6\.\d+ s"):
        read_video(short)


def test_sound_that_outlasts_the_video_is_no_truncation(tmp_path):
    for name in ("a.mkv", "a.mp4"):
        path = make_video(tmp_path / name, moving_frames(10), audio="aac", audio_seconds=3.0)
        assert len(read_video(path).frames) == 10


def test_damaged_frames_are_an_error(tmp_path):
    path = make_video(tmp_path / "a.mp4", moving_frames(40), options={"movflags": "+faststart"})
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 2000
    data[start : start + 400] = bytes(range(256)) + bytes(144)
    path.write_bytes(data)
    with pytest.raises(VideoError, match=r"a\.mp4: "):
        read_video(path)


def test_an_mp4_whose_edit_list_cuts_frames_is_complete(tmp_path):
    # B-frames and a start that is cut: the count of frames in the header includes some that are never shown.
    path = make_video(tmp_path / "a.mp4", moving_frames(30))
    with av.open(str(path)) as source, av.open(str(tmp_path / "cut.mp4"), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                packet.pts -= round(1 / packet.time_base)  # a second and more before zero
                packet.dts -= round(1 / packet.time_base)
                target.mux(packet)
    with av.open(str(tmp_path / "cut.mp4")) as container:
        assert container.streams.video[0].frames == 30
    clip = read_video(tmp_path / "cut.mp4")
    assert 15 <= len(clip.frames) < 30 and clip.timestamps[0] == 0


def test_timestamps_of_a_transport_stream_count_from_its_start(tmp_path):
    path = make_video(tmp_path / "a.ts", moving_frames(10))
    with av.open(str(path)) as container:
        assert container.start_time > 0
    np.testing.assert_allclose(read_video(path).timestamps, np.arange(10) / 10, atol=1e-4)


def test_files_that_are_not_videos_are_named(tmp_path):
    (tmp_path / "text.mp4").write_text("mist over mountains")
    with pytest.raises(VideoError, match=r"text\.mp4: not a video"):
        read_video(tmp_path / "text.mp4")
    with pytest.raises(FileNotFoundError, match=r"none\.mp4: no such file"):
        read_video(tmp_path / "none.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=48000, layout="mono")
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        silence.sample_rate = 48000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    with pytest.raises(VideoError, match=r"sound\.mp4: has no video"):
        probe_video(tmp_path / "sound.mp4")


# Writing

SETTINGS = {
    "prompt": "mist over mountains, 薄霧",
    "seed": 7,
    "versions": {"torch": "2.15"},
    "lora": [],
    "height": None,
}


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.webp", "clip"])
def test_every_format_keeps_frames_and_metadata(tmp_path, name):
    frames = moving_frames(5)
    path = tmp_path / name
    write_video(path, frames, 8, SETTINGS)
    assert read_metadata(path) == {**SETTINGS, "fps": 8.0}
    assert [entry.name for entry in tmp_path.iterdir()] == [name]  # no temporary file is left
    if path.is_dir():
        written = [np.asarray(Image.open(file)) for file in sorted(path.iterdir())]
        assert [file.name for file in sorted(path.iterdir())] == [f"frame_{i:04d}.png" for i in range(5)]
        np.testing.assert_array_equal(written, frames)
    elif name == "clip.webp":
        with Image.open(path) as image:
            assert image.n_frames == 5
            for index, frame in enumerate(frames):
                image.seek(index)
                assert mean_difference(np.asarray(image.convert("RGB")), frame) < 6
                assert image.info["duration"] == 125
    else:
        clip = read_video(path)
        assert mean_difference(clip.frames, np.stack(frames)) < (5 if name == "clip.mp4" else 12)
        np.testing.assert_allclose(clip.timestamps, np.arange(5) / 8, atol=0.011)


def test_mp4_plays_everywhere(tmp_path):
    path = tmp_path / "clip.mp4"
    write_video(path, moving_frames(30), 30)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.codec_context.profile in ("Main", "High")
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == 30 and stream.frames == 30
        frame = next(container.decode(video=0))
        assert (frame.colorspace, frame.color_range, frame.color_primaries, frame.color_trc) == (1, 1, 1, 1)
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # a browser can start before the whole file is there


def test_mp4_keeps_pure_colors(tmp_path):
    image = quadrants(64, 64)
    write_video(tmp_path / "clip.mp4", [image] * 2, 8)
    written = read_video(tmp_path / "clip.mp4").frames[0]
    for y, x in ((16, 16), (16, 48), (48, 16), (48, 48)):
        assert np.abs(written[y, x].astype(int) - image[y, x]).max() <= 6


def test_writing_and_reading_repeatedly_darkens_nothing(tmp_path):
    y, x = np.mgrid[:128, :128]
    image = np.stack([120 + 80 * np.sin(x / 30), 140 + 60 * np.cos(y / 25), 90 + 0.8 * x], axis=-1).astype(np.uint8)
    frame = image
    for _ in range(3):
        write_video(tmp_path / "clip.mp4", [frame] * 2, 8)
        frame = read_video(tmp_path / "clip.mp4").frames[0]
    # swscale's fast conversion loses 1.1 to 1.4 each time.
    assert np.abs((frame.astype(float) - image).mean(axis=(0, 1))).max() < 1.2


@pytest.mark.parametrize(("height", "width"), [(47, 64), (48, 65), (47, 65), (1, 1)])
def test_odd_sizes_gain_a_repeated_row_or_column(tmp_path, height, width):
    frames = moving_frames(3, height, width)
    write_video(tmp_path / "odd.mp4", frames, 8)
    written = read_video(tmp_path / "odd.mp4").frames
    assert written.shape == (3, height + height % 2, width + width % 2, 3)
    assert mean_difference(written[:, :height, :width], np.stack(frames)) < 5
    write_video(tmp_path / "odd.gif", frames, 8)
    assert read_video(tmp_path / "odd.gif").frames.shape == (3, height, width, 3)


@pytest.mark.parametrize("fps", [7, 12.5, 16, 30000 / 1001, 50])
def test_gif_and_webp_do_not_drift(tmp_path, fps):
    frames = moving_frames(40, 16, 16)
    for name in ("clip.gif", "clip.webp"):
        write_video(tmp_path / name, frames, fps)
        with Image.open(tmp_path / name) as image:
            total = 0
            for index in range(image.n_frames):
                image.seek(index)
                image.load()
                total += image.info["duration"]
        assert total / 1000 == pytest.approx(40 / fps, abs=0.006)


@pytest.mark.parametrize("num_frames", [1, 2, 3, 4, 12])
def test_timestamps_and_the_last_duration_are_written(tmp_path, num_frames):
    steps = [Fraction(t, 90) for t in (9, 2, 19, 5, 4, 4, 4, 30, 2, 2, 7, 5)][-num_frames:]
    times = [sum(steps[:i], Fraction(0)) for i in range(num_frames)]
    with open_mp4(tmp_path / "vfr.mp4", 64, 48, fps=12, time_base=Fraction(1, 90000)) as writer:
        for frame, time, duration in zip(moving_frames(num_frames), times, steps, strict=True):
            writer.write(frame, time, duration)
    frames = list(iterate_video(tmp_path / "vfr.mp4"))
    assert [frame.timestamp for frame in frames] == times
    assert [frame.duration for frame in frames[:-1]] == steps[:-1]
    assert float(frames[-1].duration) == pytest.approx(float(steps[-1]), abs=1e-3)  # mp4 tells its length in ms


def test_images_arrays_and_tensors_are_the_same_frame():
    import torch

    pixels = quadrants()
    tensor = torch.from_numpy(pixels).permute(2, 0, 1) / 255
    whole = torch.from_numpy(pixels).permute(2, 0, 1)
    for frame in (Image.fromarray(pixels), pixels, pixels / 255, tensor, tensor.double(), whole):
        np.testing.assert_array_equal(as_pixels(frame), pixels)
    np.testing.assert_array_equal(as_pixels(np.full((2, 2, 3), 1.2)), np.full((2, 2, 3), 255))
    with pytest.raises(ValueError, match="must have finite values"):
        as_pixels(np.full((2, 2, 3), np.nan))
    with pytest.raises(ValueError, match=r"got \(3, 4, 5\)"):
        as_pixels(np.zeros((3, 4, 5), np.uint8))
    with pytest.raises(ValueError, match=r"got \(4, 5\)"):
        as_pixels(torch.zeros(4, 5))
    for frame in (pixels.astype(np.int64), whole.long()):
        with pytest.raises(ValueError, match=r"must be uint8 or floating in \[0, 1\], got int64"):
            as_pixels(frame)
    with pytest.raises(ValueError, match="float32 with values up to 235"):
        as_pixels(whole.float())


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.webp", "clip"])
def test_a_failure_half_way_leaves_the_old_file_and_no_other(tmp_path, name):
    path = tmp_path / name
    write_video(path, moving_frames(3), 8, {"seed": 1})

    def broken():
        yield from moving_frames(8)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(path, broken(), 8, {"seed": 2})
    with pytest.raises(ValueError, match="Frame 1 must have the shape"):
        write_video(path, [np.zeros((8, 8, 3), np.uint8), np.zeros((8, 9, 3), np.uint8)], 8)
    with pytest.raises(ValueError, match="no frames"):
        write_video(path, [], 8)
    assert read_metadata(path)["seed"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["clip.mp4", "clip"])
def test_an_old_clip_is_replaced(tmp_path, name):
    write_video(tmp_path / name, moving_frames(5), 8, {"seed": 1})
    write_video(tmp_path / name, moving_frames(3), 8, {"seed": 2})
    assert read_metadata(tmp_path / name)["seed"] == 2
    assert [entry.name for entry in tmp_path.iterdir()] == [name]
    if name == "clip":
        assert len(list((tmp_path / name).iterdir())) == 3


def test_a_folder_with_anything_else_in_it_is_not_replaced(tmp_path):
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"clip: exists"):
        write_video(tmp_path / "clip", moving_frames(2), 8)
    assert (tmp_path / "clip" / "thesis.txt").read_text() == "years of work"


@pytest.mark.parametrize(
    ("name", "fps", "message"),
    [
        ("clip.avi", 8, r"the suffix must be .*, got '\.avi'"),
        ("none/clip.mp4", 8, "the folder .*none does not exist"),
        ("folder.mp4", 8, "is a folder"),
        ("clip.gif", 60, "must be at most 50, got 60"),
        ("clip.mp4", 0, "must be above 0, got 0"),
    ],
)
def test_impossible_outputs_are_errors(tmp_path, name, fps, message):
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(ValueError, match=message):
        check_output(tmp_path / name, fps)
    with pytest.raises(ValueError, match=message):
        write_video(tmp_path / name, moving_frames(2), fps)
    assert [entry.name for entry in tmp_path.iterdir()] == ["folder.mp4"]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.gif", "clip.webp", "clip"])
def test_a_full_disk_is_an_error_that_leaves_nothing(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 255, (12, 128, 128, 3), dtype=np.uint8)
    with largest_files(20_000), pytest.raises(OSError, match="File too large"):
        write_video(tmp_path / name, noise, 8)
    assert list(tmp_path.iterdir()) == []


def test_metadata_of_other_programs_is_ignored(tmp_path):
    make_video(tmp_path / "a.mp4", moving_frames(2), tags={"comment": "hello"})
    assert read_metadata(tmp_path / "a.mp4") == {}
    Image.new("RGB", (4, 4)).save(tmp_path / "a.gif", comment=b"hello")
    assert read_metadata(tmp_path / "a.gif") == {}
    Image.new("RGB", (4, 4)).save(tmp_path / "b.gif", comment=json.dumps([1]).encode())
    assert read_metadata(tmp_path / "b.gif") == {}
    with pytest.raises(FileNotFoundError):
        read_metadata(tmp_path / "none.mp4")
