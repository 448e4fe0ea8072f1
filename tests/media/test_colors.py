"""Colors of files, read and written: place of chroma, matrix, range, depth and dynamic range.

Everything is compared with arithmetic on the planes, since the same converter on both sides would hide its errors.
"""

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from landscape_video.cli.main import app
from media_files import encode_planes, from_planes, planes_of, to_planes
from pipeline_landscape_video.color_volumes import HLG, PQ, HdrMetadata, hlg_luminance, hlg_scene, pq_encode
from pipeline_landscape_video.video_io import (
    VideoError,
    iterate_video,
    open_mp4,
    probe_video,
    read_video,
    write_video,
)


HEIGHT, WIDTH = 96, 128
Y, X = np.mgrid[:HEIGHT, :WIDTH].astype(np.float64)
BT601, BT709, BT2020 = (0.299, 0.114), (0.2126, 0.0722), (0.2627, 0.0593)
UNSPECIFIED = 2


def interpolate(source, target) -> str:
    result = CliRunner().invoke(app, ["interpolate", str(source), str(target), "--flow", "dis"])
    assert result.exit_code == 0, result.stderr
    return result.stdout + result.stderr


# Place of chroma


def blot(x: float, y: float) -> np.ndarray:
    return np.exp(-((X - x) ** 2 + (Y - y) ** 2) / 128)


def blue_blot(weights: tuple[float, float] = BT709) -> np.ndarray:
    """A blue blot at (60, 40) on gray, everywhere of the same luma, RGB in [0, 1]."""
    blue = 0.4 * blot(60, 40)
    ratio = weights[1] / (1 - sum(weights))
    return 0.5 + np.stack([0 * blue, -ratio * blue, blue], axis=-1)


def center(image: np.ndarray, limit: float) -> np.ndarray:
    """Center (x, y) of what is above `limit` in one channel."""
    weights = np.where(image > limit, image, 0)
    rows, columns = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weights * columns).sum(), (weights * rows).sum()]) / weights.sum()


def blue_center(frames: np.ndarray) -> np.ndarray:
    blue = frames[0, ..., 2].astype(np.float64)
    return center(blue - np.median(blue), 6)


def placed_blot(location: str, horizontal: int, vertical: int) -> list[np.ndarray]:
    """Planes of `blue_blot` with chroma samples at `location`, each computed for its own place."""
    shift_x = {"left": 0, "topleft": 0, "center": 0.5 * (horizontal - 1)}[location]
    shift_y = {"topleft": 0}.get(location, 0.5 * (vertical - 1))
    rows, columns = np.mgrid[: HEIGHT // vertical, : WIDTH // horizontal]
    values = np.exp(-((columns * horizontal + shift_x - 60) ** 2 + (rows * vertical + shift_y - 40) ** 2) / 128)
    cb = 128 + 224 * 0.4 * values / (2 * (1 - BT709[1]))
    planes = [np.full((HEIGHT, WIDTH), 16 + 219 * 0.5), cb, np.full(cb.shape, 128.0)]
    return [np.rint(plane).astype(np.uint8) for plane in planes]


@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "location", "options"),
    [
        ("left.mp4", "libx264", "yuv420p", "left", {"qp": "1"}),
        ("center.mkv", "libx264", "yuv420p", "center", {"qp": "1", "x264-params": "chromaloc=1"}),
        ("topleft.mp4", "libx264", "yuv420p", "topleft", {"qp": "1", "x264-params": "chromaloc=2"}),
        ("undeclared.mkv", "ffv1", "yuv420p", "left", {}),
        ("jpeg.mov", "mjpeg", "yuvj420p", "center", {"qmin": "1", "q": "1"}),
        ("wide.mkv", "ffv1", "yuv422p", "left", {}),
    ],
)
def test_chroma_is_read_from_its_place(tmp_path, name, codec, pixel_format, location, options):
    planes = placed_blot(location, 2, 1 if pixel_format == "yuv422p" else 2)
    path = encode_planes(tmp_path / name, planes, codec, pixel_format, options, colorspace=1)
    np.testing.assert_allclose(blue_center(read_video(path).frames), (60, 40), atol=0.1)


def test_chroma_is_written_to_the_place_that_the_file_declares(tmp_path):
    write_video(tmp_path / "a.mp4", [blue_blot()] * 2, 25)
    chroma = planes_of(tmp_path / "a.mp4")[1]
    # Left: a sample is on every second column, and between two rows.
    np.testing.assert_allclose(2 * center(chroma - 128, 3) + (0, 0.5), (60, 40), atol=0.1)


def test_colors_stay_in_place_over_four_passes(tmp_path):
    write_video(tmp_path / "0.mp4", [blue_blot()] * 2, 25)
    for number in range(4):
        interpolate(tmp_path / f"{number}.mp4", tmp_path / f"{number + 1}.mp4")
    np.testing.assert_allclose(blue_center(read_video(tmp_path / "4.mp4").frames), (60, 40), atol=0.1)
    first, last = (planes_of(tmp_path / f"{number}.mp4") for number in (0, 4))
    assert max(np.abs(a - b).max() for a, b in zip(first, last, strict=True)) <= 2


# Matrix, range and depth

PATCHES = np.stack([0.5 + 0.4 * np.sin(X / 20), 0.5 + 0.45 * np.cos(Y / 17), X / WIDTH], axis=-1)


@pytest.mark.parametrize(
    ("pixel_format", "bits", "matrix", "weights", "color_range"),
    [
        ("yuv444p", 8, 6, BT601, 1),
        ("yuv444p", 8, 1, BT709, 2),
        ("yuv444p10le", 10, 1, BT709, 1),
        ("yuv444p10le", 10, 9, BT2020, 2),
        ("yuv444p12le", 12, 7, (0.212, 0.087), 1),
        ("yuv444p", 8, UNSPECIFIED, BT601, 0),  # small and undeclared: as players do
    ],
)
def test_matrix_range_and_depth_are_honored(tmp_path, pixel_format, bits, matrix, weights, color_range):
    dtype = np.uint8 if bits == 8 else np.uint16
    planes = to_planes(PATCHES, weights, bits, color_range == 2)
    planes = [np.rint(plane).clip(0, 2**bits - 1).astype(dtype) for plane in planes]
    path = encode_planes(tmp_path / "a.mkv", planes, "ffv1", pixel_format, colorspace=matrix, color_range=color_range)
    frame = next(iterate_video(path))
    expected = from_planes(planes, weights, bits, color_range == 2)
    error = frame.pixels - 255 * expected
    assert np.abs(error).max() < 0.7 and abs(error.mean()) < 0.05
    assert (frame.deep is None) == (bits == 8)
    if frame.deep is not None:
        assert np.abs(frame.deep / 65535 - expected).max() < 2 / 2**bits


@pytest.mark.parametrize("name", ["a.mkv", "b.mov", "c.mp4"])
def test_a_matrix_that_is_not_supported_is_named(tmp_path, name):
    planes = [np.full((HEIGHT, WIDTH), 100, np.uint8)] * 3
    codec = "ffv1" if name == "a.mkv" else "libx264"
    options = {"x264-params": "colormatrix=ycgco"} if codec == "libx264" else {}
    path = encode_planes(tmp_path / name, planes, codec, "yuv444p", options, colorspace=8)
    with pytest.raises(VideoError, match=f"{name}: its colors use the matrix 8 of ITU-T H.273, which is not support"):
        read_video(path)


@pytest.mark.parametrize(("primaries", "weights"), [(1, BT709), (9, BT2020)])
@pytest.mark.parametrize("bit_depth", [8, 10])
def test_what_is_written_is_what_the_tags_declare(tmp_path, primaries, weights, bit_depth):
    flat = np.broadcast_to(np.array([0.8, 0.3, 0.1]), (32, 32, 3))
    with open_mp4(tmp_path / "a.mp4", 32, 32, 25, color_primaries=primaries, bit_depth=bit_depth, crf=1) as writer:
        for _ in range(3):
            writer.write(flat)
    expected = np.array([plane.mean() for plane in to_planes(flat, weights, bit_depth)])
    stored = np.array([plane.mean() for plane in planes_of(tmp_path / "a.mp4")])
    assert np.abs(stored - expected).max() < 0.6
    with av.open(str(tmp_path / "a.mp4")) as container:
        image = next(container.decode(video=0))
    assert (image.colorspace, image.color_range, image.color_primaries) == (primaries, 1, primaries)
    assert image.format.name == ("yuv420p" if bit_depth == 8 else "yuv420p10le")


# High dynamic range

NITS = np.array([1, 5, 20, 60, 90, 203, 500, 1000.0])


def write_hdr(path, encoded: np.ndarray, transfer: int, options: str = "", primaries: int = 9):
    """Write gray fields of these values, as HEVC with 10 bits."""
    row = np.repeat(np.rint(64 + 876 * encoded), 16).astype(np.uint16)
    luma = np.broadcast_to(row, (64, len(row)))
    planes = [luma, *[np.full((32, len(row) // 2), 512, np.uint16)] * 2]
    options = {"x265-params": f"log-level=error:bframes=0:crf=4{options}"}
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": primaries, "color_trc": transfer}
    return encode_planes(path, planes, "libx265", "yuv420p10le", options, **tags)


MASTERED = ":master-display=G(13250,34500)B(7500,3000)R(34000,16000)WP(15635,16450)L(10000000,50):max-cll=1000,400"


@pytest.mark.parametrize("name", ["pq.mp4", "pq.mkv", "hlg.mov", "sdr.mp4"])
def test_wide_color_volumes_are_mapped_to_bt709_and_said(tmp_path, caplog, name):
    transfer = {"pq": PQ, "hlg": HLG, "sdr": 14}[name[:-4]]
    gray = np.linspace(0.05, 1, 8)
    encoded = pq_encode(NITS) if transfer == PQ else gray
    path = write_hdr(tmp_path / name, encoded, transfer)
    shown = read_video(path).frames[0, 32, 8::16, 1].astype(float)
    volume = {PQ: "PQ", HLG: "HLG", 14: "a wide gamut"}[transfer]
    assert f"{path}: its colors ({volume}) are mapped to BT.709." in caplog.text
    luminances = {PQ: NITS, HLG: hlg_luminance(hlg_scene(np.repeat(gray[:, None], 3, 1)))[:, 0], 14: 203 * gray**2.4}[
        transfer
    ]
    dark = luminances < 95  # below the knee, display light stays what it was: BT.709's display has a gamma of 2.4
    if transfer == 14:
        dark = luminances >= 0
    assert np.abs(shown - 255 * (luminances / 203) ** (1 / 2.4))[dark].max() <= 1
    assert (np.diff(shown) > 0).all() and shown[-1] >= 253


def test_colors_of_a_wide_gamut_keep_their_chromaticity(tmp_path):
    # Linear BT.2020 of BT.709's red, green and blue, by ITU-R BT.2087.
    to_bt2020 = np.array([[0.6274, 0.3293, 0.0433], [0.0691, 0.9195, 0.0114], [0.0164, 0.0880, 0.8956]])
    colors = np.random.default_rng(0).uniform(0.02, 0.4, (12, 8, 3))  # linear BT.709, below the knee
    image = pq_encode(203 * colors @ to_bt2020.T).repeat(8, 0).repeat(16, 1)
    planes = [np.rint(plane).astype(np.uint16) for plane in to_planes(image, BT2020, 12)]
    tags = {"colorspace": 9, "color_range": 1, "color_primaries": 9, "color_trc": PQ}
    path = encode_planes(tmp_path / "a.mkv", planes, "ffv1", "yuv444p12le", **tags)
    shown = read_video(path).frames[0][4::8, 8::16]
    assert np.abs(shown - 255 * colors ** (1 / 2.4)).max() < 1.2  # ours, and half a level of rounding


@pytest.mark.parametrize(("name", "transfer"), [("pq.mp4", PQ), ("pq.mkv", PQ), ("hlg.mp4", HLG)])
def test_interpolate_keeps_ten_bits_and_their_metadata(tmp_path, name, transfer):
    source = write_hdr(tmp_path / name, np.linspace(0.1, 0.9, 8), transfer, MASTERED if transfer == PQ else "")
    interpolate(source, tmp_path / "out.mp4")
    before, after = probe_video(source), probe_video(tmp_path / "out.mp4")
    assert (after.bit_depth, after.color_primaries, after.color_trc) == (10, 9, transfer)
    assert after.hdr.as_x265_options() == before.hdr.as_x265_options()
    assert (after.hdr == HdrMetadata(None, None)) == (transfer == HLG)
    first, last = planes_of(source), planes_of(tmp_path / "out.mp4")
    assert max(np.abs(a - b)[:, 8::16].max() for a, b in zip(first[:1], last[:1], strict=True)) <= 2  # of 1023
