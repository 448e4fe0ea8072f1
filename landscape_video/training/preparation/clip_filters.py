"""What makes a stretch of video unfit for training: each measure has its threshold, each refusal its reason.

Measures work on a few grey pictures of the stretch, `samples`, uint8 (num_samples, height, width), in the order of
time, with a shorter side of at most `SHORT_SIDE` pixels.
"""

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import imagehash
import numpy as np
from PIL import Image

from landscape_video.scene_cuts import shrink


SHORT_SIDE = 288  # pixels; what is left of a subtitle's strokes in 1080 lines
DARK = 24  # levels; the black of television is 16
HASHED = (0.0, 0.5, 1.0)  # where in a stretch its perceptual hashes are taken


@dataclass(frozen=True)
class Thresholds:
    """Where a stretch stops being fit.

    Attributes:
        min_seconds: it lasts at least so long.
        min_size: its picture, without black bars, has at least so many pixels on its shorter side.
        min_motion: at its most different, it differs from its first picture by so many of 255 levels, on average over
            pixels (at 64 pixels on the shorter side, where grain and compression average out).
        min_brightness: its brightest 5 % of pixels reach this level in half of its pictures.
        max_bars: share of the height or width that black bars may take.
        max_border_text: share of a small window at the border that may be sharp and stand still while the picture
            moves, as captions, logos and clocks do (0.8 and more in rendered clips; a painter's seal that the camera
            does not move gets to 0.3). Where nothing moves they cannot be told from a painting's own inscriptions, and
            are let pass.
    """

    min_seconds: float = 2.0
    min_size: int = 256
    min_motion: float = 0.8
    min_brightness: float = 48.0
    max_bars: float = 0.02
    max_border_text: float = 0.45


class Bars(NamedTuple):
    """Shares of the height (top, bottom) and width (left, right) that are black."""

    top: float
    bottom: float
    left: float
    right: float


def reasons(
    seconds: float, height: int, width: int, samples: np.ndarray, bars: Bars, crop_bars: bool, limits: Thresholds
) -> list[str]:
    """Why a stretch of so many seconds and pixels is refused; an empty list if it is not."""
    found = []
    if seconds < limits.min_seconds - 5e-4:  # containers round to milliseconds
        found.append(f"too short: {seconds:.2f} s, less than {limits.min_seconds:g} s")
    size = min(height, width)
    if size < limits.min_size:
        found.append(f"too small: {width} x {height} pixels, less than {limits.min_size} on the shorter side")
    if (value := brightness(samples)) < limits.min_brightness:
        return [*found, f"black: brightness {value:.0f}, less than {limits.min_brightness:g}"]  # the rest is noise
    if (value := motion(samples)) < limits.min_motion:
        found.append(f"still: motion {value:.2f}, less than {limits.min_motion:g}")
    if (value := max(bars.top + bars.bottom, bars.left + bars.right)) > limits.max_bars and not crop_bars:
        found.append(f"letterboxed: bars of {value:.1%}, more than {limits.max_bars:.1%}")
    if (value := border_text(samples)) > limits.max_border_text:
        found.append(f"watermarked or subtitled: border text {value:.2f}, more than {limits.max_border_text:g}")
    return found


def brightness(samples: np.ndarray) -> float:
    """The level that the brightest 5 % of pixels reach, median over the pictures."""
    return float(np.median([np.percentile(sample, 95) for sample in samples]))


def motion(samples: np.ndarray) -> float:
    """The largest mean difference between the first picture and another, in levels of 255."""
    small = [shrink(sample, 64).astype(np.float32) for sample in samples]
    return max(float(np.abs(picture - small[0]).mean()) for picture in small)


def black_bars(samples: np.ndarray) -> Bars:
    """Rows and columns that are black from one end to the other, in all pictures, counted from the borders.

    Bars come in pairs: a painting that is dark at one border only is no letterbox.
    """
    brightest = samples.max(axis=0)
    shares = []
    for rows in (brightest, brightest.T):
        # A few bright pixels are compression at the edge of the bar, or a logo in it.
        lit = np.flatnonzero(np.percentile(rows, 98, axis=1) > DARK)
        if len(lit) == 0:
            return Bars(0.0, 0.0, 0.0, 0.0)  # black altogether
        before, after = int(lit[0]), len(rows) - 1 - int(lit[-1])
        shares += [before / len(rows), after / len(rows)] if before and after else [0.0, 0.0]
    return Bars(*shares)


def border_text(samples: np.ndarray) -> float:
    """The share of the fullest window at the border that is sharp and stands still while the picture moves, exceeded
    in a quarter of the pairs of neighbouring pictures."""
    height, width = samples.shape[1:]
    window = (max(3, width // 8), max(3, height // 14))
    inner = np.zeros((height, width), bool)
    inner[height // 4 : -(height // 4), width // 4 : -(width // 4)] = True
    kernel = np.ones((3, 3), np.uint8)
    scores = []
    for before, after in zip(samples, samples[1:], strict=False):
        sharp = (
            np.minimum(*(cv2.morphologyEx(picture, cv2.MORPH_GRADIENT, kernel) for picture in (before, after))) > 80
        )
        stands = sharp & (cv2.absdiff(before, after) <= 12)
        textured = cv2.morphologyEx(before, cv2.MORPH_GRADIENT, kernel)[inner] > 12
        moved = cv2.absdiff(before, after)[inner][textured] > 3
        if textured.mean() < 0.01 or moved.mean() < 0.5:  # what has edges inside stands still, too, or there is none
            scores.append(0.0)
            continue
        density = cv2.blur(stands.astype(np.float32), window)
        scores.append(float(density[~inner].max()))
    return float(np.percentile(scores, 75)) if scores else 0.0


def perceptual_hashes(pictures: list[np.ndarray]) -> list[str]:
    """pHash of the first, the middle and the last picture, RGB or grey, 64 bits each, as hexadecimal numbers."""
    chosen = [pictures[round(place * (len(pictures) - 1))] for place in HASHED]
    return [str(imagehash.phash(Image.fromarray(picture))) for picture in chosen]


def hash_distances(hashes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Mean number of differing bits of a hash: `hashes` (clips, 3) against `other` (3,), uint64."""
    return np.bitwise_count(hashes ^ other).mean(axis=1)
