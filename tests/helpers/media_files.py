"""Media files of awkward kinds, made with PyAV: late clocks, broken timestamps, fields, alpha, changing sizes."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np


RATE = 25  # frames per second of all files here


def moving_texture(num_frames: int, height: int = 96, width: int = 128, speed: float = 1.5) -> np.ndarray:
    """Colored blots that move to the right by `speed` pixels a frame, uint8 (num_frames, height, width, 3)."""
    noise = np.random.default_rng(1).normal(0, 1, (height, width + 400, 3)).astype(np.float32)
    texture = cv2.GaussianBlur(noise, (0, 0), 4)
    texture = 255 * (texture - texture.min()) / np.ptp(texture)
    shifts = [np.float32([[1, 0, -speed * number], [0, 1, 0]]) for number in range(num_frames)]
    frames = [cv2.warpAffine(texture, shift, (width, height), flags=cv2.INTER_CUBIC) for shift in shifts]
    return np.rint(np.stack(frames).clip(0, 255)).astype(np.uint8)


def woven(fields: np.ndarray, top_first: bool = True) -> np.ndarray:
    """Interlaced frames: of each two neighboring fields, the even rows of one and the odd rows of the other."""
    first, second = fields[::2], fields[1::2]
    frames = first.copy()
    frames[:, 1 if top_first else 0 :: 2] = second[:, 1 if top_first else 0 :: 2]
    return frames


def encode(
    path: Path,
    frames: Sequence[np.ndarray],
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    options: dict[str, str] | None = None,
    start: Fraction | float = 0,
    format: str = "rgb24",
    prepare: Callable[[av.VideoStream], None] | None = None,
    wrong_times: dict[int, int] | None = None,
) -> Path:
    """Write frames of `format` at 25 a second from `start` seconds.

    Args:
        prepare: Called with the stream, to set what else it declares.
        wrong_times: Times in frames, counted like the frames, that some frames get instead of their own.
    """
    height, width = frames[0].shape[:2]
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = Fraction(1, RATE)
        if prepare is not None:
            prepare(stream)
        packets = []
        for number, pixels in enumerate(frames):
            image = av.VideoFrame.from_ndarray(pixels, format=format)
            image.pts, image.time_base = round(start * RATE) + number, Fraction(1, RATE)
            packets += stream.encode(image)
        packets += stream.encode()
        for number, packet in enumerate(packets):
            if wrong_times is not None:  # muxers check the order of decoding, not the times at which frames are shown
                packet.pts = round(start * RATE) + wrong_times.get(number, number)
                packet.dts = number
            container.mux(packet)
    return path


def encode_planes(
    path: Path,
    planes: Sequence[np.ndarray],
    codec: str,
    pixel_format: str,
    options: dict[str, str] | None = None,
    num_frames: int = 2,
    **colors: int,
) -> Path:
    """Write one image, given as the planes of its pixel format, with color properties (ITU-T H.273) as tags."""
    height, width = planes[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, options=options or {})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = Fraction(1, RATE)
        for name, number in colors.items():
            setattr(stream.codec_context, name, number)
        for number in range(num_frames):
            image = av.VideoFrame(width, height, pixel_format)
            for plane, values in zip(image.planes, planes, strict=True):
                rows = np.zeros((values.shape[0], plane.line_size // values.itemsize), values.dtype)
                rows[:, : values.shape[1]] = values
                plane.update(rows.tobytes())
            image.pts, image.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(image))
        container.mux(stream.encode())
    return path


def planes_of(path: Path) -> list[np.ndarray]:
    """The planes of the first frame of a file as they are stored, without any conversion."""
    with av.open(str(path)) as container:
        image = next(container.decode(video=0))
    dtype = np.uint8 if image.format.components[0].bits == 8 else np.uint16
    return [
        np.frombuffer(plane, dtype).reshape(plane.height, -1)[:, : plane.width].astype(np.float64)
        for plane in image.planes
    ]


def to_planes(rgb: np.ndarray, weights: tuple[float, float], bits: int = 8, full: bool = False) -> list[np.ndarray]:
    """Y, Cb and Cr at full resolution of RGB in [0, 1], by the arithmetic of ITU-R BT.709, not rounded.

    Args:
        rgb: Values (height, width, 3).
        weights: Parts of red and blue in the luma.
        bits: Depth of the planes.
        full: Whether black is 0.
    """
    red, green, blue = np.moveaxis(rgb, -1, 0)
    luma = weights[0] * red + (1 - sum(weights)) * green + weights[1] * blue
    unit, white = 2 ** (bits - 8), 2**bits - 1
    offset, luma_range, chroma_range = (0, white, white) if full else (16 * unit, 219 * unit, 224 * unit)
    chroma = [(color - luma) / (2 * (1 - weight)) for color, weight in ((blue, weights[1]), (red, weights[0]))]
    return [offset + luma_range * luma, *(128 * unit + chroma_range * part for part in chroma)]


def from_planes(planes: Sequence[np.ndarray], weights: tuple[float, float], bits: int, full: bool) -> np.ndarray:
    """Inverse of `to_planes`: RGB in [0, 1], clipped."""
    unit, white = 2 ** (bits - 8), 2**bits - 1
    offset, luma_range, chroma_range = (0, white, white) if full else (16 * unit, 219 * unit, 224 * unit)
    luma = (planes[0] - float(offset)) / luma_range
    blue, red = (
        luma + (plane - 128.0 * unit) / chroma_range * 2 * (1 - weight)
        for plane, weight in zip(planes[1:], weights[::-1], strict=True)
    )
    green = (luma - weights[0] * red - weights[1] * blue) / (1 - sum(weights))
    return np.stack([red, green, blue], axis=-1).clip(0, 1)
