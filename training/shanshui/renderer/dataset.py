"""Render clips in bulk and in parallel: as arrays for training, or as a folder of captioned videos.

A clip depends on the seed and its own index only. Both writers resume where they were stopped, and refuse to continue
what was rendered with other settings.
"""

import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from tqdm import tqdm

from landscape_video.files import write_text
from pipeline_landscape_video.video_io import write_video
from shanshui.renderer.captions import caption
from shanshui.renderer.rendering import render_clip, render_ground_truth, render_with_depth
from shanshui.renderer.scene import FPS, LANGUAGES, SIZE, WAYS, Scene, sample_beginning, sample_scene


GROUND_TRUTH = ("flow", "masks", "depth")
BEGINNING = 9  # stream of random numbers for the beginning of a clip; its captions draw from lower ones

FIRST = 10  # stream of random numbers for the first frame of a pair


def scene_of(index: int, seed: int = 0, fine_motifs: bool = True) -> Scene:
    """Return the scene of clip `index` in the data of `seed`."""
    return sample_scene(np.random.default_rng((seed, index)), fine_motifs)


def beginning_of(scene: Scene, index: int, seed: int) -> Scene:
    """Return the scene that clip `index` begins like with `begin_anywhere`."""
    return sample_beginning(scene, np.random.default_rng((seed, index, BEGINNING)))


def render_dataset(
    path: str | Path,
    count: int,
    seed: int = 0,
    frames: int = 16,
    fps: float = FPS,
    size: int = SIZE,
    fine_motifs: bool = True,
    workers: int | None = None,
    begin_anywhere: bool = False,
) -> tuple[np.memmap, list[Scene]]:
    """Render clips into one array on disk, and write their scenes to a `.jsonl` file of the same name beside it.

    Args:
        path: `.npy` file. If a stopped run has left a part of it, only the rest is rendered.
        count: Number of clips.
        seed: Seed of the data; clip `index` shows `scene_of(index, seed, fine_motifs)`.
        frames: Frames per clip.
        fps: Frames per second.
        size: Height and width in pixels.
        fine_motifs: False omits what 128 x 128 pixels behind an 8x autoencoder cannot carry.
        workers: Processes; None for one per core, 0 to render in this process.
        begin_anywhere: Begin each clip like one in which camera, boat and birds go any way (see `sample_beginning`).

    Returns:
        The clips, uint8 (count, frames, size, size, 3), read-only, and their scenes.

    Raises:
        ValueError: The file at `path` was rendered with other settings.
    """
    path = Path(path)
    settings = {"fps": fps, "seed": seed, "shape": [count, frames, size, size, 3]}
    scenes = [scene_of(index, seed, fine_motifs) for index in range(count)]
    beginnings = [beginning_of(scene, index, seed) if begin_anywhere else None for index, scene in enumerate(scenes)]
    rows = [
        {"scene": asdict(scene), **settings, **_begins_like(beginning)}
        for scene, beginning in zip(scenes, beginnings, strict=True)
    ]
    missing = missing_lines(path.with_suffix(".jsonl"), rows)
    if len(missing) == count:
        np.lib.format.open_memmap(path, "w+", np.uint8, tuple(settings["shape"])).flush()
    times = [step / fps for step in range(frames)]
    clips = list(zip(range(count), scenes, beginnings, strict=True))
    run_jobs(partial(_render_into, path, times), clips, path.with_suffix(".jsonl"), missing, workers)
    return np.load(path, mmap_mode="r"), scenes


def write_video_folder(
    directory: str | Path,
    count: int,
    seed: int = 0,
    frames: int = 16,
    fps: float = FPS,
    height: int = SIZE,
    width: int = SIZE,
    fine_motifs: bool = True,
    language: str = "both",
    workers: int | None = None,
    begin_anywhere: bool = False,
    ground_truth: Sequence[str] = (),
) -> None:
    """Write clips as `clip_000000.mp4`, ... with a `metadata.jsonl` (the VideoFolder layout of Hugging Face datasets).

    Each line of it holds `file_name`, `text` (a caption), `texts` (other captions of the same clip) and every
    attribute of the scene. Arguments as in `render_dataset`; `language` is "en", "zh" or "both", with an English
    `text`. `ground_truth` names any of `GROUND_TRUTH`: what a clip shows is then written to a folder of that name, as
    arrays of `GroundTruth` in `clip_000000.npz`, ... ("masks" as one array for each element).

    Raises:
        ValueError: The language or a kind of ground truth is unknown, or the folder's `metadata.jsonl` has other
            settings.
    """
    if unknown := [kind for kind in ground_truth if kind not in GROUND_TRUTH]:
        raise ValueError(f"`ground_truth` must hold names among {GROUND_TRUTH}, got {unknown}.")
    if language not in (*LANGUAGES, "both"):
        raise ValueError(f"`language` must be one of {LANGUAGES} or 'both', got {language!r}.")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    languages = LANGUAGES if language == "both" else (language,)
    settings = {"num_frames": frames, "fps": fps, "height": height, "width": width}
    if ground_truth:
        settings["ground_truth"] = sorted(ground_truth)
    for kind in ground_truth:
        (directory / kind).mkdir(exist_ok=True)
    rows, clips = [], []
    for index in range(count):
        scene = scene_of(index, seed, fine_motifs)
        beginning = beginning_of(scene, index, seed) if begin_anywhere else None
        rng = np.random.default_rng((seed, index, 1))
        text, *texts = [caption(scene, rng, name) for _ in range(2) for name in languages]
        row = {"file_name": f"clip_{index:06d}.mp4", "text": text, "texts": texts, **asdict(scene), **settings}
        rows.append(row | _begins_like(beginning))
        clips.append((row, scene, beginning))
    metadata = directory / "metadata.jsonl"
    run_jobs(partial(_write_clip, directory), clips, metadata, missing_lines(metadata, rows), workers)


def _begins_like(beginning: Scene | None) -> dict[str, dict[str, str]]:
    return {"begins_like": {name: getattr(beginning, name) for name in WAYS}} if beginning else {}


def _render_into(path: Path, times: Sequence[float], clip: tuple[int, Scene, Scene | None]) -> None:
    index, scene, beginning = clip
    array = np.lib.format.open_memmap(path, "r+")
    array[index] = render_clip(scene, times, *array.shape[2:4], beginning)
    array.flush()


def _write_clip(directory: Path, clip: tuple[dict[str, Any], Scene, Scene | None]) -> None:
    row, scene, beginning = clip
    times = [step / row["fps"] for step in range(row["num_frames"])]
    settings = scene, times, row["height"], row["width"], beginning
    if kinds := row.get("ground_truth"):
        truth = render_ground_truth(*settings)
        frames = truth.frames
        flow = {name: array for name, array in truth._asdict().items() if name.startswith(("forward", "backward"))}
        arrays = {"flow": flow, "masks": truth.masks, "depth": {"depth": truth.depth}}
        for kind in kinds:
            np.savez_compressed(directory / kind / Path(row["file_name"]).with_suffix(".npz"), **arrays[kind])
    else:
        frames = render_clip(*settings)
    metadata = {"scene": asdict(scene), "text": row["text"]}
    write_video(directory / row["file_name"], frames, fps=row["fps"], metadata=metadata)


def missing_lines(path: Path, rows: list[dict[str, Any]]) -> list[str]:
    """Return the JSON lines of the rows that the file does not hold yet; a line that was cut off is removed."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    written = path.read_text("utf-8").splitlines(keepends=True) if path.exists() else []
    if written and not written[-1].endswith("\n"):
        written.pop()
    if written != lines[: len(written)]:
        raise ValueError(f"{path} holds clips with other settings; remove it, or choose another place.")
    write_text(path, "".join(written))
    return lines[len(written) :]


def run_jobs(job: Callable[[Any], None], clips: list, path: Path, missing: list[str], workers: int | None) -> None:
    """Run the job for the last clips, as many as lines are missing, and append the line of each when it is done."""
    start = len(clips) - len(missing)
    workers = min(os.cpu_count() or 1 if workers is None else workers, len(missing))
    with ExitStack() as stack:
        run = map
        if workers:
            # Fresh processes: a fork of one that has threads (torch, OpenCV) can hang.
            pool = ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,))
            run = stack.enter_context(pool).map
        file = stack.enter_context(path.open("a", encoding="utf-8"))
        done = tqdm(run(job, clips[start:]), initial=start, total=len(clips), unit="clip", desc="rendering")
        for line, _ in zip(missing, done, strict=True):
            file.write(line)
            file.flush()


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
    run_jobs(partial(_render_pair_into, directory), jobs, directory / "pairs.jsonl", missing, workers)
    return FramePairs(first, *(np.load(directory / f"{name}.npy", mmap_mode="r") for name, *_ in arrays))


def _render_pair_into(directory: Path, job: tuple[int, Scene, float, float]) -> None:
    index, scene, *times = job
    names = ("frames", "flow", "valid")
    arrays = [np.lib.format.open_memmap(directory / f"{name}.npy", "r+") for name in names]
    truth = render_ground_truth(scene, times, *arrays[0].shape[2:4], consistent=True)
    parts = truth.frames, truth.forward_flow[0], truth.forward_valid[0]
    for array, part in zip(arrays, parts, strict=True):
        array[index] = part
        array.flush()


class DepthFrames(NamedTuple):
    """Some frames of each clip of `render_dataset`, with their depth.

    Attributes:
        frames: (count, frames per clip, size, size, 3) uint8 RGB.
        depth: (count, frames per clip, size, size) float16, see `GroundTruth`.
    """

    frames: np.memmap
    depth: np.memmap


def render_depth(
    directory: str | Path,
    count: int,
    seed: int = 0,
    every: int = 5,
    frames: int = 16,
    fps: float = FPS,
    size: int = SIZE,
    fine_motifs: bool = False,
    workers: int | None = None,
) -> DepthFrames:
    """Render every `every`-th frame of each clip with its depth into arrays in a folder.

    Other arguments, resumption and errors as in `render_dataset`; `frames` is the length of the clips.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    times = [step / fps for step in range(0, frames, every)]
    scenes = [scene_of(index, seed, fine_motifs) for index in range(count)]
    settings = {"seed": seed, "times": times, "size": size, "count": count}
    missing = missing_lines(directory / "depth.jsonl", [{"scene": asdict(scene), **settings} for scene in scenes])
    shape = (count, len(times), size, size)
    if len(missing) == count:
        for name, dtype, ends in (("frames", np.uint8, (3,)), ("depth", np.float16, ())):
            np.lib.format.open_memmap(directory / f"{name}.npy", "w+", dtype, shape + ends).flush()
    job = partial(_render_depth_into, directory, times)
    run_jobs(job, list(enumerate(scenes)), directory / "depth.jsonl", missing, workers)
    return DepthFrames(*(np.load(directory / f"{name}.npy", mmap_mode="r") for name in DepthFrames._fields))


def _render_depth_into(directory: Path, times: Sequence[float], clip: tuple[int, Scene]) -> None:
    index, scene = clip
    arrays = [np.lib.format.open_memmap(directory / f"{name}.npy", "r+") for name in DepthFrames._fields]
    for array, part in zip(arrays, render_with_depth(scene, times, *arrays[1].shape[2:]), strict=True):
        array[index] = part
        array.flush()
