"""Prepare all sources, reject duplicates, and write the dataset with its report and its card.

The report is an HTML page with a contact sheet of each clip. With Ray Data, many machines prepare sources, rows
mapped by `prepare_source`. All machines must see the source and the work folder under the same paths. Ray replaces
workers that die and processes their source again; finished sources are found in the work folder.
"""

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

from landscape_video.evaluation.pages import render_page
from landscape_video.files import write_directory
from landscape_video.training.preparation.clip_filters import hash_distances
from landscape_video.training.preparation.source_clips import prepare_source
from landscape_video.training.settings.preparation import MANIFEST, REJECTED, PreparationSettings
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video.video_io import VIDEO_EXTENSIONS, describe_others, is_clip


# LPV-HD, as NADM describes it (Liu et al., section III-B).
LPV_HD = {
    "clips": "1298",
    "most common duration": "6 s (1088)",
    "most common resolution": "1920 x 1080 (1054)",
    "most common frame rate": "25 fps (1099)",
}
MANIFEST_KEYS = (
    "source", "scene", "start", "end", "num_frames", "fps", "width", "height", "source_width", "source_height",
)  # fmt: skip

logger = logging.getLogger(__name__)


def prepare_on_ray(sources: list[str], settings: PreparationSettings) -> Iterator[dict[str, Any]]:
    """Yield the outcome of each source as it becomes ready.

    Raises:
        ImportError, ValueError: Ray is not installed, no cluster is at the address, or Ray gave up.
    """
    address, workers = settings.machines.ray, settings.machines.workers
    try:
        import ray
    except ImportError:
        raise ImportError("--ray needs Ray: pip install '.[distributed]'.") from None
    environment = {"RAY_USAGE_STATS_ENABLED": "0"}  # Ray sends no usage statistics
    if address == "local":
        os.environ.update(environment)  # inherited
        arguments = {"num_cpus": workers, "include_dashboard": False}
    else:
        arguments = {"runtime_env": {"env_vars": environment}}
    try:
        ray.init(address=address, log_to_driver=False, **arguments)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ValueError(f"--ray {address}: {' '.join(str(error).split())}") from None
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False  # ours is shown
        rows = ray.data.from_items([{"source": name} for name in sources], override_num_blocks=len(sources))

        def prepare(row: dict[str, Any]) -> dict[str, str]:
            outcome = prepare_source(row["source"], settings)
            return {"outcome": json.dumps(outcome)}  # as text, because Arrow would unify and change types

        for row in rows.map(prepare, num_cpus=1, compute=ray.data.TaskPoolStrategy(size=workers)).iter_rows():
            yield json.loads(row["outcome"])
    except ray.exceptions.RayError as error:  # after Ray's own retries
        lines = str(error).strip().splitlines()
        raise ValueError(f"Ray gave up: {lines[-1]} Finished sources are kept: run the same command again.") from None
    finally:
        ray.shutdown()


def write_report(path: Path, clips: list[dict[str, Any]], errors: dict[str, str]) -> None:
    """Write a page of all clips, kept and rejected, whose contact sheets are in `sheets/` beside it.

    Args:
        path: File to write.
        clips: All clips.
        errors: What is wrong with sources that could not be read, by name.
    """
    kept = [clip for clip in clips if not clip["refused"]]
    rejected = [clip for clip in clips if clip["refused"]]
    counts = Counter(reason.split(":")[0] for clip in rejected for reason in clip["refused"]).most_common()
    page = render_page("prepared_clips.html", kept=kept, rejected=rejected, counts=counts, errors=errors)
    path.write_text(page, encoding="utf-8")


def figures(clips: list[dict[str, Any]]) -> dict[str, str]:
    """Describe clips by the figures that NADM gives for LPV-HD."""

    def commonest(values: list[str]) -> str:
        value, count = min(Counter(values).items(), key=lambda item: (-item[1], item[0]))
        return f"{value} ({count})"

    return {
        "clips": str(len(clips)),
        "most common duration": commonest([f"{round(clip['end'] - clip['start'])} s" for clip in clips]),
        "most common resolution": commonest([f"{clip['source_width']} x {clip['source_height']}" for clip in clips]),
        "most common frame rate": commonest([f"{round(clip['fps'], 2):g} fps" for clip in clips]),
    }


def write_card(path: Path, clips: list[dict[str, Any]], settings: dict[str, Any]) -> None:
    """Write the dataset's card: its figures beside those of LPV-HD, and the settings it was made with.

    Args:
        path: File to write.
        clips: Kept clips; at least one.
        settings: Settings of the preparation.
    """
    ours = figures(clips)
    num_sources = len({clip["source"] for clip in clips})
    sizes = Counter(f"{clip['width']} x {clip['height']}" for clip in clips)
    stored = ", ".join(f"{size} ({count})" for size, count in sizes.most_common(3))
    minutes = sum(clip["end"] - clip["start"] for clip in clips) / 60
    compared = markdown_table(("", "this dataset", "LPV-HD"), [(name, ours[name], LPV_HD[name]) for name in LPV_HD])
    made = markdown_table(("setting", "value"), [(f"`{name}`", value) for name, value in settings.items()])
    path.write_text(
        f"""---
task_categories:
- text-to-video
tags:
- video
- landscape-painting
configs:
- config_name: default
  data_files:
  - metadata.jsonl
  - clips/*
---

# Landscape-painting clips

{len(clips)} captioned clips of single scenes, {minutes:.1f} minutes in all, cut from {num_sources} videos by
`training/prepare_dataset.py`. `metadata.jsonl` has a line for each clip: `file_name`, `text`, `texts` (further
captions), its source and its place in it. The table shows the figures that NADM gives for LPV-HD, its dataset of
landscape-painting videos (counts in brackets; resolution and frame rate are those of the sources):

{compared}

LPV-HD was made from 210 clips of ink-wash animations and over 400 videos from YouTube, cut into single scenes and
captioned by hand. The clips here are stored at {stored}.

## How it was made

{made}

`report.html` shows every clip, kept or rejected, with the reason.

## License

The rights to the clips are those of their sources. State them here before you publish anything.
""",
        encoding="utf-8",
    )


def find_sources(source_dir: Path) -> list[str]:
    """Paths of all videos in a folder and its subfolders, relative to it, sorted; hidden ones are left out.

    Other files are counted in a warning, except text, such as captions.

    Raises:
        ValueError: No videos.
    """
    found, others, folders = [], [], set()
    for path in sorted(source_dir.rglob("*")):
        name = path.relative_to(source_dir)
        if any(part.startswith(".") for part in name.parts) or path.parent in folders:
            continue
        if not is_clip(path):
            others.append(path)
            continue
        found.append(path)
        if path.is_dir():
            folders.add(path)
    if left_out := describe_others(others):
        logger.warning("%s", left_out)
    if not found:
        raise ValueError(f"{source_dir} holds no videos ({', '.join(sorted(VIDEO_EXTENSIONS))}).")
    return [path.relative_to(source_dir).as_posix() for path in found]


def prepare_sources(settings: PreparationSettings) -> list[dict[str, Any]]:
    """Prepare all sources, and return their outcomes in the order of their paths; see `prepare_source`.

    Raises:
        ImportError: A package of the extra `train` is missing.
        ValueError: No videos, or Ray gave up.
    """
    if find_spec("imagehash") is None:
        raise ImportError("The preparation needs ImageHash, which is not installed: pip install '.[train]'.")
    sources = find_sources(settings.folders.source_dir)
    settings.work_dir.mkdir(parents=True, exist_ok=True)
    if settings.machines.ray is not None:
        outcomes = prepare_on_ray(sources, settings)
    else:
        outcomes = _prepare_in_processes(sources, settings)
    progress = tqdm(outcomes, total=len(sources), desc="Preparing", unit="video", disable=None)
    found = {outcome["source"]: outcome for outcome in progress}
    return [found[name] for name in sources]


def _prepare_in_processes(sources: list[str], settings: PreparationSettings) -> Iterator[dict[str, Any]]:
    workers = min(settings.machines.workers or os.cpu_count() or 1, len(sources))
    waiting = list(sources)
    while waiting:
        for outcome in _prepare_until_a_worker_dies(waiting, workers, settings):
            waiting.remove(outcome["source"])
            yield outcome
        if waiting:
            logger.warning("A worker was killed. The videos that it may have had are prepared one by one.")
        for name in waiting[: 2 * workers]:
            waiting.remove(name)
            alone = list(_prepare_until_a_worker_dies([name], 1, settings))
            died = {"source": name, "error": "ended its worker, perhaps for want of memory.", "clips": []}
            yield alone[0] if alone else died


def _prepare_until_a_worker_dies(
    sources: list[str], workers: int, settings: PreparationSettings
) -> Iterator[dict[str, Any]]:
    # Fresh processes, because a fork of a process with threads (OpenCV's) can hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        waiting = [pool.submit(prepare_source, name, settings) for name in sources]
        try:
            for future in as_completed(waiting):
                if not isinstance(future.exception(), BrokenProcessPool):
                    yield future.result()
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
