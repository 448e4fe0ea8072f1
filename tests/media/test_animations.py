"""Animations and folders of images that people have: transparency, partial canvases, slow fades, numbers, reasons.

What is expected is computed from the images that the files were made of.
"""

import io

import numpy as np
import pytest
from PIL import Image, features
from typer.testing import CliRunner

from landscape_video.cli.main import app
from media_files import RATE, encode, encode_planes, moving_texture, woven
from pipeline_landscape_video.video_io import VideoError, is_clip, iterate_video, probe_video, read_video, write_video


FRAMES = moving_texture(6, 48, 64)


# Transparency


def half_transparent() -> np.ndarray:
    """Four frames of magenta that nobody sees, with a red square inside."""
    rgba = np.zeros((4, 48, 64, 4), np.uint8)
    rgba[...] = (255, 0, 255, 0)
    rgba[:, 12:36, 16:48] = (200, 30, 30, 255)
    return rgba


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format"),
    [
        ("vp9.webm", "libvpx-vp9", "yuva420p"),
        ("vp8.webm", "libvpx", "yuva420p"),
        ("vp9.mkv", "libvpx-vp9", "yuva420p"),
        ("prores.mov", "prores_ks", "yuva444p10le"),
        ("utvideo.avi", "utvideo", "gbrap"),
    ],
)
def test_transparent_video_is_on_white(tmp_path, name, codec, pixel_format):
    options = {"auto-alt-ref": "0"} if codec.startswith("libvpx") else {}
    path = encode(tmp_path / name, half_transparent(), codec, pixel_format, options, format="rgba")
    for frame in read_video(path).frames.astype(int):
        assert np.abs(frame[:8] - 255).max() <= 2 and np.abs(frame[20:28, 24:40] - (200, 30, 30)).max() <= 4


def drawn_boxes() -> list[Image.Image]:
    """A blue box that moves over a transparent canvas."""
    images = [np.zeros((48, 64, 4), np.uint8) for _ in range(6)]
    for number, image in enumerate(images):
        image[10:20, 4 * number : 4 * number + 12] = (0, 0, 255, 255)
    return [Image.fromarray(image) for image in images]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("lossless.webp", {"lossless": True}),  # its header declares no transparency
        ("background.webp", {"lossless": True, "background": (0, 255, 0, 255)}),
        ("mixed.webp", {"allow_mixed": True, "quality": 95}),
        ("dispose.png", {"disposal": 1, "blend": 0}),
        ("a.avif", {"quality": 100}),
        ("dispose.gif", {"disposal": 2}),
    ],
)
def test_parts_that_no_frame_covers_are_white(tmp_path, name, options):
    if name.endswith(".avif") and not features.check("avif"):
        pytest.skip("This Pillow has no AVIF.")
    images = drawn_boxes()
    images[0].save(tmp_path / name, save_all=True, append_images=images[1:], duration=100, **options)
    assert is_clip(tmp_path / name)
    clip = read_video(tmp_path / name)
    assert len(clip.frames) == 6
    np.testing.assert_allclose(clip.timestamps, np.arange(6) / 10, atol=1e-3)
    white = Image.new("RGBA", (64, 48), "white")
    for frame, image in zip(clip.frames, images, strict=True):
        expected = np.asarray(Image.alpha_composite(white, image).convert("RGB")).astype(int)
        assert np.abs(frame - expected).mean() < 1.5 and frame[-1, -1].tolist() == [255, 255, 255]


# Slow changes


@pytest.mark.parametrize("step", [0, 1 / 3, 1 / 2, 1])
def test_webp_keeps_every_frame_of_a_slow_fade(tmp_path, step):
    ramp = np.linspace(90, 110, 64)[None, :, None]
    frames = [np.rint(np.broadcast_to(ramp + number * step, (64, 64, 3))).astype(np.uint8) for number in range(24)]
    write_video(tmp_path / "fade.webp", frames, 8, {"prompt": "dusk"})
    with Image.open(tmp_path / "fade.webp") as image:
        assert image.n_frames == 24
        for number, frame in enumerate(frames):
            image.seek(number)
            assert np.abs(np.asarray(image.convert("RGB")).astype(int) - frame).max() <= 2
    clip = read_video(tmp_path / "fade.webp")
    np.testing.assert_allclose(clip.timestamps, np.arange(24) / 8)


# Folders of images


@pytest.mark.parametrize(
    ("pattern", "first", "step", "companion"),
    [
        ("img{:03d}.jpg", 1, 1, "Thumbs.db"),
        ("{}.png", 5, 1, ".DS_Store"),
        ("scan-{:05d}.tif", 0, 2, "notes.txt"),
        ("frame_{:04d}.png", 9997, 1, "captions.json"),  # 10000 comes after 9999
    ],
)
def test_folders_of_numbered_images_are_clips(tmp_path, caplog, pattern, first, step, companion):
    folder = tmp_path / "images"
    folder.mkdir()
    for number, frame in enumerate(FRAMES):
        Image.fromarray(frame).save(folder / pattern.format(first + number * step))
    (folder / companion).write_text("x")
    assert is_clip(folder)
    clip, info = read_video(folder), probe_video(folder)
    assert (info.width, info.height, info.num_frames, info.fps) == (64, 48, 6, 8)
    errors = np.abs(clip.frames.astype(int) - FRAMES).mean(axis=(1, 2, 3))
    assert errors.max() < (6 if pattern.endswith("jpg") else 0.01)
    assert f"{folder}: declares no frame rate; it is taken for 8 frames per second." in caplog.text


def test_missing_numbers_are_counted(tmp_path, caplog):
    write_video(tmp_path / "a", FRAMES, 8)
    (tmp_path / "a" / "frame_0002.png").unlink()
    assert len(read_video(tmp_path / "a").frames) == 5
    assert "a: 1 images between the first and the last are missing." in caplog.text


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("size", "frames change from 64 x 48 to 64 x 32 pixels at frame_0003.png"),
        ("text", "frame_0003.png: not an image that can be read"),
        ("cut", "frame_0003.png: frame 0 cannot be decoded"),
        ("kinds", "is a folder, but not one of numbered images of one kind"),
        ("empty", "is a folder, but not one of numbered images of one kind"),
    ],
)
def test_folders_with_a_bad_image_are_named(tmp_path, fault, reason):
    folder = tmp_path / "frames"
    write_video(folder, FRAMES, 8)
    bad = folder / "frame_0003.png"
    if fault == "size":
        Image.fromarray(FRAMES[0][:32]).save(bad)
    elif fault == "text":
        bad.write_text("mist")
    elif fault == "cut":
        bad.write_bytes(bad.read_bytes()[:2000])
    elif fault == "kinds":
        Image.fromarray(FRAMES[0]).save(folder / "cover.jpg")
    else:
        for file in folder.iterdir():
            file.unlink()
    with pytest.raises(VideoError, match=reason):
        read_video(folder)


# Reasons


def unknown_codec(data: bytes) -> bytes:
    return data.replace(b"avc1", b"xyz1")


@pytest.mark.parametrize(
    ("name", "change", "reason"),
    [
        ("a.mp4", lambda data: b"", "it is empty"),
        ("a.mp4", lambda data: b"version https://git-lfs.github.com/spec/v1\noid", "pointer of Git LFS"),
        ("a.mp4", lambda data: b"<!DOCTYPE html><html>", "it is text"),
        ("a.mp4", lambda data: data[: len(data) // 2], "its index is missing"),
        ("a.mp4", unknown_codec, "uses a codec that FFmpeg cannot decode"),
        ("a.mkv", lambda data: data.replace(b"V_MPEG4/ISO/AVC", b"V_MPEG4/ISO/XYZ"), "uses a codec that FFmpeg"),
    ],
)
def test_the_true_reason_is_said(tmp_path, name, change, reason):
    path = encode(tmp_path / name, FRAMES)
    path.write_bytes(change(path.read_bytes()))
    with pytest.raises(VideoError, match=f"{name}: .*{reason}"):
        read_video(path)
    with pytest.raises(VideoError, match=reason):
        next(iterate_video("shard: clip", io.BytesIO(path.read_bytes())))


# What only the container or the decoder knows


@pytest.mark.parametrize(
    ("codec", "pixel_format", "top_first"),
    [("rawvideo", "uyvy422", True), ("png", "rgb24", True), ("png", "rgb24", False), ("qtrle", "rgb24", True)],
)
def test_fields_that_only_the_container_declares_are_deinterlaced(tmp_path, caplog, codec, pixel_format, top_first):
    frames = woven(moving_texture(24, 64, 96, speed=4), top_first)

    def declare(stream) -> None:
        stream.codec_context.field_order = 2 if top_first else 3  # both from the top, or both from the bottom

    path = encode(tmp_path / "a.mov", frames, codec, pixel_format, prepare=declare)
    combs = [
        np.abs(rows[:, 1:-1:2] - (rows[:, :-2:2] + rows[:, 2::2]) / 2).mean()
        for rows in (read_video(path).frames.astype(float), frames.astype(float))
    ]
    assert combs[0] < 0.5 * combs[1] and f"{path}: is interlaced from frame 0; it is deinterlaced." in caplog.text


def test_the_rate_of_dv_is_not_its_clock(tmp_path):
    path = encode(tmp_path / "a.dv", moving_texture(5, 576, 720), "dvvideo")
    clip = read_video(path)
    np.testing.assert_allclose(clip.timestamps, np.arange(5) / RATE, atol=1e-3)


@pytest.mark.parametrize("codec", ["ffv1", "cfhd"])
def test_interpolate_says_that_more_than_ten_bits_become_ten(tmp_path, codec):
    source = tmp_path / ("deep.mkv" if codec == "ffv1" else "deep.mov")
    planes = [np.full((64, 96), 2000 + 100 * number, np.uint16) for number in range(3)]
    pixel_format = "yuv444p12le" if codec == "ffv1" else "gbrp12le"
    encode_planes(source, planes, codec, pixel_format, **({"colorspace": 1} if codec == "ffv1" else {}))
    result = CliRunner().invoke(app, ["interpolate", str(source), str(tmp_path / "out.mp4"), "--flow", "dis"])
    assert result.exit_code == 0, result.stderr
    assert f"{source.name}: 12 bits become 10" in result.stderr
    assert probe_video(tmp_path / "out.mp4").bit_depth == 10
