"""From raw videos to training clips, as LPV-HD was made: single scenes, filtered, cropped, resized, captioned.

    python training/prepare_dataset.py RAW_VIDEOS --output_dir CLIPS

CLIPS becomes a folder for `train_motion.py --train_data_dir`: `clips/`, `metadata.jsonl`, a card (`README.md`), and
for a person `report.html` with a contact sheet of every clip, kept and refused; `refused.jsonl` says the same to a
program.
RAW_VIDEOS is only read. What is done is remembered in CLIPS.work: a run that was stopped, or that gets other captions,
does not do it again. CLIPS itself is made anew each time.
"""

import argparse
import json
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, fields
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from landscape_video.files import write_directory
from landscape_video.training.data.clip_list import VIDEO_EXTENSIONS
from landscape_video.training.preparation.clip_captions import (
    PROMPT,
    ask_for_captions,
    read_caption_table,
    take_written_captions,
)
from landscape_video.training.preparation.clip_filters import Thresholds, hash_distances
from landscape_video.training.preparation.dataset_report import write_card, write_report
from landscape_video.training.preparation.source_clips import Preparation, prepare_source


EXIT_FAILED, EXIT_STOPPED = 1, 130  # the second as shells do it for Ctrl-C
MANIFEST, REFUSED = "metadata.jsonl", "refused.jsonl"
MANIFEST_KEYS = (
    "source", "scene", "start", "end", "num_frames", "fps", "width", "height", "source_width", "source_height",
)  # fmt: skip

logger = logging.getLogger("prepare_dataset")


def main(args: argparse.Namespace) -> int:
    """Prepare the data set, and return the exit code."""
    limits = Thresholds(**{field.name: getattr(args, field.name) for field in fields(Thresholds)})
    preparation = Preparation(
        args.resolution, args.square, args.max_seconds, args.trim_frames, args.cut_threshold, args.crop_bars, limits
    )
    table = read_caption_table(args.captions) if args.captions is not None else {}
    sources = find_sources(args.source_dir)
    work_dir = args.output_dir.with_name(args.output_dir.name + ".work")
    work_dir.mkdir(parents=True, exist_ok=True)

    # 1. Scenes, filters, clips: each source by itself, on all the workers
    progress = tqdm(total=len(sources), desc="Preparing", unit="video", disable=None)
    outcomes = {}
    for outcome in prepare_all(sources, args, work_dir, preparation):
        outcomes[outcome["source"]] = outcome
        progress.update()
    progress.close()
    outcomes = [outcomes[name] for name in sources]  # in the order of paths, whoever was ready first
    clips = [clip for outcome in outcomes for clip in outcome["clips"]]

    # 2. What takes all clips together. Written captions first: a clip that goes for want of one is no reason to refuse
    #    another that looks like it. The model, which takes long, is not asked about duplicates.
    model = args.caption_model
    take_written_captions(fit(clips), args.source_dir, table, others_follow=model is not None)
    refuse_duplicates(fit(clips), args.max_hash_distance)
    if model is not None:
        ask_for_captions(fit(clips), work_dir, model, args.caption_prompt)

    # 3. The data set
    errors = {outcome["source"]: outcome["error"] for outcome in outcomes if outcome["error"]}
    kept = fit(clips)
    settings = {**asdict(preparation), **asdict(limits), "max_hash_distance": args.max_hash_distance}
    del settings["limits"]
    with write_directory(args.output_dir) as directory:
        write_dataset(directory, work_dir, clips, errors)
        if kept:
            write_card(directory / "README.md", kept, len({clip["source"] for clip in kept}), settings)
    logger.info(
        "%d clips kept, %d refused, %d videos could not be read: see %s.",
        len(kept), len(clips) - len(kept), len(errors), args.output_dir / "report.html",
    )  # fmt: skip
    if not kept:
        logger.error("No clip is left to train on.")
        return EXIT_FAILED
    return 0


def fit(clips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that nothing has been found against so far."""
    return [clip for clip in clips if not clip["refused"]]


def find_sources(source_dir: Path) -> list[str]:
    """The paths of all videos in a folder and its folders, relative to it, sorted; hidden ones are left out.

    Raises:
        ValueError: there is none.
    """
    paths = (path.relative_to(source_dir) for path in source_dir.rglob("*") if path.is_file())
    names = [
        path.as_posix()
        for path in paths
        if path.suffix.lower().removeprefix(".") in VIDEO_EXTENSIONS
        and not any(part.startswith(".") for part in path.parts)
    ]
    if not names:
        raise ValueError(f"{source_dir} holds no videos ({', '.join(sorted(VIDEO_EXTENSIONS))}).")
    return sorted(names)


def prepare_all(
    sources: list[str], args: argparse.Namespace, work_dir: Path, preparation: Preparation
) -> Iterator[dict[str, Any]]:
    """The outcome of each source, as they are ready.

    Raises:
        ValueError: a worker died.
    """
    if args.ray is not None:
        from landscape_video.training.preparation.prepare_on_ray import prepare_on_ray

        yield from prepare_on_ray(sources, args.source_dir, work_dir, preparation, args.ray, args.workers)
        return
    workers = min(args.workers or os.cpu_count() or 1, len(sources))
    # Fresh processes: a fork of one that has threads (OpenCV) can hang.
    with ProcessPoolExecutor(workers, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        waiting = [pool.submit(prepare_source, args.source_dir, name, work_dir, preparation) for name in sources]
        try:
            for future in as_completed(waiting):
                yield future.result()
        except BrokenProcessPool:
            raise ValueError(
                "A worker was killed, perhaps for its memory: run the same command again, with fewer --workers. What "
                "is done is kept."
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def refuse_duplicates(clips: list[dict[str, Any]], max_distance: float) -> None:
    """Refuse each clip that looks like an earlier one, in the order of paths: the first one stays, on any number of
    machines. Pieces of one scene are alike by nature, and are not compared."""
    hashes = np.array([[int(text, 16) for text in clip["hashes"]] for clip in clips], dtype=np.uint64)
    kept: list[int] = []
    for number, clip in enumerate(clips):
        distances = hash_distances(hashes[kept], hashes[number]) if kept else np.empty(0)
        for other in np.flatnonzero(distances <= max_distance):
            first = clips[kept[other]]
            if (first["source"], first["scene"]) != (clip["source"], clip["scene"]):
                where = f"{first['source']} at {first['start']:.2f} s"
                clip["refused"] = [f"duplicate of {where}: {distances[other]:.1f} bits differ"]
                break
        else:
            kept.append(number)


def write_dataset(directory: Path, work_dir: Path, clips: list[dict[str, Any]], errors: dict[str, str]) -> None:
    """Fill the folder: clips, tables, report. Files are links to those of the work folder where links can be made."""
    (directory / "clips").mkdir()
    (directory / "sheets").mkdir()
    kept_rows, refused_rows = [], [{"source": name, "refused": [reason]} for name, reason in errors.items()]
    for clip in clips:
        row = {key: clip[key] for key in MANIFEST_KEYS}
        _link(work_dir / "sheets" / f"{clip['name']}.jpg", directory / "sheets")
        if clip["refused"]:
            refused_rows.append({**row, "refused": clip["refused"]})
            continue
        _link(work_dir / "clips" / f"{clip['name']}.mp4", directory / "clips")
        text, *texts = clip["texts"]
        kept_rows.append({"file_name": f"clips/{clip['name']}.mp4", "text": text, "texts": texts, **row})
    for name, rows in ((MANIFEST, kept_rows), (REFUSED, refused_rows)):
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (directory / name).write_text(lines, encoding="utf-8")
    write_report(directory / "report.html", clips, errors)


def _link(file: Path, folder: Path) -> None:
    try:
        os.link(file, folder / file.name)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(file, folder / file.name)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse and check the flags; wrong ones end the process with code 2 and one line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("source_dir", type=Path, metavar="RAW_VIDEOS", help="a folder; all videos in it are taken")
    parser.add_argument("--output_dir", type=Path, required=True, metavar="CLIPS")
    group = parser.add_argument_group("clips")
    group.add_argument(
        "--resolution", type=int, default=512, help="shorter side, in pixels; nothing is enlarged (512)"
    )
    group.add_argument("--square", action="store_true", help="cut out the middle, as high as wide")
    group.add_argument("--max_seconds", type=float, default=6.0, help="longer scenes become several clips (6)")
    group.add_argument("--trim_frames", type=int, default=2, help="left out at both ends of a scene (2)")
    group.add_argument("--cut_threshold", type=float, default=3.0, help="how many times the usual change is a cut (3)")
    group.add_argument(
        "--crop_bars", action="store_true", help="cut black bars off, instead of refusing what has them"
    )
    group = parser.add_argument_group(
        "filters", "What is refused. report.html gives the measured value of each refusal."
    )
    defaults = Thresholds()
    for name, kind, what in (
        ("min_seconds", float, "too short, without the trimmed frames"),
        ("min_size", int, "too small: pixels on the shorter side"),
        ("min_motion", float, "still: levels of 255 that the picture changes by"),
        ("min_brightness", float, "black: the level that the brightest pixels reach"),
        ("max_bars", float, "letterboxed: share of the picture that is black bars"),
        (
            "max_border_text",
            float,
            "watermarked or subtitled: share of a window that is sharp and stands still; 1: off",
        ),
    ):
        group.add_argument(f"--{name}", type=kind, default=getattr(defaults, name), help=f"{what} (%(default)s)")
    group.add_argument(
        "--max_hash_distance",
        type=float,
        default=6.0,
        help="duplicates: bits of 64 in which they may differ (6); -1: off",
    )
    group = parser.add_argument_group("captions", "The first that there is; a clip without a caption is refused.")
    group.add_argument(
        "--captions", type=Path, help=".csv or .jsonl with file_name and text; the name of a clip or of a raw video"
    )
    group.add_argument(
        "--caption_model",
        help="folder or hub id of an image-text-to-text model; asked last. Before it: VIDEO.txt beside VIDEO.mp4",
    )
    group.add_argument("--caption_prompt", default=PROMPT, help="what to ask the model")
    group = parser.add_argument_group("machines")
    group.add_argument("--workers", type=int, help="processes; one for each core")
    group.add_argument(
        "--ray",
        metavar="local|ADDRESS",
        help="work on a Ray cluster (auto: the one around) that sees both folders "
        "under the same paths; needs `pip install .[distributed]`",
    )
    args = parser.parse_args(argv)
    try:
        _check(args)
    except ValueError as error:
        parser.error(str(error))
    return args


def _check(args: argparse.Namespace) -> None:
    for names, least in (
        (("resolution", "min_size"), 16),
        (("workers",), 1),
        (("trim_frames", "min_seconds", "min_motion", "min_brightness", "max_bars", "max_border_text"), 0),
    ):
        for name in names:
            value = getattr(args, name)
            if value is not None and not value >= least:  # NaN is not, either
                raise ValueError(f"--{name} is {value}, but has to be at least {least}.")
    if not args.max_seconds >= max(args.min_seconds, 0.1):
        raise ValueError(f"--max_seconds is {args.max_seconds}, but has to be at least --min_seconds, and 0.1.")
    if not args.cut_threshold > 1:
        raise ValueError(f"--cut_threshold is {args.cut_threshold}, but has to be above 1.")
    if not args.source_dir.is_dir():
        raise ValueError(f"{args.source_dir} is no folder.")
    if args.captions is not None and not args.captions.is_file():
        raise ValueError(f"--captions {args.captions}: no such file.")
    # Absolute, because workers may run elsewhere.
    args.source_dir, args.output_dir = args.source_dir.resolve(), args.output_dir.resolve()
    if args.output_dir.is_relative_to(args.source_dir) or args.source_dir.is_relative_to(args.output_dir):
        raise ValueError("--output_dir and RAW_VIDEOS lie in one another: clips would be taken for raw videos.")
    if args.output_dir.exists() and not (args.output_dir.is_dir() and _is_ours(args.output_dir)):
        raise ValueError(f"--output_dir {args.output_dir} holds something else than an earlier run of this program.")


def _is_ours(directory: Path) -> bool:
    return not any(directory.iterdir()) or all((directory / name).is_file() for name in (MANIFEST, REFUSED))


def run(argv: list[str] | None = None) -> int:
    """Parse the flags and prepare; what can be expected to go wrong becomes one message and code 1."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    args = parse_args(argv)
    try:
        return main(args)
    except (ValueError, OSError, ImportError) as error:
        logger.error("%s", error)
        return EXIT_FAILED
    except KeyboardInterrupt:
        logger.error("Stopped. What is done is kept: run the same command again to go on.")
        return EXIT_STOPPED


if __name__ == "__main__":
    sys.exit(run())
