"""Rendered clips in bulk, in parallel: as an array for training scripts, or as a folder of captioned videos.

A clip depends on the seed and its own index only. Both writers go on where they were stopped, and say so where what
they find was rendered with other settings.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from shanshui.renderer.constants import FPS, LANGUAGES, SIZE
from shanshui.renderer.painting import render_clip
from shanshui.renderer.scene import WAYS, Scene, sample_beginning, sample_scene


logger = logging.getLogger(__name__)

BEGINNING = 9  # stream of a clip's randomness; its captions draw from lower ones


def scene_of(index: int, seed: int = 0, fine_motifs: bool = True) -> Scene:
    """The scene of clip `index` in the data that `seed` stands for."""
    return sample_scene(np.random.default_rng((seed, index)), fine_motifs)


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
    """Render clips into one array on disk, and their scenes into a `.jsonl` file of the same name beside it.

    Args:
        path: of the `.npy` file. If a part of it is there from a run that was stopped, the rest is rendered.
        count: number of clips.
        seed: of the data; clip `index` shows `scene_of(index, seed, fine_motifs)`.
        frames: frames per clip.
        fps: frames per second.
        size: height and width, pixels.
        fine_motifs: False leaves out what 128 x 128 pixels behind an 8x autoencoder cannot carry.
        workers: processes; None for one per core, 0 to render in this one.
        begin_anywhere: each clip begins like one that goes a way of its own (see `sample_beginning`).

    Returns:
        The clips, uint8 (count, frames, size, size, 3), read-only, and their scenes.

    Raises:
        ValueError: what is at `path` was rendered with other settings.
    """
    path = Path(path)
    settings = {"fps": fps, "seed": seed, "shape": [count, frames, size, size, 3]}
    scenes = [scene_of(index, seed, fine_motifs) for index in range(count)]
    rows = [{"scene": asdict(scene), **settings} for scene in scenes]
    for index, scene in enumerate(scenes if begin_anywhere else ()):
        rows[index]["begins_like"] = ways_to_begin(scene, index, seed)
    with _unfinished(path.with_suffix(".jsonl"), rows) as (start, done):
        if start == 0:
            np.lib.format.open_memmap(path, "w+", np.uint8, tuple(settings["shape"])).flush()
        job = partial(_render_into, path, [step / fps for step in range(frames)])
        jobs = list(zip(range(count), scenes, map(_beginning, scenes, rows), strict=True))
        for _ in _in_order(job, jobs[start:], workers, start, count):
            done()
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
) -> None:
    """Write clips as `clip_000000.mp4`, ... with a `metadata.jsonl` (Hugging Face's VideoFolder layout).

    Each line of it holds `file_name`, `text` (a caption), `texts` (other captions of the same clip) and every
    attribute of the scene. Arguments as for `render_dataset`; `language` is "en", "zh" or "both" (`text` is English
    then).

    Raises:
        ValueError: an unknown language, or the folder's `metadata.jsonl` is of other settings.
    """
    if language not in (*LANGUAGES, "both"):
        raise ValueError(f"`language` must be one of {LANGUAGES} or 'both', got {language!r}.")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    settings = {"num_frames": frames, "fps": fps, "height": height, "width": width}
    rows = []
    for index in range(count):
        scene = scene_of(index, seed, fine_motifs)
        text, *texts = captions_of(scene, index, seed, language)
        rows.append({"file_name": f"clip_{index:06d}.mp4", "text": text, "texts": texts, **asdict(scene), **settings})
        if begin_anywhere:
            rows[-1]["begins_like"] = ways_to_begin(scene, index, seed)
    with _unfinished(directory / "metadata.jsonl", rows) as (start, done):
        for _ in _in_order(partial(_write_clip, directory), rows[start:], workers, start, count):
            done()


def captions_of(scene: Scene, index: int, seed: int, language: str) -> list[str]:
    """Two captions in one language, or two in each."""
    from shanshui.renderer.captions import caption

    rng = np.random.default_rng((seed, index, 1))
    languages = LANGUAGES if language == "both" else (language,)
    return [caption(scene, rng, name) for _ in range(2) for name in languages]


def ways_to_begin(scene: Scene, index: int, seed: int) -> dict[str, str]:
    """The ways of the scene that a clip of `begin_anywhere` begins like."""
    beginning = sample_beginning(scene, np.random.default_rng((seed, index, BEGINNING)))
    return {name: getattr(beginning, name) for name in WAYS}


def _beginning(scene: Scene, row: dict[str, Any]) -> Scene | None:
    return replace(scene, **row["begins_like"]) if "begins_like" in row else None


def _render_into(path: Path, times: Sequence[float], job: tuple[int, Scene, Scene | None]) -> None:
    index, scene, begins_like = job
    array = np.lib.format.open_memmap(path, "r+")
    array[index] = render_clip(scene, times, *array.shape[2:4], begins_like)
    array.flush()


def _write_clip(directory: Path, row: dict[str, Any]) -> None:
    from pipeline_landscape_video.video_io import write_video

    scene = Scene(**{name: row[name] for name in Scene.__dataclass_fields__})
    times = [step / row["fps"] for step in range(row["num_frames"])]
    clip = render_clip(scene, times, row["height"], row["width"], _beginning(scene, row))
    metadata = {"scene": asdict(scene), "text": row["text"]}
    write_video(directory / row["file_name"], clip, fps=row["fps"], metadata=metadata)


@contextmanager
def _unfinished(path: Path, rows: list[dict[str, Any]]) -> Iterator[tuple[int, Callable[[], None]]]:
    """The number of `rows` that stand in the file already, and a function that appends the next one."""
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    text = path.read_text("utf-8") if path.exists() else ""
    written = text.splitlines(keepends=True)
    if written and not written[-1].endswith("\n"):  # cut off in the middle of a line
        written.pop()
    if written != lines[: len(written)]:
        raise ValueError(f"{path} is of clips with other settings: remove it, or write somewhere else.")
    path.write_text("".join(written), "utf-8")
    rest = iter(lines[len(written) :])
    with path.open("a", encoding="utf-8") as file:

        def done() -> None:
            file.write(next(rest))
            file.flush()

        yield len(written), done


def _in_order(job: Callable[[Any], None], items: list, workers: int | None, start: int, count: int) -> Iterator[None]:
    """Do the job for all items, in order as seen from outside, with a progress bar."""
    progress = partial(tqdm, initial=start, total=count, unit="clip", desc="rendering")
    workers = min(os.cpu_count() or 1 if workers is None else workers, len(items))
    if workers == 0:
        yield from progress(map(job, items))
        return
    # Fresh processes: a fork of one that has threads (torch, OpenCV) can hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), initializer=cv2.setNumThreads, initargs=(1,)) as pool:
        yield from progress(pool.map(job, items, chunksize=1))
