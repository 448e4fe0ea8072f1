"""Bring the clips of a user study to one size, frame rate and length, without metadata."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np

from pipeline_landscape_video.video_io import iterate_video, open_mp4


CRF = 18  # of x264: visually lossless, and the same for the clips of all systems
WRITTEN = 946684800  # 2000-01-01, the time stamp of every clip; ZIP archives allow none before 1980


@dataclass(frozen=True)
class ClipForm:
    """Size in pixels, frames per second, and length in seconds."""

    width: int
    height: int
    fps: Fraction
    seconds: Fraction

    @property
    def num_frames(self) -> int:
        """Number of frames, at least one."""
        return max(1, round(self.seconds * self.fps))


def measure(path: Path) -> ClipForm:
    """Measure the form of a clip, with its mean frame rate. Raises `VideoError` or `FileNotFoundError`."""
    count, start, end = 0, Fraction(0), Fraction(0)
    for count, frame in enumerate(iterate_video(path), start=1):  # noqa: B007
        start = frame.timestamp if count == 1 else start
        end = frame.timestamp + frame.duration
    height, width, _ = frame.pixels.shape
    return ClipForm(width, height, Fraction(count) / (end - start), end - start)


def common_form(forms: Iterable[ClipForm]) -> ClipForm:
    """The smallest size, the shortest length and the highest frame rate: no clip is enlarged or extended, and none
    loses frames."""
    forms = list(forms)
    smallest = min(forms, key=lambda form: (form.width * form.height, form.width))
    return ClipForm(
        width=max(2, smallest.width - smallest.width % 2),
        height=max(2, smallest.height - smallest.height % 2),
        fps=max(form.fps for form in forms).limit_denominator(1001),
        seconds=min(form.seconds for form in forms),
    )


def write_alike(path: Path, output: Path, form: ClipForm) -> None:
    """Write a clip in that form: scaled to cover the size, cropped at the center, with each frame at its own time."""
    with open_mp4(output, form.width, form.height, form.fps, crf=CRF) as writer:
        written, start, shown = 0, None, None
        for frame in iterate_video(path):
            start = frame.timestamp if start is None else start
            # The frame before stays until this one begins, with half a frame of tolerance for rates such as 7.99.
            while shown is not None and written < form.num_frames:
                if (written + Fraction(1, 2)) / form.fps >= frame.timestamp - start:
                    break
                writer.write(shown)
                written += 1
            shown = cover(frame.pixels, form.width, form.height)
        for _ in range(form.num_frames - written):
            writer.write(shown)
    os.utime(output, (WRITTEN, WRITTEN))  # the order of writing must not tell systems apart


def cover(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale an image to cover (height, width, 3) uint8, and crop the rest at the center."""
    scale = max(width / pixels.shape[1], height / pixels.shape[0])
    size = (max(width, round(pixels.shape[1] * scale)), max(height, round(pixels.shape[0] * scale)))
    if size != (pixels.shape[1], pixels.shape[0]):
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]
