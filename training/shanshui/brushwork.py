"""Brush, ink and paper: noise, painted canvases and how they are laid over each other.

Positions are in pixels of the picture, sizes in `unit` = min(height, width), so that a scene looks the same at any size.
Everything that does not change by itself is painted once on a `Canvas`, finer than the picture and periodic in x, and
moved by sub-pixel affine maps.
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


def premultiplied(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """(h, w, 4) float32 canvas of `colour` ((3,) or (h, w, 3), 0 to 1) with opacity `alpha` (h, w)."""
    out = np.empty((*alpha.shape, 4), np.float32)
    out[..., :3] = colour
    out[..., :3] *= alpha[..., None]
    out[..., 3] = alpha
    return out


def soften(canvas: np.ndarray, view: View) -> np.ndarray:
    """Blur by 0.45 picture pixels: what bilinear sampling needs to look the same at every sub-pixel position."""
    return cv2.GaussianBlur(canvas, (0, 0), 0.45 * view.oversample)


def sample(
    canvas: np.ndarray, inverse: np.ndarray, shape: tuple[int, int], wrap_rows: bool = False
) -> np.ndarray:
    """Look up a canvas that repeats in x at the pixels of a picture of `shape`.

    Args:
        canvas: (rows, columns[, channels]) float32.
        inverse: (2, 3) affine map from continuous picture coordinates to continuous canvas coordinates (both in
            their own pixels, the first pixel's centre at 0.5).
        shape: (rows, columns) of the result.
        wrap_rows: whether the canvas repeats in y as well; otherwise its first and last rows are continued.
    """
    rows, columns = shape
    corners = np.array([[0, 0, 1], [columns, 0, 1], [0, rows, 1], [columns, rows, 1]]) @ inverse.T
    (x0, y0), (x1, y1) = np.floor(corners.min(0)).astype(int) - 2, np.ceil(corners.max(0)).astype(int) + 2
    if y0 < 0 or y1 > canvas.shape[0]:
        index = np.arange(y0, y1)
        canvas = canvas[index % canvas.shape[0] if wrap_rows else index.clip(0, canvas.shape[0] - 1)]
    else:
        canvas = canvas[y0:y1]
    x1 -= canvas.shape[1] * (x0 // canvas.shape[1])
    start = x0 % canvas.shape[1]
    if x1 > canvas.shape[1]:
        canvas = canvas[:, np.arange(start, x1) % canvas.shape[1]]
    else:
        canvas = canvas[:, start:x1]
    matrix = inverse.copy()
    matrix[:, 2] += matrix[:, :2].sum(1) * 0.5 - 0.5 - (x0, y0)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(canvas, matrix, (columns, rows), flags=flags, borderMode=cv2.BORDER_REPLICATE)


def lay_over(picture: np.ndarray, paint: np.ndarray, strength: float = 1.0) -> None:
    """Lay premultiplied `paint` (h, w, 4) over `picture` (h, w, 3), in place."""
    if strength != 1.0:
        paint = paint * np.float32(strength)
    picture *= 1 - paint[..., 3:]
    picture += paint[..., :3]


@dataclass(frozen=True)
class Sprite:
    """A small painted thing: premultiplied `paint` (h, w, 4), its `anchor` (x, y) and canvas pixels per picture pixel."""

    paint: np.ndarray
    anchor: tuple[float, float]
    scale: float

    def place(
        self, picture: np.ndarray, x: float, y: float, size: float = 1.0, shear: float = 0.0, angle: float = 0.0
    ) -> None:
        """Paint it with its anchor at (x, y), `size` times as large, leaning by `shear` and turned by `angle` radians."""
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
