"""Prepare one raw video: find its scenes, measure them and write the clips. This is what each worker runs.

Everything goes into a work folder, the outcome last: a source whose outcome is there, for the same file and settings,
is not processed again. Sources are only read.
"""

import json
from collections.abc import Iterator
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from landscape_video.files import hash_text, write_json
from landscape_video.training.preparation.clip_filters import (
    SHORT_SIDE,
    Bars,
    black_bars,
    find_faults,
    perceptual_hashes,
)
from landscape_video.training.preparation.scenes import Stretch, find_scenes, stretches, without_repeats
from landscape_video.training.settings.preparation import ClipSettings, PreparationSettings
from pipeline_landscape_video.repeated_frames import shrink
from pipeline_landscape_video.video_io import VideoError, VideoFrame, iterate_video, open_mp4


MAX_SAMPLES = 16  # frames of a stretch that are measured
SAMPLES_PER_SECOND = 4
SHEET_FRAMES, SHEET_HEIGHT = 6, 120  # images of a contact sheet, and their height in pixels

Box = tuple[slice, slice]  # rows and columns of an image


def prepare_source(name: str, settings: PreparationSettings) -> dict[str, Any]:
    """Prepare one raw video, or return the outcome of an earlier run.

    Args:
        name: Path of the video relative to the source folder.
        settings: Settings of the preparation; its work folder receives `outcomes/`, `clips/` and `sheets/`.

    Returns:
        "source", "error" (what is wrong with the file, or None) and "clips": for each stretch of each scene, rejected
        or not, its "name" and its row of the manifest.

    Raises:
        OSError: The work folder cannot be written to. A broken video raises nothing; it is an "error".
    """
    path, work_dir = settings.folders.source_dir / name, settings.work_dir
    key = f"{Path(name).stem[:60]}-{hash_text(name)[:8]}"
    outcome_path = work_dir / "outcomes" / f"{key}.json"
    try:
        stat = path.stat()
    except OSError as problem:  # it was removed after it was listed
        return {"source": name, "error": f"cannot be read ({problem.strerror}).", "clips": []}
    # The time as text: a double cannot hold nanoseconds.
    stamp = {"settings": settings.digest(), "bytes": stat.st_size, "changed": str(stat.st_mtime_ns)}
    earlier = _read_json(outcome_path)
    if earlier is not None and earlier["stamp"] == stamp and _is_complete(earlier, work_dir):
        return earlier
    for folder in ("outcomes", "clips", "sheets"):
        (work_dir / folder).mkdir(parents=True, exist_ok=True)
    try:
        clips, error = _prepare(name, key, settings), None
    except (VideoError, FileNotFoundError) as problem:
        clips, error = [], str(problem).removeprefix(f"{path}: ")
    except OSError as problem:
        if problem.filename is None or not Path(problem.filename).is_relative_to(path):
            raise  # the disk is full, for example
        clips, error = [], f"cannot be read ({problem.strerror})."
    except Exception as problem:  # no file may end the preparation of the others
        clips, error = [], f"{type(problem).__name__}: {problem}"
    outcome = {"source": name, "stamp": stamp, "error": error, "clips": clips}
    write_json(outcome_path, outcome)
    return outcome


def _prepare(name: str, key: str, settings: PreparationSettings) -> list[dict[str, Any]]:
    path, work_dir = settings.folders.source_dir / name, settings.work_dir
    # 1. Scenes; decoding to the end also shows whether the file is whole.
    starts, times, repeats = find_scenes(iterate_video(path), settings.clips.cut_threshold)
    found = stretches(starts, times, settings.clips.trim_frames, settings.clips.max_seconds)

    # 2. What each stretch looks like, and whether to reject it
    clips, boxes = [], []
    for number, (stretch, frames) in enumerate(_frames_of(path, found, repeats)):
        clip, box = _measure(stretch, frames, times, work_dir / "sheets" / f"{key}-{number:03d}.jpg", settings)
        clips.append({"name": f"{key}-{number:03d}", "source": name, **clip})
        boxes.append(box)

    # 3. The clips
    fit = [number for number, clip in enumerate(clips) if not clip["refused"]]
    written = _frames_of(path, [found[number] for number in fit], repeats)
    for number, (stretch, frames) in zip(fit, written, strict=True):
        clip = clips[number]
        _write(work_dir / "clips" / f"{clip['name']}.mp4", frames, boxes[number], clip, times[stretch.first])
    return clips


def _frames_of(
    path: Path, found: list[Stretch], repeats: list[bool]
) -> Iterator[tuple[Stretch, Iterator[VideoFrame]]]:
    """Each stretch and its frames, which must be taken before the next stretch is asked for."""
    if not found:
        return
    frames, position = without_repeats(iterate_video(path), repeats), 0
    for stretch in found:
        for _ in islice(frames, stretch.first - position):
            pass
        yield stretch, islice(frames, stretch.last - stretch.first)
        position = stretch.last


def _measure(
    stretch: Stretch, frames: Iterator[VideoFrame], times: list[Fraction], sheet: Path, settings: PreparationSettings
) -> tuple[dict[str, Any], Box]:
    """Row of the manifest of a stretch, and the part of its frames that a clip shows; writes the contact sheet."""
    seconds = float(times[stretch.last] - times[stretch.first])
    step = max(1 / SAMPLES_PER_SECOND, seconds / MAX_SAMPLES)
    samples, thumbnails, next_time = [], [], times[stretch.first]
    for frame in frames:
        if frame.timestamp >= next_time:
            samples.append(cv2.cvtColor(shrink(frame.pixels, SHORT_SIDE), cv2.COLOR_RGB2GRAY))
            thumbnails.append(_scaled(frame.pixels, SHEET_HEIGHT))
            next_time = frame.timestamp + Fraction(step)
    Image.fromarray(contact_sheet(thumbnails)).save(sheet, quality=85)

    height, width, _ = frame.pixels.shape
    bars, crop_bars = black_bars(np.stack(samples)), settings.clips.crop_bars
    if crop_bars:  # a logo within a bar goes with it
        box = _between_bars(height, width, bars)
        samples = [sample[_between_bars(*sample.shape, bars)] for sample in samples]
    else:
        box = (slice(0, height), slice(0, width))
    size = tuple(part.stop - part.start for part in box)
    faults = find_faults(seconds, size, np.stack(samples), Bars() if crop_bars else bars, settings.filters)
    if settings.clips.square:
        box = _middle(box)
    clip_height, clip_width = _clip_size(box, settings.clips)
    clip = {
        "scene": stretch.scene,
        "start": round(float(times[stretch.first]), 4),
        "end": round(float(times[stretch.last]), 4),
        "num_frames": stretch.last - stretch.first,
        "fps": round((stretch.last - stretch.first) / seconds, 4),
        "width": clip_width,
        "height": clip_height,
        "source_width": width,
        "source_height": height,
        "hashes": perceptual_hashes(samples),
        "refused": faults,
    }
    return clip, box


def contact_sheet(thumbnails: list[np.ndarray]) -> np.ndarray:
    """Some of the images side by side, from first to last, uint8 (height, width, 3)."""
    chosen = np.linspace(0, len(thumbnails) - 1, min(SHEET_FRAMES, len(thumbnails))).round().astype(int)
    return np.concatenate([thumbnails[number] for number in chosen], axis=1)


def _scaled(pixels: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(pixels.shape[1] * height / pixels.shape[0]))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _between_bars(height: int, width: int, bars: Bars) -> Box:
    """What the bars leave of an image, without one more pixel, because bars end in a soft edge."""

    def between(size: int, before: float, after: float) -> slice:
        return slice(round(size * before) + (before > 0), size - round(size * after) - (after > 0))

    return between(height, bars.top, bars.bottom), between(width, bars.left, bars.right)


def _middle(box: Box) -> Box:
    size = min(part.stop - part.start for part in box)
    starts = [part.start + (part.stop - part.start - size) // 2 for part in box]
    return tuple(slice(start, start + size) for start in starts)


def _clip_size(box: Box, settings: ClipSettings) -> tuple[int, int]:
    """Height and width of a clip, even because the colors of H.264 have half the resolution."""
    size = [part.stop - part.start for part in box]
    scale = min(1.0, settings.resolution / min(size))
    height, width = (max(2, 2 * round(side * scale / 2)) for side in size)
    return height, width


def _write(path: Path, frames: Iterator[VideoFrame], box: Box, clip: dict[str, Any], start: Fraction) -> None:
    size = (clip["width"], clip["height"])
    metadata = {"source": clip["source"], "start": clip["start"], "end": clip["end"]}
    # A finer clock than any container's, so that timestamps stay what they were.
    with open_mp4(path, *size, fps=clip["fps"], time_base=Fraction(1, 90_000), metadata=metadata) as writer:
        for frame in frames:
            pixels = frame.pixels[box]
            shrinks = pixels.shape[1] > size[0] or pixels.shape[0] > size[1]
            method = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
            writer.write(cv2.resize(pixels, size, interpolation=method), frame.timestamp - start, frame.duration)


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None


def _is_complete(outcome: dict[str, Any], work_dir: Path) -> bool:
    """Whether the files of an outcome are still there."""
    files = [work_dir / "sheets" / f"{clip['name']}.jpg" for clip in outcome["clips"]]
    files += [work_dir / "clips" / f"{clip['name']}.mp4" for clip in outcome["clips"] if not clip["refused"]]
    return all(file.is_file() for file in files)
