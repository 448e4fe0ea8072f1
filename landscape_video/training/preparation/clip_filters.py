"""Measure stretches of video and name what makes them unfit for training.

Measures work on a few gray frames of the stretch, `samples`, uint8 (num_samples, height, width) in order of time, with
at most `SHORT_SIDE` pixels on the shorter side.
"""

from typing import NamedTuple

import cv2
import numpy as np
from PIL import Image

from landscape_video.training.settings.preparation import FilterSettings
from pipeline_landscape_video.repeated_frames import shrink


SHORT_SIDE = 288  # pixels; enough to keep a subtitle's strokes in 1080 lines
DARK = 24  # levels of 255; television's black is 16
HASHED = (0.0, 0.5, 1.0)  # positions in a stretch at which it is hashed


class Bars(NamedTuple):
    """Shares of the height (top, bottom) and width (left, right) that are black."""

    top: float = 0.0
    bottom: float = 0.0
    left: float = 0.0
    right: float = 0.0


def find_faults(
    seconds: float, size: tuple[int, int], samples: np.ndarray, bars: Bars, limits: FilterSettings
) -> list[str]:
    """Reasons to reject a stretch, each with the measured value; an empty list for a good one.

    Args:
        seconds: Duration.
        size: Height and width of what a clip would show, in pixels.
        samples: Frames to measure.
        bars: Black bars that would remain in the clip.
        limits: Thresholds.
    """
    height, width = size
    found = []
    if seconds < limits.min_seconds - 5e-4:  # containers round to milliseconds
        found.append(f"too short: {seconds:.2f} s, less than {limits.min_seconds:g} s")
    if min(size) < limits.min_size:
        found.append(f"too small: {width} x {height} pixels, less than {limits.min_size} on the shorter side")
    if (value := brightness(samples)) < limits.min_brightness:
        # What else is measured in the dark is noise.
        return [*found, f"black: brightness {value:.0f}, less than {limits.min_brightness:g}"]
    if (value := motion(samples)) < limits.min_motion:
        found.append(f"still: motion {value:.2f}, less than {limits.min_motion:g}")
    if (value := max(bars.top + bars.bottom, bars.left + bars.right)) > limits.max_bars:
        found.append(f"letterboxed: bars of {value:.1%}, more than {limits.max_bars:.1%}")
    if (value := border_text(samples)) > limits.max_border_text:
        found.append(f"watermarked or subtitled: border text {value:.2f}, more than {limits.max_border_text:g}")
    return found


def brightness(samples: np.ndarray) -> float:
    """Level that the brightest 5 % of pixels reach, median over the frames."""
    return float(np.median([np.percentile(sample, 95) for sample in samples]))


def motion(samples: np.ndarray) -> float:
    """Largest mean difference of a frame from the first one, in levels of 255."""
    small = [shrink(sample, 64).astype(np.float32) for sample in samples]
    return max(float(np.abs(frame - small[0]).mean()) for frame in small)


def black_bars(samples: np.ndarray) -> Bars:
    """Measure rows and columns at the borders that are black from end to end in all frames.

    Bars come in pairs: a painting that is dark at one border only is not letterboxed.
    """
    brightest = samples.max(axis=0)
    shares = []
    for rows in (brightest, brightest.T):
        # A few bright pixels are compression at the edge of the bar, or a logo in it.
        lit = np.flatnonzero(np.percentile(rows, 98, axis=1) > DARK)
        if len(lit) == 0:
            return Bars()  # black altogether
        before, after = int(lit[0]), len(rows) - 1 - int(lit[-1])
        shares += [before / len(rows), after / len(rows)] if before and after else [0.0, 0.0]
    return Bars(*shares)


def border_text(samples: np.ndarray) -> float:
    """Share of the fullest window at the border that is sharp and does not move while the image does.

    Captions, logos and clocks do. Of all pairs of neighboring frames, a quarter exceeds the returned value.
    """
    height, width = samples.shape[1:]
    window = (max(3, width // 8), max(3, height // 14))
    inner = np.zeros((height, width), bool)
    inner[height // 4 : -(height // 4), width // 4 : -(width // 4)] = True
    kernel = np.ones((3, 3), np.uint8)
    scores = []
    for before, after in zip(samples, samples[1:], strict=False):
        gradients = [cv2.morphologyEx(frame, cv2.MORPH_GRADIENT, kernel) for frame in (before, after)]
        sharp = np.minimum(*gradients) > 80
        stands = sharp & (cv2.absdiff(before, after) <= 12)
        textured = gradients[0][inner] > 12
        moved = cv2.absdiff(before, after)[inner][textured] > 3
        if textured.mean() < 0.01 or moved.mean() < 0.5:  # the inner image is flat or does not move
            scores.append(0.0)
            continue
        density = cv2.blur(stands.astype(np.float32), window)
        scores.append(float(density[~inner].max()))
    return float(np.percentile(scores, 75)) if scores else 0.0


def perceptual_hashes(images: list[np.ndarray]) -> list[str]:
    """pHash of the first, the middle and the last image, RGB or gray, 64 bits each, as hexadecimal numbers."""
    import imagehash  # of the extra `train`: --help must work without it

    chosen = [images[round(position * (len(images) - 1))] for position in HASHED]
    return [str(imagehash.phash(Image.fromarray(image))) for image in chosen]


def hash_distances(hashes: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Number of bits in which hashes differ, mean of a clip's three: `hashes` (clips, 3) and `other` (3,), uint64."""
    return np.bitwise_count(hashes ^ other).mean(axis=1)
