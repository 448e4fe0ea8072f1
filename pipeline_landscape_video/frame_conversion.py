"""Convert video frames to RGB and back with FFmpeg's filter graph.

What a decoded frame declares is honored: the place of chroma samples, matrix, range, transfer function, depth and
transparency. Frames are written as BT.709 or BT.2020 in limited range, with chroma on the left.
"""

import io
import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType

from .color_volumes import BT2020, HLG, PQ, WIDE_GAMUTS, HdrMetadata, to_bt709


UNSPECIFIED = 2  # color property of ITU-T H.273
FULL_RANGE, LIMITED_RANGE = 2, 1  # AVColorRange
# swscale's names of the matrices of ITU-T H.273.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
# Elements ChromaSitingHorz and ChromaSitingVert of Matroska, each of one byte, and their values by FFmpeg's names.
CHROMA_SITING = re.compile(rb"\x55\xb7\x81(.)\x55\xb8\x81(.)", re.DOTALL)
CHROMA_LOCATIONS = {(1, 2): "left", (2, 2): "center", (1, 1): "topleft", (2, 1): "top"}
# Bicubic, exact rounding, and chroma at full resolution on both sides. swscale's faster default darkens by 1 of 255
# levels or more, and drops every second chroma sample instead of averaging.
EXACT = "flags=bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"
# swscale converts 8-bit values to 16 bits by a shift, so that white is 255 * 256 in limited range.
SHIFTED_WHITE = 255 * 256
# What a frame may carry beside its pixels that is not written.
LOST_SIDE_DATA = {
    SideDataType.DYNAMIC_HDR_PLUS: "HDR10+ metadata",
    SideDataType.DOVI_RPU_BUFFER: "Dolby Vision metadata",
    SideDataType.DOVI_METADATA: "Dolby Vision metadata",
    SideDataType.DYNAMIC_HDR_VIVID: "HDR Vivid metadata",
    SideDataType.A53_CC: "closed captions",
    SideDataType.STEREO3D: "the arrangement of 3D video",
    SideDataType.SPHERICAL: "the projection of 360-degree video",
}

Filter = tuple[str, str]
"""Name of a filter and its options."""


def filter_graph(image: av.VideoFrame, filters: Sequence[Filter]) -> av.filter.Graph:
    """Build a chain of FFmpeg's filters for frames like `image`."""
    graph = av.filter.Graph()
    last = graph.add_buffer(width=image.width, height=image.height, format=image.format, time_base=Fraction(1, 1000))
    for name, options in (*filters, ("buffersink", "")):
        following = graph.add(name, options)
        last.link_to(following)
        last = following
    graph.configure()
    return graph


def pulled(graph: av.filter.Graph) -> Iterator[av.VideoFrame]:
    """Yield the frames that a graph has finished."""
    while True:
        try:
            yield graph.pull()
        except (av.BlockingIOError, av.EOFError):  # it needs more frames, or has returned the last one
            return


def lost_side_data(image: av.VideoFrame) -> tuple[str, ...]:
    """Names of what a frame carries that is not written."""
    found = (name for kind, name in LOST_SIDE_DATA.items() if image.side_data.get(kind) is not None)
    return tuple(dict.fromkeys(found))


class UnsupportedFrame(ValueError):
    """Raised for a frame that declares something that cannot be honored."""


class FrameConverter:
    """Converts the decoded frames of one file to upright RGB with square pixels; what is transparent is on white.

    Args:
        stream: Stream of the frames.
        as_stored: Keep the file's primaries and transfer function. By default, frames of high dynamic range and of
            wide gamuts become BT.709.
    """

    def __init__(self, stream: av.VideoStream, as_stored: bool = False) -> None:
        self._stream, self._as_stored = stream, as_stored
        self._properties: tuple | None = None  # of the frames that the graph is made for

    def convert(self, image: av.VideoFrame) -> np.ndarray:
        """Return a frame as (height, width, 3) RGB: uint16 if the file has more than 8 bits, else uint8.

        Raises:
            UnsupportedFrame: A matrix or a rotation.
        """
        properties = (
            image.format.name, image.width, image.height, int(image.colorspace), int(image.color_range),
            int(image.color_primaries), int(image.color_trc),
        )  # fmt: skip
        if properties != self._properties:
            self._properties = properties
            self._graph, self._white = self._build(image)
        self._graph.push(image)
        pixels = self._graph.pull().to_ndarray()
        if pixels.dtype == np.uint16 and self._white != 65535:
            pixels = np.rint(pixels * np.float32(65535 / self._white)).clip(0, 65535).astype(np.uint16)
        if image.format.name.startswith("gray") and image.color_range == LIMITED_RANGE:  # which swscale ignores
            white = np.iinfo(pixels.dtype).max
            levels = (pixels / np.float32(white) - 16 / 255) * (255 / 219)
            pixels = np.rint(levels.clip(0, 1) * white).astype(pixels.dtype)
        if not self._as_stored and has_wide_colors(image):
            volume = (image.color_primaries, image.color_trc, HdrMetadata.of(image).max_luminance)
            pixels[..., :3] = to_bt709(pixels[..., :3], *volume)
        if pixels.shape[2] == 4:
            pixels = on_white(pixels)
        return upright(pixels, image)

    def _build(self, image: av.VideoFrame) -> tuple[av.filter.Graph, int]:
        """Return the graph for frames like this one, and the value of white in its 16-bit output."""
        layout, full = image.format, is_full_range(image)
        deep = bit_depth(image) > 8 or (not self._as_stored and has_wide_colors(image))
        has_alpha = layout.name == "pal8" or any(component.is_alpha for component in layout.components)
        aspect = self._stream.sample_aspect_ratio or Fraction(1)
        width = round(image.width * aspect) if aspect > 1 else image.width
        height = round(image.height / aspect) if aspect < 1 else image.height
        scale, white = [f"w={width}:h={height}", EXACT, f"in_range={'full' if full else 'limited'}"], 65535
        if is_yuv(layout):
            location = chroma_location(self._stream, image)
            scale += [f"in_color_matrix={input_matrix(image)}", f"in_chroma_loc={location}"]
            bits = bit_depth(image)
            white = (2**bits - 1) << (16 - bits) if full else SHIFTED_WHITE
        elif layout.name.startswith("gray"):
            white = (2 ** bit_depth(image) - 1) << (16 - bit_depth(image))
        output = ("rgba64le" if has_alpha else "rgb48le") if deep else ("rgba" if has_alpha else "rgb24")
        filters = [("scale", ":".join(scale)), ("format", output)]
        return filter_graph(image, filters), white


class YuvConverter:
    """Converts RGB frames to YUV of limited range.

    Args:
        pixel_format: FFmpeg's name of the result, such as yuv420p or yuv420p10le.
        matrix: Name of the matrix in swscale, bt709 or bt2020.
    """

    def __init__(self, pixel_format: str, matrix: str) -> None:
        self._filters = [
            ("scale", f"out_color_matrix={matrix}:out_range=limited:in_range=full:out_chroma_loc=left:{EXACT}"),
            ("format", pixel_format),
        ]
        self._graph: av.filter.Graph | None = None

    def convert(self, pixels: np.ndarray) -> av.VideoFrame:
        """Convert (height, width, 3) RGB: uint8, or uint16 with white at `SHIFTED_WHITE`."""
        image = av.VideoFrame.from_ndarray(pixels, format="rgb24" if pixels.dtype == np.uint8 else "rgb48le")
        self._graph = self._graph or filter_graph(image, self._filters)
        self._graph.push(image)
        return self._graph.pull()


def is_yuv(layout: av.VideoFormat) -> bool:
    """Whether a pixel format has a luma and two chroma components."""
    # PyAV's `is_chroma` is False in 4:4:4.
    colors = [component for component in layout.components if not component.is_alpha]
    return len(colors) == 3 and not layout.is_rgb and not layout.name.startswith(("xyz", "bayer"))


def bit_depth(image: av.VideoFrame) -> int:
    """Bits of the deepest color component of a frame."""
    return max(component.bits for component in image.format.components if not component.is_alpha)


def is_full_range(image: av.VideoFrame) -> bool:
    """Whether black is 0 and white the largest value. Undeclared YUV is limited, everything else full."""
    if is_yuv(image.format) and not image.format.name.startswith("yuvj"):
        return image.color_range == FULL_RANGE
    return True


def has_wide_colors(image: av.VideoFrame) -> bool:
    """Whether a frame has high dynamic range or a gamut that is much wider than that of BT.709."""
    return image.color_trc in (PQ, HLG) or image.color_primaries in WIDE_GAMUTS


def input_matrix(image: av.VideoFrame) -> str:
    """Matrix of a YUV frame, as the filter `scale` names it. Raises `UnsupportedFrame` if swscale does not have it."""
    if image.colorspace in (0, UNSPECIFIED, 3):  # RGB, unspecified, reserved
        # What players do: BT.709 for high definition, else BT.601.
        return "bt709" if image.width >= 1280 or image.height > 576 else "bt601"
    if image.colorspace not in MATRICES:
        raise UnsupportedFrame(
            f"its colors use the matrix {int(image.colorspace)} of ITU-T H.273, which is not supported; convert it to "
            "BT.709."
        )
    return MATRICES[image.colorspace]


def matrix_for(primaries: int) -> tuple[int, str]:
    """Matrix that a file of these primaries is written with: its number in ITU-T H.273 and swscale's name."""
    return (9, "bt2020") if primaries == BT2020 else (1, "bt709")


def chroma_location(stream: av.VideoStream, image: av.VideoFrame) -> str:
    """Place of the chroma samples of a stream's frames, as the filter `scale` names it.

    An undeclared place is taken for centered in full range, as in JPEG, else for left, as in MPEG-2 and its
    successors. So is what cannot be read here: places at the bottom, and those of AV1.
    """
    return declared_chroma_location(stream) or ("center" if is_full_range(image) else "left")


def declared_chroma_location(stream: av.VideoStream) -> str | None:
    """Place of the chroma samples that a stream declares; None if it declares none.

    PyAV does not expose it, but FFmpeg writes it into the header of a Matroska file of the stream. FFmpeg's filter
    `showinfo` logs it too, but a decoding thread that logs waits for Python's lock, and its own closing may hold that.
    """
    header = io.BytesIO()
    try:
        with av.open(header, "w", format="matroska") as container:
            container.add_stream_from_template(stream)
            container.start_encoding()
    except (ValueError, av.FFmpegError):  # a codec that Matroska does not hold, or that PyAV only decodes
        return None
    found = CHROMA_SITING.search(header.getvalue())
    return found and CHROMA_LOCATIONS.get((found[1][0], found[2][0]))


def on_white(pixels: np.ndarray) -> np.ndarray:
    """Composite (height, width, 4) RGBA over white; the depth stays."""
    white = np.iinfo(pixels.dtype).max
    colors, alpha = pixels[..., :3].astype(np.float32), pixels[..., 3:].astype(np.float32) / white
    return np.rint(white + (colors - white) * alpha).astype(pixels.dtype)


def upright(pixels: np.ndarray, image: av.VideoFrame) -> np.ndarray:
    """Rotate and mirror pixels as the frame declares. Raises `UnsupportedFrame` if not by quarter turns."""
    matrix = image.side_data.get(SideDataType.DISPLAYMATRIX)
    if matrix is None:
        return pixels
    a, b, _, c, d = np.sign(np.frombuffer(matrix, dtype=np.int32)[:5])
    if (a and b) or (c and d):
        raise UnsupportedFrame(f"rotation must be a multiple of 90 degrees, got {image.rotation}.")
    if b:
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    return np.ascontiguousarray(pixels[:: d or 1, :: a or 1])
