"""Brush, ink and paper: noise, painted canvases and how they are laid over each other.

Positions are in pixels of the picture, sizes in units of min(height, width), so that a scene looks the same at any
size. Everything that does not change by itself is painted once on a `Canvas`, finer than the picture and periodic in
x, and moved by sub-pixel affine maps.
"""

import math
import zlib
from dataclasses import dataclass

import cv2
import numpy as np


@dataclass(frozen=True)
class View:
    """Size of the picture and of the canvases painted for it."""

    height: int
    width: int

    @property
    def unit(self) -> float:
        return float(min(self.height, self.width))

    @property
    def oversample(self) -> float:
        """Canvas pixels per picture pixel: small pictures need more, or sub-pixel motion changes their sharpness."""
        return 2.0 if self.unit <= 160 else 1.5 if self.unit <= 320 else 1.0

    @property
    def detail(self) -> int:
        """Octaves of detail more than a picture of 128 pixels has: one each time its size doubles."""
        return max(round(math.log2(self.unit / 128)), 0)

    @property
    def columns(self) -> int:
        """Canvas columns, about two pictures; a multiple of 64, so that noise of 2**k cells closes without a seam."""
        return 64 * math.ceil(2 * self.width * self.oversample / 64)

    @property
    def rows(self) -> int:
        """Canvas rows: the picture and a tenth below, which a camera that draws away uncovers."""
        return math.ceil(1.1 * self.height * self.oversample)

    @property
    def x(self) -> np.ndarray:
        """(1, columns) picture x of the canvas pixels' centres."""
        return ((np.arange(self.columns, dtype=np.float32) + 0.5) / self.oversample)[None]

    @property
    def y(self) -> np.ndarray:
        """(rows, 1) picture y of the canvas pixels' centres."""
        return ((np.arange(self.rows, dtype=np.float32) + 0.5) / self.oversample)[:, None]

    @property
    def period(self) -> float:
        """Width in picture pixels after which a canvas repeats."""
        return self.columns / self.oversample


def generator(seed: int, *names: str | int) -> np.random.Generator:
    """A stream of random numbers of its own for each named part, so that one part never shifts another's."""
    return np.random.default_rng([seed, *(zlib.crc32(str(name).encode()) for name in names)])


def smoothstep(low: float, high: float, values: np.ndarray) -> np.ndarray:
    ramp = np.clip((values - low) / (high - low), 0, 1)
    return ramp * ramp * (3 - 2 * ramp)


def noise(
    rng: np.random.Generator,
    shape: tuple[int, int],
    cells: tuple[float, float],
    octaves: int = 1,
    gain: float = 0.5,
    periodic: bool = True,
) -> np.ndarray:
    """Fractal value noise, about -1 to 1.

    Args:
        rng: source of randomness.
        shape: (rows, columns) of the result; a periodic one needs columns that are a multiple of 64.
        cells: (vertical, horizontal) cells of the first octave; the horizontal count of a periodic one is rounded to
            a power of two.
        octaves: number of octaves, each twice as fine; those finer than two pixels are drawn but left out.
        gain: amplitude of an octave relative to the one before.
        periodic: whether the right edge continues at the left.
    """
    rows, columns = shape
    across = 2 ** round(math.log2(max(cells[1], 4))) if periodic else max(int(round(cells[1])), 2)
    down = max(int(round(cells[0])), 1)
    total = np.zeros(shape, np.float32)
    amplitude = 1.0
    for _ in range(octaves):
        grid = rng.uniform(-1, 1, (down + 1, across)).astype(np.float32)
        if across * 2 <= columns and (down * 2 <= rows or rows == 1):
            if periodic:
                grid = np.concatenate([grid[:, -2:], grid, grid[:, :2]], axis=1)
                margin = 2 * columns // across
            else:
                margin = 0
            grid = grid[:1] if rows == 1 else grid
            wide = cv2.resize(grid, (columns + 2 * margin, rows), interpolation=cv2.INTER_CUBIC)
            total += amplitude * wide[:, margin : margin + columns]
        amplitude *= gain
        across, down = across * 2, down * 2
    return total


def mix(first: np.ndarray, second: np.ndarray, share: np.ndarray | float) -> np.ndarray:
    """(3, h, w) planes from `first` to `second` ((3,) colours or such planes) by `share` (h, w) of the second."""
    first, second = (colour.reshape(3, 1, 1) if colour.ndim == 1 else colour for colour in (first, second))
    return first + (second - first) * share


def premultiplied(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(h, w, 4) float32 paint of `colour` ((3,) or planes (3, h, w), 0 to 1) with opacity `alpha` (h, w)."""
    alpha = alpha.astype(np.float32)
    return cv2.merge([*(plane * alpha for plane in colour.astype(np.float32)), alpha])


def soften(canvas: np.ndarray, view: View) -> np.ndarray:
    """Blur by 0.45 picture pixels: what bilinear sampling needs to look the same at every sub-pixel position."""
    return cv2.GaussianBlur(canvas, (0, 0), 0.45 * view.oversample)


class Canvas:
    """Paint that repeats in x and is laid over the picture through an affine map.

    Args:
        paint: (rows, columns, 4) float32, premultiplied.
        view: the picture it is for.
    """

    def __init__(self, paint: np.ndarray, view: View) -> None:
        painted = np.flatnonzero(paint[..., 3].max(1) > 1e-3)
        self.first, self.last = (int(painted[0]), int(painted[-1]) + 1) if len(painted) else (0, 1)
        self.columns = paint.shape[1]
        beyond = np.arange(self.columns + math.ceil(1.8 * view.width * view.oversample) + 8) % self.columns
        self.paint = np.take(paint[self.first : self.last], beyond, axis=1)
        # A canvas painted down to its lower edge goes on below it, mirrored; one that ends in the air does not.
        self.endless = self.last == paint.shape[0]
        if self.endless:
            further = min(math.ceil(0.2 * view.height * view.oversample), len(self.paint) - 1)
            self.paint = np.pad(self.paint, ((0, further), (0, 0), (0, 0)), "reflect")

    def sample(self, inverse: np.ndarray, shape: tuple[int, int]) -> tuple[int, np.ndarray]:
        """Look the canvas up at the pixels of a picture of `shape`, from the first row that it reaches.

        Args:
            inverse: (2, 3) affine map from the picture to the canvas, x and y in each one's own pixels, the middle of
                the first pixel at 0.5. Canvas rows may not depend on picture columns.
            shape: (rows, columns) of the picture.

        Returns:
            The first row, and (rows from there on, columns, 4) premultiplied paint.
        """
        rows, columns = shape
        top = min(max(math.floor((self.first - inverse[1, 2]) / inverse[1, 1]) - 1, 0), rows)
        if not self.endless:
            rows = min(max(math.ceil((self.last - inverse[1, 2]) / inverse[1, 1]) + 1, top), rows)
        if top == rows:
            return top, np.zeros((0, columns, 4), np.float32)
        matrix = inverse.copy()
        matrix[:, 2] += matrix @ (0.5, top + 0.5, 0) - (0.5, 0.5 + self.first)
        ends = matrix[0, 2] + matrix[0, 1] * np.array([0, rows - top])
        turns = math.floor((ends.min() - 2) / self.columns) * self.columns
        matrix[0, 2] -= turns
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        size = (columns, rows - top)
        paint = cv2.warpAffine(self.paint, matrix, size, flags=flags, borderMode=cv2.BORDER_REPLICATE)
        return top, paint

    def lay(self, picture: np.ndarray, inverse: np.ndarray, strength: np.ndarray | None = None) -> None:
        """Lay it over `picture` (h, w, 3), in place; `strength` (h,) thins it row by row."""
        top, paint = self.sample(inverse, picture.shape[:2])
        if strength is not None:
            paint *= strength[top : top + len(paint), None, None]
        if len(paint):
            lay_over(picture[top : top + len(paint)], paint)


def lay_over(picture: np.ndarray, paint: np.ndarray) -> None:
    """Lay premultiplied `paint` (h, w, 4) over `picture` (h, w, 3), in place."""
    bare = cv2.cvtColor(1 - cv2.extractChannel(paint, 3), cv2.COLOR_GRAY2RGB)
    picture[...] = cv2.add(cv2.multiply(picture, bare), cv2.cvtColor(paint, cv2.COLOR_RGBA2RGB))


def tint(picture: np.ndarray, colour: np.ndarray, alpha: np.ndarray) -> None:
    """Lay `colour` ((3,) or planes (3, h, w)) with opacity `alpha` (h, w) over `picture` (h, w, 3), in place."""
    if alpha.size:
        lay_over(picture, premultiplied(colour, alpha))


@dataclass(frozen=True)
class Sprite:
    """A small painted thing.

    Attributes:
        paint: (h, w, 4) float32, premultiplied.
        anchor: (x, y) in it, the point that is placed.
        scale: its pixels per picture pixel.
    """

    paint: np.ndarray
    anchor: tuple[float, float]
    scale: float

    def place(
        self, picture: np.ndarray, x: float, y: float, size: float = 1.0, shear: float = 0.0, angle: float = 0.0
    ) -> None:
        """Paint it with its anchor at (x, y), `size` times as large, leaning by `shear`, turned by `angle` radians."""
        factor = size / self.scale
        cosine, sine = factor * math.cos(angle), factor * math.sin(angle)
        forward = np.array([[cosine, -sine - factor * shear], [sine, cosine]])
        offset = np.array([x, y]) - forward @ self.anchor
        rows, columns = self.paint.shape[:2]
        corners = np.array([[0, 0], [columns, 0], [0, rows], [columns, rows]]) @ forward.T + offset
        left, top = np.maximum(np.floor(corners.min(0)).astype(int) - 1, 0)
        right, bottom = np.minimum(np.ceil(corners.max(0)).astype(int) + 1, picture.shape[1::-1])
        if left >= right or top >= bottom:
            return
        matrix = np.concatenate([forward, (offset - (left, top) + forward @ (0.5, 0.5) - 0.5)[:, None]], axis=1)
        paint = cv2.warpAffine(self.paint, matrix, (int(right - left), int(bottom - top)), flags=cv2.INTER_LINEAR)
        lay_over(picture[top:bottom, left:right], paint)
