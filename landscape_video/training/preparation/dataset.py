"""Prepare all sources, reject duplicates, and write the dataset."""

import json
import logging
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from landscape_video.files import write_directory
from landscape_video.training.preparation.clip_filters import hash_distances
from landscape_video.training.preparation.dataset_report import write_card, write_report
from landscape_video.training.preparation.source_clips import prepare_source
from landscape_video.training.settings.preparation import MANIFEST, REJECTED, PreparationSettings
from pipeline_landscape_video.video_io import VIDEO_EXTENSIONS, is_clip, is_png_folder


MANIFEST_KEYS = (
    "source", "scene", "start", "end", "num_frames", "fps", "width", "height", "source_width", "source_height",
)  # fmt: skip
TEXT_SUFFIXES = {".txt", ".csv", ".json", ".jsonl", ".md", ".srt", ".vtt", ".html"}

logger = logging.getLogger(__name__)


def find_sources(source_dir: Path) -> list[str]:
    """Paths of all videos in a folder and its subfolders, relative to it, sorted; hidden ones are left out.

    Other files are counted in a warning, except text, such as captions.

    Raises:
        ValueError: No videos.
    """
    names, others = [], Counter()
    for path in sorted(source_dir.rglob("*")):
        name = path.relative_to(source_dir)
        if any(part.startswith(".") for part in name.parts):
            continue
        if is_clip(path):
            names.append(name.as_posix())
        elif path.is_file() and path.suffix.lower() not in TEXT_SUFFIXES and not is_png_folder(path.parent):
            others[path.suffix.lower() or "no suffix"] += 1
    if others:
        found = ", ".join(f"{count} of {suffix}" for suffix, count in sorted(others.items()))
        logger.warning("%d files have no name of a video and are left out: %s.", others.total(), found)
    if not names:
        raise ValueError(f"{source_dir} holds no videos ({', '.join(sorted(VIDEO_EXTENSIONS))}).")
    return names


def prepare_sources(settings: PreparationSettings) -> list[dict[str, Any]]:
    """Prepare all sources, and return their outcomes in the order of their paths; see `prepare_source`.

    Raises:
        ImportError: A package of the extra `train` is missing.
        ValueError: No videos, or a worker died.
    """
    if find_spec("imagehash") is None:
        raise ImportError("The preparation needs ImageHash, which is not installed: pip install '.[train]'.")
    sources = find_sources(settings.folders.source_dir)
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    if settings.machines.ray is not None:
        from landscape_video.training.preparation.prepare_on_ray import prepare_on_ray

        outcomes = prepare_on_ray(sources, settings)
    else:
        outcomes = _prepare_in_processes(sources, settings)
    progress = tqdm(outcomes, total=len(sources), desc="Preparing", unit="video", disable=None)
    found = {outcome["source"]: outcome for outcome in progress}
    return [found[name] for name in sources]


def _prepare_in_processes(sources: list[str], settings: PreparationSettings) -> Iterator[dict[str, Any]]:
    workers = min(settings.machines.workers or os.cpu_count() or 1, len(sources))
    # Fresh processes, because a fork of a process with threads (OpenCV's) can hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        waiting = [pool.submit(prepare_source, name, settings) for name in sources]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool:
            raise ValueError(
                "A worker was killed, perhaps for its memory. Finished videos are kept: run the same command again "
                "with fewer --workers."
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def fit(clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Clips that have not been rejected so far."""
    return [clip for clip in clips if not clip["refused"]]


def reject_duplicates(clips: list[dict[str, Any]], max_distance: float) -> None:
    """Reject each clip that looks like an earlier one.

    The order is that of the paths, so the same clip stays on any number of machines. Pieces of one scene are alike by
    nature and are not compared.
    """
    hashes = np.array([[int(text, 16) for text in clip["hashes"]] for clip in clips], dtype=np.uint64)
    kept: list[int] = []
    for number, clip in enumerate(clips):
        distances = hash_distances(hashes[kept], hashes[number]) if kept else np.empty(0)
        for other in np.flatnonzero(distances <= max_distance):
            first = clips[kept[other]]
            if (first["source"], first["scene"]) != (clip["source"], clip["scene"]):
                original = f"{first['source']} at {first['start']:.2f} s"
                clip["refused"] = [f"duplicate of {original}: {distances[other]:.1f} bits differ"]
                break
        else:
            kept.append(number)


def write_dataset(clips: list[dict[str, Any]], errors: dict[str, str], settings: PreparationSettings) -> None:
    """Write clips, tables, report and card; the folder appears, or replaces an earlier one, when it is complete.

    Clips and contact sheets are hard links to those of the work folder where the file system allows it.

    Args:
        clips: All clips, rejected or not.
        errors: What is wrong with sources that could not be read, by name.
        settings: Settings of the preparation.
    """
    work_dir, kept = settings.work_dir, fit(clips)
    rows = {MANIFEST: [], REJECTED: [{"source": name, "refused": [reason]} for name, reason in errors.items()]}
    with write_directory(settings.folders.output_dir) as directory:
        (directory / "clips").mkdir()
        (directory / "sheets").mkdir()
        for clip in clips:
            row = {key: clip[key] for key in MANIFEST_KEYS}
            _link(work_dir / "sheets" / f"{clip['name']}.jpg", directory / "sheets")
            if clip["refused"]:
                rows[REJECTED].append({**row, "refused": clip["refused"]})
                continue
            _link(work_dir / "clips" / f"{clip['name']}.mp4", directory / "clips")
            text, *texts = clip["texts"]
            rows[MANIFEST].append({"file_name": f"clips/{clip['name']}.mp4", "text": text, "texts": texts, **row})
        for name in rows:
            lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows[name])
            (directory / name).write_text(lines, encoding="utf-8")
        write_report(directory / "report.html", clips, errors)
        if kept:
            write_card(directory / "README.md", kept, settings.published())


def _link(file: Path, folder: Path) -> None:
    try:
        os.link(file, folder / file.name)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(file, folder / file.name)
