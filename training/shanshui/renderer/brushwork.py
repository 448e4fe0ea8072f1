"""Ink, brush, paper and the five palettes: noise, rasterized shapes, canvases and sprites.

Positions are in pixels of the image. Lengths are in units, 1 unit being min(height, width), so that a scene looks the
same at any size. What does not change by itself is drawn once, on a `Canvas` or a `Sprite` finer than the image, and
moved by affine maps with sub-pixel precision.
"""

import math
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np


def rgb(text: str) -> np.ndarray:
    """Return the color "rrggbb" as (3,) float32 from 0 to 1."""
    return np.array([int(text[i : i + 2], 16) for i in (0, 2, 4)], np.float32) / 255


class Palette(NamedTuple):
    """Colors, each (3,) float32 RGB from 0 to 1.

    A mountain goes from `ridge` at its edge over `slope` to `mist` at its foot; distance mixes in `far`.
    """

    paper: np.ndarray  # the sheet, and the sky near the mountains
    sky: np.ndarray  # the top of the sky
    mist: np.ndarray  # what mountains fade into at their feet
    cloud: np.ndarray  # drifting mist
    far: np.ndarray
    ridge: np.ndarray
    slope: np.ndarray
    line: np.ndarray  # contours, boats, trees and birds
    water: np.ndarray  # deep water
    foliage: np.ndarray
    blossom: np.ndarray


_CODES = {
    "ink": "ece3cf ddd2bb efe7d6 f9f6ef a9a49a 26262a 5b5955 17171a b9b2a2 2a2b2b b56a72",
    "blue_green": "e6d2a4 d3b67c eadbb2 f8f2e2 7fb0a4 12567e 2f9a72 1c2f3c 86b5a8 1d6b52 e58a94",
    "autumn": "f1d7a8 e6bd80 f5e0b8 fdf5e4 d3a06a 7e2f14 c8682a 3c1c12 dcae74 c23f17 d9371f",
    "snow": "a3afbc 7c8b9d c9d2da 8d9bab c2ccd5 fbfcfd f0f4f7 252d3a 6a7d92 3f4c5a c25b6e",
    "dawn": "f6c9b4 c79ac0 f9d6c6 fff0ea d9a3b4 59366e 9c6796 3a2450 d9a2ae 57406b d43a72",
}
COLORS = {name: Palette(*map(rgb, codes.split())) for name, codes in _CODES.items()}


class View:
    """Size of the image and of the canvases drawn for it.

    Attributes:
        height: Height of the image in pixels.
        width: Width of the image in pixels.
        consistent: Whether finer textures leave the coarser ones as they are in an image of 128 pixels.
        unit: Pixels in a unit.
        oversample: Canvas pixels per image pixel. Small images need more: with few, the sharpness of a canvas would
            change as it moves by fractions of a pixel.
        detail: Octaves of detail beyond those of an image of 128 pixels, one for each doubling of the size.
        columns: Canvas columns, about two image widths; a multiple of 64, so that noise of 2**k cells has no seam.
        rows: Canvas rows: the image and a tenth below it, which comes into view when the camera moves away.
        x: (1, columns) float32, image x of the centers of the canvas pixels.
        y: (rows, 1) float32, image y of the centers of the canvas pixels.
        period: Width in image pixels after which a canvas repeats.
    """

    def __init__(self, height: int, width: int, consistent: bool = False) -> None:
        self.height, self.width, self.consistent = height, width, consistent
        self.unit = float(min(height, width))
        self.oversample = 2.0 if self.unit <= 160 else 1.5 if self.unit <= 320 else 1.0
        self.detail = max(round(math.log2(self.unit / 128)), 0)
        self.columns = 64 * math.ceil(2 * width * self.oversample / 64)
        self.rows = math.ceil(1.1 * height * self.oversample)
        self.x = ((np.arange(self.columns, dtype=np.float32) + 0.5) / self.oversample)[None]
        self.y = ((np.arange(self.rows, dtype=np.float32) + 0.5) / self.oversample)[:, None]
        self.period = self.columns / self.oversample

    def details(self, rng: np.random.Generator) -> list[np.random.Generator]:
        """Return the source of each octave of detail."""
        return rng.spawn(self.detail) if self.consistent else [rng] * self.detail

    def canvas_noise(
        self, rng: np.random.Generator, down: float, across: float, octaves: int, gain: float = 0.5
    ) -> np.ndarray:
        """Noise over a canvas, (rows, columns), with `down` and `across` cells per unit in its first octave.

        Octaves of detail are added to `octaves`.
        """
        cells = (down * self.rows / self.oversample / self.unit, across * self.period / self.unit)
        return noise(rng, (self.rows, self.columns), cells, octaves, gain, details=self.details(rng))

    def line_noise(
        self, rng: np.random.Generator, across: float, octaves: int, gain: float = 0.5, detailed: bool = True
    ) -> np.ndarray:
        """Noise along a skyline, (columns,), with `across` cells per unit in its first octave.

        If `detailed`, octaves of detail are added to `octaves`.
        """
        details = self.details(rng) if detailed else ()
        cells = (1, across * self.period / self.unit)
        return noise(rng, (1, self.columns), cells, octaves, gain, details=details)[0]


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """Return an independent stream of random numbers for a named part, so that parts never shift each other's."""
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


def smoothstep(low: float, high: float, values: np.ndarray) -> np.ndarray:
    """Cubic ramp from 0 at `low` to 1 at `high`."""
    ramp = np.clip((values - low) / (high - low), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cells: tuple[float, float],
    octaves: int = 1,
    gain: float = 0.5,
    periodic: bool = True,
    details: Sequence[np.random.Generator] = (),
) -> np.ndarray:
    """Fractal value noise, float32, about -1 to 1.

    Args:
        rng: Source of randomness.
        shape: (rows, columns) of the result; periodic noise needs columns that are a multiple of 64.
        cells: (vertical, horizontal) cells of the first octave; the horizontal count of periodic noise is rounded to a
            power of two.
        octaves: Number of octaves, each twice as fine. Octaves finer than two pixels consume random numbers, but are
            left out.
        gain: Amplitude of an octave relative to the one before.
        periodic: Whether the right edge continues at the left.
        details: Sources of randomness of octaves after those.
    """
    rows, columns = shape
    across = 2 ** round(math.log2(max(cells[1], 4))) if periodic else max(int(round(cells[1])), 2)
    down = max(int(round(cells[0])), 1)
    total = np.zeros(shape, np.float32)
    amplitude = 1.0
    for source in (*[rng] * octaves, *details):
        grid = source.uniform(-1, 1, (down + 1, across)).astype(np.float32)
        if across * 2 <= columns and (down * 2 <= rows or rows == 1):
            margin = 2 * columns // across if periodic else 0  # two cells, for the cubic kernel to see past the edge
            if periodic:
                grid = np.pad(grid, ((0, 0), (2, 2)), "wrap")
            size = (columns + 2 * margin, rows)
            wide = cv2.resize(grid[:1] if rows == 1 else grid, size, interpolation=cv2.INTER_CUBIC)
            total += amplitude * wide[:, margin : margin + columns]
        amplitude *= gain
        across, down = across * 2, down * 2
    return total


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """Return planes (3, h, w) between two colors (3,) or planes, with a `share` (h, w) of the second."""
    first, second = (color.reshape(3, 1, 1) if color.ndim == 1 else color for color in (first, second))
    return first + (second - first) * share


def premultiplied(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return premultiplied RGBA, (h, w, 4) float32, of a color (3,) or planes (3, h, w) and `alpha` (h, w)."""
    alpha = alpha.astype(np.float32)
    return cv2.merge([*(plane * alpha for plane in color.astype(np.float32)), alpha])


def soften(pixels: np.ndarray, view: View) -> np.ndarray:
    """Blur by 0.45 image pixels, so that bilinear sampling looks the same at every sub-pixel position."""
    return cv2.GaussianBlur(pixels, (0, 0), 0.45 * view.oversample)


def rasterize(
    shapes: Iterable[np.ndarray], size: tuple[int, int], finer: int, width: float | None = None
) -> np.ndarray:
    """Return the coverage, (h, w) uint8, of polygons or lines, each (points, 2) in pixels.

    Args:
        shapes: Points (x, y) of each shape.
        size: (h, w).
        finer: Samples per pixel in each direction.
        width: Draw lines of this width in pixels; None fills polygons.
    """
    sheet = np.zeros((size[0] * finer, size[1] * finer), np.uint8)
    for shape in shapes:
        points = [np.round((shape * finer - 0.5) * 16).astype(np.int32)]  # fixed point with 4 fractional bits
        if width is None:
            cv2.fillPoly(sheet, points, 255, cv2.LINE_8, 4)
        else:
            cv2.polylines(sheet, points, False, 255, max(round(width * finer), 1), cv2.LINE_8, 4)
    return cv2.resize(sheet, size[::-1], interpolation=cv2.INTER_AREA)


def blend(image: np.ndarray, pixels: np.ndarray) -> None:
    """Blend premultiplied RGBA `pixels` (h, w, 4) over `image` (h, w, 3), in place."""
    behind = cv2.cvtColor(1 - cv2.extractChannel(pixels, 3), cv2.COLOR_GRAY2RGB)
    image[...] = cv2.add(cv2.multiply(image, behind), cv2.cvtColor(pixels, cv2.COLOR_RGBA2RGB))


def tint(image: np.ndarray, color: np.ndarray, alpha: np.ndarray) -> None:
    """Blend a color (3,) or planes (3, h, w) with opacity `alpha` (h, w) over `image` (h, w, 3), in place."""
    if alpha.size:
        blend(image, premultiplied(color, alpha))


class Canvas:
    """A texture that repeats in x and is drawn into the image through an affine map.

    Args:
        pixels: (rows, columns, 4) float32, premultiplied RGBA.
        view: Image that it is for.
    """

    def __init__(self, pixels: np.ndarray, view: View) -> None:
        drawn = np.flatnonzero(pixels[..., 3].max(1) > 1e-3)
        self.first, self.last = (int(drawn[0]), int(drawn[-1]) + 1) if len(drawn) else (0, 1)
        self.columns = pixels.shape[1]
        beyond = np.arange(self.columns + math.ceil(1.8 * view.width * view.oversample) + 8) % self.columns
        self.pixels = np.take(pixels[self.first : self.last], beyond, axis=1)
        # A canvas that is drawn to its lower edge continues below it, mirrored; one that ends in the air does not.
        self.endless = self.last == pixels.shape[0]
        if self.endless:
            further = min(math.ceil(0.2 * view.height * view.oversample), len(self.pixels) - 1)
            self.pixels = np.pad(self.pixels, ((0, further), (0, 0), (0, 0)), "reflect")

    def sample(self, inverse: np.ndarray, shape: tuple[int, int]) -> tuple[int, np.ndarray]:
        """Sample the canvas at the pixels of an image, from the first image row that it reaches.

        Args:
            inverse: (2, 3) affine map from image to canvas pixels (x, y), with the center of the first pixel at 0.5.
                Canvas rows must not depend on image columns.
            shape: (rows, columns) of the image.

        Returns:
            The first row, and (rows from there on, columns, 4) premultiplied RGBA.
        """
        rows, columns = shape
        top = min(max(math.floor((self.first - inverse[1, 2]) / inverse[1, 1]) - 1, 0), rows)
        if not self.endless:
            rows = min(max(math.ceil((self.last - inverse[1, 2]) / inverse[1, 1]) + 1, top), rows)
        if top == rows:
            return top, np.zeros((0, columns, 4), np.float32)
        matrix = inverse.copy()
        matrix[:, 2] += matrix @ (0.5, top + 0.5, 0) - (0.5, 0.5 + self.first)
        # The image must look at columns that exist: shift it left by whole periods.
        ends = matrix[0, 2] + matrix[0, 1] * np.array([0, rows - top])
        matrix[0, 2] -= math.floor((ends.min() - 2) / self.columns) * self.columns
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (columns, rows - top)
        return top, cv2.warpAffine(self.pixels, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)

    def draw(self, image: np.ndarray, inverse: np.ndarray, strength: np.ndarray | None = None) -> None:
        """Blend it over `image` (h, w, 3), in place; `strength` (h,) scales its opacity row by row."""
        top, pixels = self.sample(inverse, image.shape[:2])
        if strength is not None:
            pixels *= strength[top : top + len(pixels), None, None]
        if len(pixels):
            blend(image[top : top + len(pixels)], pixels)


@dataclass(frozen=True)
class Sprite:
    """A small drawing that is placed in the image.

    Attributes:
        pixels: (h, w, 4) float32, premultiplied RGBA.
        anchor: Point (x, y) in it that is placed.
        scale: Its pixels per image pixel.
    """

    pixels: np.ndarray
    anchor: tuple[float, float]
    scale: float

    def pose(self, x: float, y: float, size=1.0, shear=0.0, angle=0.0) -> np.ndarray:
        """Return the (2, 3) affine map to the image: anchor to (x, y), scaled, sheared, turned by `angle` radians."""
        factor = size / self.scale
        cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
        forward = np.array([[cosine, -sine - factor * shear], [sine, cosine]])
        return np.column_stack([forward, np.array([x, y]) - forward @ self.anchor])

    def draw(self, image: np.ndarray, pose: np.ndarray) -> None:
        """Blend it over `image` (h, w, 3), in place, where `pose` maps it."""
        forward, offset = np.ascontiguousarray(pose[:, :2]), pose[:, 2]
        rows, columns = self.pixels.shape[:2]
        corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]]) @ forward.T + offset
        left, top = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
        right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, image.shape[1::-1])
        if left >= right or top >= bottom:
            return
        matrix = np.concatenate([forward, (offset - (left, top) + forward @ (0.5, 0.5) - 0.5)[:, None]], axis=1)
        pixels = cv2.warpAffine(self.pixels, matrix, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
        blend(image[top:bottom, left:right], pixels)
