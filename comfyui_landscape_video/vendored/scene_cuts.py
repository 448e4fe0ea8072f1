# Copied from landscape_video/scene_cuts.py by vendor.py. Change the source instead.
"""Find the frames of a video at which a new scene begins, and those that repeat the picture before.

Only pixels are needed: nothing here reads files.
"""

from collections import deque
from collections.abc import Sequence

import cv2
import numpy as np

from .repeated_frames import (
    SHORT_SIDE,
    Pictures,
    find_repeats,
    measure_change,
    place_pictures,
    shrink,
)


LOOK_AROUND = 2  # pictures before and after
CUT_SHORT_SIDE = 32  # pixels; small enough that grain and brushwork average out
SMALLEST_CHANGE = 5.0  # of 255 levels, mean over pixels and colors
CUT_THRESHOLD = 3.0  # times the usual change
SHIFTED_PART = 0.6  # of height and width: the part that is sought in the frame before, up to a fifth of the size away
SHIFT_RESIDUAL = 0.55  # of the difference
FLASH_FRAMES = 3  # longest flash; a scene that comes back later was cut
FLASH_RESIDUAL = 0.5  # of the change, after a change of brightness and contrast


class SceneDetector:
    """Collects what tells scenes and repeated pictures apart, frame by frame, and decides when it has seen all.

    A cut changes the image by at least `SMALLEST_CHANGE`, and by at least `threshold` times the usual change around
    it: the median of the two changes before and the two after, of pictures that differ. So camera motion is not a cut,
    also where animation holds each picture for several frames, and scenes of a single frame are found. Two things
    look like cuts and are none: a shaking camera, because most of the image is found again a little further, and a
    flash, because the same scene is only brighter and comes back after at most `FLASH_FRAMES`.
    """

    def __init__(self) -> None:
        self._changes: list[float] = []  # of the most changed parts, for repeats
        self._differences: list[float] = []  # mean over the image, for cuts
        self._continues: list[bool] = []  # the scene of the frame before
        self._recent: deque[np.ndarray] = deque(maxlen=FLASH_FRAMES + 2)
        self._previous: np.ndarray | None = None

    def add(self, pixels: np.ndarray) -> None:
        """Take the next frame, (height, width, 3) uint8."""
        image = shrink(pixels, SHORT_SIDE)
        # RGB, not hue: in ink on paper, hue is noise, and a detector that compares it finds cuts in the grain.
        small = shrink(image, CUT_SHORT_SIDE).astype(np.float32)
        change, difference, continues = 0.0, 0.0, True
        if self._previous is not None:
            change = measure_change(self._previous, image)
            difference = _difference(self._recent[-1], small)
            continues = difference < SMALLEST_CHANGE or _is_shifted(self._recent[-1], small)
        self._changes.append(change)
        self._differences.append(difference)
        self._continues.append(continues)
        self._recent.append(small)
        self._previous = image
        self._mark_flash()

    def _mark_flash(self) -> None:
        """Mark the frames of a flash that ends with the newest frame."""
        if self._continues[-1]:
            return
        *earlier, newest = self._recent
        for ago in range(2, len(earlier) + 1):
            before, first, jump = earlier[-ago], earlier[1 - ago], self._differences[-ago]
            returns = _difference(before, newest) < SHIFT_RESIDUAL * jump or _is_shifted(before, newest)
            if not self._continues[-ago] and returns and _is_brighter(before, first, jump):
                self._continues[-ago:] = [True] * ago
                return

    def find_repeats(self, fps: float) -> np.ndarray:
        """Mark the frames that repeat the picture before; see `repeated_frames.find_repeats`."""
        return find_repeats(self._changes, fps, ~np.array(self._continues, bool))

    def find_scenes(self, fps: float, threshold: float = CUT_THRESHOLD) -> list[int]:
        """Return the number of the first frame of each scene; the first is 0.

        Args:
            fps: Average frame rate.
            threshold: How many times the usual change a cut changes the image.
        """
        distinct = np.flatnonzero(~self.find_repeats(fps))
        differences = np.array(self._differences)[distinct]
        padded = np.pad(differences, LOOK_AROUND)
        around = [np.roll(padded, shift)[LOOK_AROUND:-LOOK_AROUND] for shift in (-2, -1, 1, 2)]
        is_cut = (differences >= SMALLEST_CHANGE) & (differences >= threshold * np.median(around, axis=0))
        return [0, *(number for number in distinct[is_cut].tolist() if not self._continues[number])]

    def find_pictures(self, timestamps: Sequence[float], fps: float) -> Pictures:
        """Return the pictures to interpolate between and their times; see `repeated_frames.place_pictures`."""
        return place_pictures(timestamps, self._changes, self.find_repeats(fps), self.find_scenes(fps))


def _difference(before: np.ndarray, after: np.ndarray) -> float:
    return float(np.abs(before - after).mean())


def _is_shifted(before: np.ndarray, after: np.ndarray) -> bool:
    """Whether the center of an image is found elsewhere in the image before."""
    height, width = after.shape[:2]
    y, x = (round(side * (1 - SHIFTED_PART) / 2) for side in (height, width))
    errors = cv2.matchTemplate(before, np.ascontiguousarray(after[y : height - y, x : width - x]), cv2.TM_SQDIFF)
    return float(errors.min()) <= SHIFT_RESIDUAL**2 * float(errors[y, x])


def _is_brighter(before: np.ndarray, after: np.ndarray, difference: float) -> bool:
    """Whether a gain of at least 0 and an offset, the same for all colors, explain an image by the one before."""
    deviation = before - before.mean()
    gain = max(0.0, float((deviation * after).sum() / max((deviation**2).sum(), 1e-6)))
    return _difference(after, after.mean() + gain * deviation) <= FLASH_RESIDUAL * difference
