"""Read a video once to find its scenes and repeated frames, before its frames are interpolated."""

import sys
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import typer
from tqdm import tqdm

from landscape_video.scene_cuts import SceneDetector
from pipeline_landscape_video.film_grain import looks_grainy
from pipeline_landscape_video.video_io import iterate_video


LOOKED_AT = 24  # frame stride at which grain is looked for


@dataclass(frozen=True)
class Timeline:
    """Which frames of a video are interpolated between.

    Attributes:
        timestamps: Times of all frames in seconds.
        last_duration: Duration of the last frame in seconds.
        times: Times of the frames to interpolate between, by their numbers.
        scenes: Numbers of the first frames of the scenes.
        grainy: Whether most frames look grainy.
    """

    timestamps: list[float]
    last_duration: Fraction
    times: dict[int, float]
    scenes: frozenset[int]
    grainy: bool


def read_timeline(source: Path, num_frames: int | None, keep_duplicates: bool) -> Timeline:
    """Read a video to its end, and print in one line what was found of repeated frames.

    Args:
        source: Any video that FFmpeg reads.
        num_frames: Number of frames that it declares, for the progress bar.
        keep_duplicates: Interpolate between all frames.
    """
    detector, timestamps, duration, grainy = SceneDetector(), [], Fraction(0), []
    for frame in tqdm(
        iterate_video(source, as_stored=True), total=num_frames, unit="frame", desc=source.name, file=sys.stderr
    ):
        if len(timestamps) % LOOKED_AT == 0:
            grainy.append(looks_grainy(frame.pixels))
        detector.add(frame.pixels)
        timestamps.append(float(frame.timestamp))
        duration = frame.duration
    fps = len(timestamps) / (timestamps[-1] - timestamps[0] + float(duration))
    scenes = detector.find_scenes(fps)
    times = dict(enumerate(timestamps))
    if not keep_duplicates:
        pictures = detector.find_pictures(timestamps, fps)
        times = dict(zip(*pictures, strict=True))
        if len(times) < len(timestamps):
            typer.echo(f"{source.name}: {pictures.describe(len(timestamps))}; --keep-duplicates keeps them", err=True)
    return Timeline(timestamps, duration, times, frozenset(scenes), sum(grainy) > len(grainy) / 2)
