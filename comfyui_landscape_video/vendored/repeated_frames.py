# Copied from pipeline_landscape_video/repeated_frames.py by vendor.py. Change the source instead.
"""Find frames that repeat the one before them, and the times at which the distinct pictures belong.

Animation on twos or threes, 8 frames per second in a file of 24, and pulldown show each picture for several frames.
Lossy encoders leave these frames only nearly equal. Not part of the Hub's code.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import cv2
import numpy as np


SHORT_SIDE = 96  # pixels at which frames are compared: fields and grain average out, birds remain
BLOCK = 8  # pixels; movement of a small part of the image must not average out
MOST_CHANGED = 0.02  # share of blocks that count

# Changes are in levels of 255. Encoders leave up to 3 between frames that show one picture (x264 at crf 30, MPEG-4),
# deinterlacing up to 6; mostly that is less than a tenth of the movement around them.
LARGEST_LEFTOVER = 6.0
SMALLEST_MOVEMENT = 3.5
LEFTOVER = 0.3  # of the movements before and after, where other pictures nearby are held, too
LONE_LEFTOVER = 0.1  # of the same, for a picture that is the only one that is held
LONGEST_HOLD = 0.25  # seconds; a picture held longer is meant to be still
STEADY = 3  # changes of about the same size that are movement
NEARBY = 5  # pictures before and after that count as neighbors
PATTERN = 12  # pictures before and after in which pulldown is sought; 24 of 25 frames repeat too rarely to be evened


class Pictures(NamedTuple):
    """The distinct pictures of a video: their frame numbers, and the times in seconds at which they belong."""

    numbers: list[int]
    times: list[float]

    def describe(self, num_frames: int) -> str:
        """Say how many frames are repeated, and for how many frames most of the held pictures stand."""
        holds = Counter(hold for hold in np.diff(self.numbers).tolist() if hold > 1)
        usual = " or ".join(str(hold) for hold, count in sorted(holds.items()) if count >= 0.2 * holds.total())
        return f"{num_frames - len(self.numbers)} of {num_frames} frames repeat pictures, held for {usual} frames"


def shrink(pixels: np.ndarray, short_side: int) -> np.ndarray:
    """Scale an image down until its shorter side has at most `short_side` pixels; never enlarge it."""
    scale = min(1.0, short_side / min(pixels.shape[:2]))
    return cv2.resize(pixels, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def measure_change(before: np.ndarray, after: np.ndarray) -> float:
    """Return how much the most changed parts of two images differ, in levels of 255.

    Args:
        before, after: Images of one size, (height, width, 3) uint8, from `shrink` with `SHORT_SIDE`.
    """
    difference = cv2.absdiff(before, after).astype(np.float32).mean(axis=-1)
    height, width = (max(1, side // BLOCK) for side in difference.shape)
    blocks = np.sort(cv2.resize(difference, (width, height), interpolation=cv2.INTER_AREA), axis=None)
    return float(blocks[-max(1, round(MOST_CHANGED * blocks.size)) :].mean())


def measure_changes(frames: Iterable[np.ndarray]) -> list[float]:
    """Return the change of each frame from the one before, see `measure_change`; 0 for the first."""
    changes, previous = [], None
    for frame in frames:
        small = shrink(frame, SHORT_SIDE)
        changes.append(0.0 if previous is None else measure_change(previous, small))
        previous = small
    return changes


def find_repeats(changes: Sequence[float], fps: float, jumps: np.ndarray | None = None) -> np.ndarray:
    """Mark the frames that show the picture of the frame before.

    Such a frame changes much less than the movements before and after it. A run of them ends within `LONGEST_HOLD`,
    so scenes that are still, fade or move slowly have none.

    Args:
        changes: Change of each frame from the one before, as `measure_changes` returns them.
        fps: Average frame rate.
        jumps: Marks frames that may begin a scene. Between two of them, slow movement looks like leftovers, but is
            steady. None means one scene.

    Returns:
        One bool for each frame.
    """
    changes = np.asarray(changes, np.float64)
    reach = max(3, round(LONGEST_HOLD * fps))
    largest = np.pad(changes, reach)
    windows = np.lib.stride_tricks.sliding_window_view(largest, reach).max(axis=1)
    before, after = windows[: len(changes)].copy(), windows[reach + 1 :][: len(changes)]
    before[:reach] = np.inf  # the first picture follows no movement
    movement = np.minimum(before, after)
    repeats = (changes <= np.minimum(LARGEST_LEFTOVER, LEFTOVER * movement)) & (after >= SMALLEST_MOVEMENT)
    repeats[:1] = False

    # Compare each run with the very movements that begin and end it, then with its neighbors.
    starts, lengths, share = _runs(changes, repeats)
    for start, length in zip(starts[share > LEFTOVER], lengths[share > LEFTOVER], strict=True):
        repeats[start : start + length] = False
    starts, lengths, share = _runs(changes, repeats)
    if jumps is not None:
        jumps = np.append(jumps, False)
        jumps[0] = True
        for start, length in zip(starts.tolist(), lengths.tolist(), strict=True):
            inner = changes[start + 1 : start + length]
            is_steady = len(inner) >= STEADY and inner.min() > 0.5 * inner.max()
            if is_steady and jumps[start] and jumps[start + length]:
                repeats[start : start + length] = False
    starts, lengths, share = _runs(changes, repeats)
    for index in np.flatnonzero(share > LONE_LEFTOVER):
        if (lengths[max(0, index - NEARBY) : index + NEARBY + 1] > 1).sum() == 1:
            repeats[starts[index] : starts[index] + lengths[index]] = False
    return repeats


def _runs(changes: np.ndarray, repeats: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First frame and length of each picture, and its leftover as a share of the movements at its ends."""
    starts = np.flatnonzero(~repeats)
    ends = np.append(starts[1:], len(changes))
    leftovers = np.maximum.reduceat(np.where(repeats, changes, 0), starts) if len(starts) else np.zeros(0)
    movements = np.append(changes, 0)[ends]  # nothing moves at the end of the video
    movements[1:] = np.minimum(movements[1:], changes[starts[1:]])
    return starts, ends - starts, np.where(ends - starts > 1, leftovers / np.maximum(movements, 1e-9), 0)


def place_pictures(
    timestamps: Sequence[float], changes: Sequence[float], repeats: np.ndarray, scene_starts: Sequence[int] = (0,)
) -> Pictures:
    """Choose the frames to interpolate between, and their times.

    A picture held for as many frames as its neighbors starts to move toward the next one at its first frame. A picture
    held longer stays still first, and starts to move that many frames before the next one. The last picture of a scene
    and still parts do not move. Pictures that pulldown shows at uneven times return to even ones.

    Args:
        timestamps: Increasing times of all frames in seconds.
        changes, repeats: Changes of all frames, and which of them repeat the one before; see `find_repeats`.
        scene_starts: Number of the first frame of each scene.
    """
    changes, scenes = np.asarray(changes), {0, *scene_starts}
    movements = np.flatnonzero(~repeats & (changes >= SMALLEST_MOVEMENT))
    holds = np.diff(movements, prepend=0)
    dropped = np.zeros(len(repeats), bool)
    for index, following in enumerate(movements.tolist()):
        if following in scenes:
            continue
        usual = int(np.median(holds[max(0, index - NEARBY) : index + NEARBY + 1]))
        leftover = min(LARGEST_LEFTOVER, LEFTOVER * changes[following])
        first = following - 1
        while first not in scenes and (repeats[first] or (usual > 1 and changes[first] <= leftover)):
            first -= 1
        first = first if following - first <= usual + 1 else following - usual
        dropped[first + 1 : following] = True
    numbers = np.flatnonzero(~dropped)
    frame_times = np.asarray(timestamps, np.float64)
    times = frame_times[numbers]
    moving = [number for number in numbers.tolist() if number in scenes or changes[number] >= SMALLEST_MOVEMENT]
    bounds = np.searchsorted(moving, [*sorted(scenes), len(repeats)])
    for begin, end in zip(bounds, bounds[1:], strict=False):
        pictures = np.array(moving[begin:end])
        even = _even_positions(pictures)
        moved = even != pictures
        places = np.searchsorted(numbers, pictures[moved])
        times[places] = np.interp(even[moved], np.arange(len(frame_times)), frame_times)
    if not np.all(np.diff(times) > 0):
        times = frame_times[numbers]
    return Pictures(numbers.tolist(), times.tolist())


def _even_positions(numbers: np.ndarray) -> np.ndarray:
    """Positions of the pictures of a scene, in frames: even ones where a constant rate explains the frame numbers.

    A constant rate shows each picture less than one frame after its time, so that some slope b keeps all distances
    between pictures i and j within one frame of b (j - i). The first and the last picture stay.
    """
    positions = numbers.astype(np.float64)
    for index in range(1, len(numbers) - 1):
        nearby = numbers[max(0, index - PATTERN) : index + PATTERN + 1]
        steps = Counter(np.diff(nearby).tolist())
        if len(steps) == 1 or min(steps.values()) < 2:
            continue  # even as they are, or too few to tell
        i, j = np.triu_indices(len(nearby), 1)
        distances = nearby[j] - nearby[i]
        if ((distances - 1) / (j - i)).max() < ((distances + 1) / (j - i)).min():
            slope, start = np.polyfit(np.arange(len(nearby)), nearby, 1)
            positions[index] = start + slope * min(index, PATTERN)
    return positions
