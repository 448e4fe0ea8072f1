"""Render pairs of neighboring frames with the exact optical flow between them, for losses along true motion."""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from shanshui.renderer.constants import FPS
from shanshui.renderer.dataset import missing_lines, run_jobs, scene_of
from shanshui.renderer.ground_truth import render_ground_truth
from shanshui.renderer.scene import Scene


FIRST = 10  # stream of random numbers for the first frame of a pair


class FramePairs(NamedTuple):
    """Pairs from clips of `render_dataset`, one of each clip.

    Attributes:
        first: Number of the first frame of each pair in its clip.
        frames: (count, 2, size, size, 3) uint8 RGB.
        flow: (count, 2, size, size) float16, displacement (x, y) in pixels from the first frame to the second.
        valid: (count, size, size) bool, where the flow is exact.
    """

    first: list[int]
    frames: np.memmap
    flow: np.memmap
    valid: np.memmap


def render_pairs(
    directory: str | Path,
    count: int,
    seed: int = 0,
    frames: int = 16,
    fps: float = FPS,
    size: int = 256,
    fine_motifs: bool = False,
    workers: int | None = None,
) -> FramePairs:
    """Render one pair of neighboring frames of each clip into arrays in a folder.

    Arguments, resumption and errors as in `render_dataset`; `frames` is the length of the clips. The frames have the
    textures of those clips, and finer ones. A pair of 256 x 256 pixels takes 720 kB.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    first = [int(np.random.default_rng((seed, index, FIRST)).integers(frames - 1)) for index in range(count)]
    scenes = [scene_of(index, seed, fine_motifs) for index in range(count)]
    settings = {"seed": seed, "fps": fps, "size": size, "count": count}
    rows = [{"scene": asdict(scene), "first": k, **settings} for scene, k in zip(scenes, first, strict=True)]
    missing = missing_lines(directory / "pairs.jsonl", rows)
    arrays = (
        ("frames", np.uint8, (count, 2, size, size, 3)),
        ("flow", np.float16, (count, 2, size, size)),
        ("valid", bool, (count, size, size)),
    )
    if len(missing) == count:
        for name, dtype, shape in arrays:
            np.lib.format.open_memmap(directory / f"{name}.npy", "w+", dtype, shape).flush()
    jobs = [(index, scene, k / fps, (k + 1) / fps) for index, (scene, k) in enumerate(zip(scenes, first, strict=True))]
    run_jobs(partial(_render_into, directory), jobs, directory / "pairs.jsonl", missing, workers)
    return FramePairs(first, *(np.load(directory / f"{name}.npy", mmap_mode="r") for name, *_ in arrays))


def _render_into(directory: Path, job: tuple[int, Scene, float, float]) -> None:
    index, scene, *times = job
    names = ("frames", "flow", "valid")
    arrays = [np.lib.format.open_memmap(directory / f"{name}.npy", "r+") for name in names]
    truth = render_ground_truth(scene, times, *arrays[0].shape[2:4], consistent=True)
    parts = truth.frames, truth.forward_flow[0], truth.forward_valid[0]
    for array, part in zip(arrays, parts, strict=True):
        array[index] = part
        array.flush()
