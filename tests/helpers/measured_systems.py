"""Write a folder like `landscape-video evaluate`: two systems, a still baseline and a reference, with real clips."""

from pathlib import Path

import numpy as np

from landscape_video.evaluation.results import ClipResult, MetricValue, Results, System, write_results
from pipeline_landscape_video.video_io import write_video
from video_files import moving_frames


PROMPTS = ("mist over <b>hills</b>", "江上孤舟", 'a "red" sun')
PROTOCOL = {"CLIP": "shanshui-tiny, sha256 0123abcd", "samples": "3 clips a system", "seed": "7"}
# By system: kind, speed of the motion in pixels per frame, frames per second.
SYSTEMS = {
    "ours & more": ("generated", 2, 16),
    "rival": ("generated", 1, 8),
    "still frame": ("still", 0, 8),
    "reference": ("reference", 3, 8),
}


def write_measured(
    folder: Path,
    prompts: tuple[str, ...] = PROMPTS,
    protocol: dict[str, str] = PROTOCOL,
    samples: int = 1,
    num_frames: int = 8,
    systems: tuple[str, ...] = tuple(SYSTEMS),
    shift: float = 0.0,
) -> Path:
    """Write clips of 64 x 48 pixels and their results, with `shift` added to every value."""
    measured = []
    for index, name in enumerate(systems):
        kind, speed, fps = SYSTEMS[name]
        clips = []
        for number, prompt in enumerate(prompt for prompt in prompts for _ in range(samples)):
            path = folder / f"system-{index}" / f"{number:04d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            frames = np.stack(moving_frames(num_frames, speed=speed))
            write_video(path, list(np.roll(frames, number, axis=2)), fps, {"prompt": prompt, "model": name})
            clips.append(ClipResult(prompt, f"{path.parent.name}/{path.name}", 7 + number, {"CLIP-temp": 0.9}))
        value = 0.9 + index / 100 + shift
        metrics = {"CLIP-temp": MetricValue(value, value - 0.006, value + 0.006, "higher")}
        if kind != "reference":
            metrics["FVD16[shanshui-clip]"] = MetricValue(10.0 * (index + 1) + shift, None, None, "lower")
        measured.append(System(name, kind, metrics, tuple(clips), 1.5, None))
    write_results(Results(protocol, tuple(measured)), folder / "results.json")
    return folder
