"""One raw video becomes clips: find its scenes, measure them, write what is fit. What runs on each worker.

Everything goes into a work folder, and the outcome is written last: a source whose outcome is there, for the same file
and the same settings, is not touched again. The source itself is only read.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from landscape_video.files import hash_text, write_json
from landscape_video.scene_cuts import shrink
from landscape_video.training.preparation.clip_filters import (
    SHORT_SIDE,
    Bars,
    Thresholds,
    black_bars,
    perceptual_hashes,
    reasons,
)
from landscape_video.training.preparation.scenes import Stretch, find_scenes, stretches
from pipeline_landscape_video.video_io import VideoError, VideoFrame, iterate_video, open_mp4


MAX_SAMPLES = 16
SAMPLES_PER_SECOND = 4
SHEET_FRAMES, SHEET_HEIGHT = 6, 120
VERSION = 2  # of the processing here; outcomes of other versions are computed again


@dataclass(frozen=True)
class Preparation:
    """How raw videos become clips.

    Attributes:
        resolution: the shorter side of the clips, in pixels; smaller ones are not enlarged.
        square: cut out the middle, as high as wide.
        max_seconds: longer scenes become several clips.
        trim_frames: left out at both ends of a scene.
        cut_threshold: how many times the usual change makes a cut.
        crop_bars: cut black bars off, instead of refusing what has them.
        limits: see `Thresholds`.
    """

    resolution: int = 512
    square: bool = False
    max_seconds: float = 6.0
    trim_frames: int = 2
    cut_threshold: float = 3.0
    crop_bars: bool = False
    limits: Thresholds = field(default_factory=Thresholds)

    def digest(self) -> str:
        """Differs when the settings do."""
        return hash_text(json.dumps([VERSION, asdict(self)]))


def prepare_source(source_dir: Path, name: str, work_dir: Path, preparation: Preparation) -> dict[str, Any]:
    """The outcome for one raw video, from an earlier run or made now.

    Args:
        source_dir, name: where it lies, and its path in there.
        work_dir: gets `outcomes/`, `clips/` and `sheets/`.

    Returns:
        "source", "error" (what is wrong with the file, or None) and "clips": for each stretch of each scene, refused
        or not, its "name" and what the manifest says of it.

    Raises:
        OSError: the disk is full, for example. A broken video raises nothing; it is an "error".
    """
    path = source_dir / name
    key = f"{Path(name).stem[:60]}-{hash_text(name)[:8]}"
    outcome_path = work_dir / "outcomes" / f"{key}.json"
    stat = path.stat()
    # The time as text: a double does not hold nanoseconds.
    stamp = {"settings": preparation.digest(), "bytes": stat.st_size, "changed": str(stat.st_mtime_ns)}
    earlier = _read_json(outcome_path)
    if earlier is not None and earlier["stamp"] == stamp and _is_complete(earlier, work_dir):
        return earlier
    for folder in ("outcomes", "clips", "sheets"):
        (work_dir / folder).mkdir(parents=True, exist_ok=True)
    try:
        clips, error = _prepare(path, name, key, work_dir, preparation), None
    except (VideoError, FileNotFoundError) as problem:
        clips, error = [], str(problem).removeprefix(f"{path}: ")
    outcome = {"source": name, "stamp": stamp, "error": error, "clips": clips}
    write_json(outcome_path, outcome)
    return outcome


def _prepare(path: Path, name: str, key: str, work_dir: Path, preparation: Preparation) -> list[dict[str, Any]]:
    # 1. Where the scenes are; also whether the file can be decoded to its end
    starts, times = find_scenes(iterate_video(path), preparation.cut_threshold)
    found = stretches(starts, times, preparation.trim_frames, preparation.max_seconds)

    # 2. What each stretch looks like, and whether it is fit
    clips, boxes = [], []
    for number, (stretch, frames) in enumerate(_frames_of(path, found)):
        clip, box = _measure(stretch, frames, times, work_dir / "sheets" / f"{key}-{number:03d}.jpg", preparation)
        clips.append({"name": f"{key}-{number:03d}", "source": name, **clip})
        boxes.append(box)

    # 3. The clips
    fit = [number for number, clip in enumerate(clips) if not clip["refused"]]
    for number, (stretch, frames) in zip(fit, _frames_of(path, [found[number] for number in fit]), strict=True):
        clip = clips[number]
        _write(work_dir / "clips" / f"{clip['name']}.mp4", frames, boxes[number], clip, times[stretch.first])
    return clips


def _frames_of(path: Path, found: list[Stretch]) -> Iterator[tuple[Stretch, Iterator[VideoFrame]]]:
    """Each stretch and its frames, which have to be taken before the next stretch is asked for."""
    if not found:
        return
    frames, position = iterate_video(path), 0
    for stretch in found:
        for _ in islice(frames, stretch.first - position):
            pass
        yield stretch, islice(frames, stretch.last - stretch.first)
        position = stretch.last


def _measure(
    stretch: Stretch, frames: Iterator[VideoFrame], times: list[Fraction], sheet: Path, preparation: Preparation
) -> tuple[dict[str, Any], tuple[slice, slice]]:
    """What the manifest says of a stretch, and the rows and columns of its picture that a clip shows."""
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
    bars = black_bars(np.stack(samples))
    box = _box(height, width, bars if preparation.crop_bars else Bars(0.0, 0.0, 0.0, 0.0))
    picture_height, picture_width = (part.stop - part.start for part in box)
    if preparation.crop_bars:  # a logo in a bar is gone with it
        samples = [sample[_box(*sample.shape, bars)] for sample in samples]
    refused = reasons(
        seconds, picture_height, picture_width, np.stack(samples), bars, preparation.crop_bars, preparation.limits
    )
    clip_height, clip_width = _clip_size(picture_height, picture_width, preparation)
    if preparation.square:
        box = _middle(box)
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
        "refused": refused,
    }
    return clip, box


def contact_sheet(thumbnails: list[np.ndarray]) -> np.ndarray:
    """Some of the pictures side by side, from first to last, uint8 (height, width, 3)."""
    chosen = np.linspace(0, len(thumbnails) - 1, min(SHEET_FRAMES, len(thumbnails))).round().astype(int)
    return np.concatenate([thumbnails[number] for number in chosen], axis=1)


def _scaled(pixels: np.ndarray, height: int) -> np.ndarray:
    width = max(1, round(pixels.shape[1] * height / pixels.shape[0]))
    return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)


def _box(height: int, width: int, bars: Bars) -> tuple[slice, slice]:
    """The rows and columns between the bars, and a pixel less, because bars end in a soft edge."""

    def between(size: int, before: float, after: float) -> slice:
        return slice(round(size * before) + (before > 0), size - round(size * after) - (after > 0))

    return between(height, bars.top, bars.bottom), between(width, bars.left, bars.right)


def _middle(box: tuple[slice, slice]) -> tuple[slice, slice]:
    size = min(part.stop - part.start for part in box)
    starts = [part.start + (part.stop - part.start - size) // 2 for part in box]
    return tuple(slice(start, start + size) for start in starts)


def _clip_size(height: int, width: int, preparation: Preparation) -> tuple[int, int]:
    """Height and width of a clip, even numbers, because H.264's colours have half the resolution."""
    if preparation.square:
        height = width = min(height, width)
    scale = min(1.0, preparation.resolution / min(height, width))
    return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def _write(
    path: Path, frames: Iterator[VideoFrame], box: tuple[slice, slice], clip: dict[str, Any], start: Fraction
) -> None:
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
    """Whether what an outcome speaks of is there."""
    files = [work_dir / "sheets" / f"{clip['name']}.jpg" for clip in outcome["clips"]]
    files += [work_dir / "clips" / f"{clip['name']}.mp4" for clip in outcome["clips"] if not clip["refused"]]
    return all(file.is_file() for file in files)
