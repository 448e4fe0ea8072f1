"""List the clips of a folder with their prompts, and read the frames that are measured.

Clips of systems are generated first, with their cost, and kept for later runs.
"""

import gc
import json
import logging
import re
import time
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from landscape_video.evaluation.systems.text_to_video import FORMS, SystemSpec
from landscape_video.files import hash_file, hash_json, hash_text
from landscape_video.generation.images import read_image
from pipeline_landscape_video.image_files import IMAGE_SUFFIXES, image_files
from pipeline_landscape_video.video_io import (
    VIDEO_EXTENSIONS,
    describe_others,
    is_clip,
    iterate_video,
    probe_video,
    read_metadata,
    write_video,
)
from pipeline_landscape_video.video_writing import SAMPLED_FPS


TABLE = "metadata.jsonl"

GIB = 2**30

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClipFile:
    """A clip to measure.

    Args:
        path: The video.
        prompt: What it shows, `None` if unknown.
        seed: Seed of its noise, `None` if unknown.
        image: Image that it begins with, if it was made from one.
        still: Whether to measure its first frame, repeated, instead.
        group: Number of its prompt: the same for clips of one prompt.
        labels: What it should show, by attribute: camera, palette, ...
    """

    path: Path
    prompt: str | None = None
    seed: int | None = None
    image: Path | None = None
    still: bool = False
    group: int = 0
    labels: Mapping[str, Any] = field(default_factory=dict)

    def key(self, num_frames: int, stride: int, models: str) -> str:
        """Hash everything that determines the measurements; `models` identifies the models that metrics use."""
        files = [hash_clip(self.path), *([hash_file(self.image)] if self.image is not None else [])]
        return hash_json([files, num_frames, stride, self.prompt, self.still, dict(self.labels), models])[:32]

    def frames(self, num_frames: int, stride: int) -> np.ndarray:
        """Every `stride`-th frame from the first on, uint8 RGB `(num_frames, height, width, 3)`.

        Raises:
            ValueError: The file has fewer frames, or is damaged.
        """
        needed, step = (1, 1) if self.still else (num_frames, stride)
        last = (needed - 1) * step + 1
        frames = [frame.pixels for frame in islice(iterate_video(self.path), 0, last, step)]
        if len(frames) < needed:
            raise ValueError(f"{self.path}: must have {needed} frames at stride {step}, got {len(frames)}.")
        return np.repeat(frames, num_frames, axis=0) if self.still else np.stack(frames)

    def read_image(self) -> np.ndarray | None:
        """`image` as uint8 RGB `(height, width, 3)`. Raises `ValueError` if it is not readable."""
        return None if self.image is None else np.asarray(read_image(self.image))


def hash_clip(path: Path) -> str:
    """Hash of a video, or of a folder of images."""
    return hash_json([hash_file(file) for file in image_files(path)]) if path.is_dir() else hash_file(path)


def list_clips(folder: str | Path, num_frames: int, stride: int, images: str | Path | None = None) -> list[ClipFile]:
    """All videos of a folder, without its subfolders, sorted by name. Each is opened.

    The prompt of a clip is found in its metadata (clips of ours), in NAME.txt beside it, or in the folder's
    `metadata.jsonl` (`file_name`, `text`), whichever comes first. Other columns of that file are labels.

    Args:
        folder: Folder of videos.
        num_frames: Frames that will be measured.
        stride: Frame stride at which they will be read.
        images: Folder of images that the clips begin with, by the names of the clips.

    Other files, and clips that are damaged, too short or without their image, are left out with a warning.

    Raises:
        FileNotFoundError: A folder is missing.
        ValueError: No clip is left.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    entries = sorted(folder.iterdir())
    if left_out := describe_others(path for path in entries if not is_clip(path)):
        logger.warning("%s: %s", folder, left_out)
    paths = [path for path in entries if is_clip(path) and not path.name.startswith(".")]
    if not paths:
        raise ValueError(f"{folder}: contains no videos ({', '.join(sorted(VIDEO_EXTENSIONS))}).")
    rows = _read_table(folder / TABLE)
    image_of = {} if images is None else {path.stem: path for path in _files_in(Path(images), IMAGE_SUFFIXES)}
    clips, faults = [], []
    for path in paths:
        try:
            if images is not None and path.stem not in image_of:
                raise ValueError(f"{images}: contains no image {path.stem}.png for {path.name}.")
            prompt, seed = _read_prompt(path, rows.get(path.name, {}), num_frames, stride)
        except (ValueError, OSError) as error:
            faults.append(str(error))
            continue
        labels = rows.get(path.name, {})
        clips.append(ClipFile(path, prompt, seed, image_of.get(path.stem), group=len(clips), labels=labels))
    if not clips:
        raise ValueError(faults[0])
    for fault in faults:
        logger.warning("%s The clip is left out.", fault)
    return clips


def count_kinds(clips: Sequence[ClipFile]) -> str:
    """Count the kinds of clips in words, such as "3 .mp4, 1 folder of images"."""
    kinds = Counter("folder of images" if clip.path.is_dir() else clip.path.suffix.lower() for clip in clips)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items()))


def _read_prompt(path: Path, row: Mapping[str, Any], num_frames: int, stride: int) -> tuple[str | None, int | None]:
    """Prompt and seed of a clip, None if unknown. Raises `ValueError` or `OSError` for one that cannot be measured."""
    declared, needed = probe_video(path).num_frames, (num_frames - 1) * stride + 1
    if declared is not None and declared < needed:
        raise ValueError(f"{path}: has {declared} frames, but {num_frames} at stride {stride} need {needed}.")
    metadata = read_metadata(path)
    prompt, seed = metadata.get("prompt"), metadata.get("seed")
    if not isinstance(prompt, str):
        beside = path.with_suffix(".txt")
        prompt = (_read_text(beside).strip() if beside.is_file() else "") or row.get("text")
    return prompt, seed if isinstance(seed, int) else None


def _files_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder.")
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in suffixes and path.is_file())


def _read_table(table: Path) -> dict[str, dict[str, Any]]:
    """The rows of a `metadata.jsonl` by file name, none if there is no such file."""
    rows = {}
    lines = _read_text(table).splitlines() if table.is_file() else []
    for number, line in ((number, line) for number, line in enumerate(lines, start=1) if line.strip()):
        try:
            row = json.loads(line)
            rows[row["file_name"]] = row | {"text": str(row["text"])}
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f'{table}, line {number}: must be {{"file_name": ..., "text": ...}}.') from error
    return rows


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: must be UTF-8 text.") from error


class GeneratedClips:
    """The clips of one system: `repeats` of each prompt, each with its own seed.

    Their folder is named after the system and the hash of its weights and settings, so clips of other weights or
    settings never mix, and a run that was stopped resumes.

    Args:
        spec: The system.
        prompts: One clip for each, `repeats` times.
        folder: Parent of the folders of clips.
        seed: Seed of all seeds.
        repeats: Clips of a prompt.

    Raises:
        ValueError, OSError: As `SystemSpec.record`.
    """

    def __init__(self, spec: SystemSpec, prompts: Sequence[str], folder: Path, seed: int, repeats: int) -> None:
        self.spec, self.record = spec, spec.record()
        # The hashes of weights determine the clips, their place does not.
        decisive = {name: value for name, value in self.record.items() if name not in ("model", "adapter", "lora")}
        self.folder = folder / f"{re.sub(r'[^0-9A-Za-z._-]+', '-', spec.name)}-{hash_json(decisive)[:8]}"
        self.clips = []
        for index, prompt in enumerate(prompts):
            for own_seed in (clip_seed(seed, repeat, index) for repeat in range(repeats)):
                path = self.folder / f"{index + 1:04d}-{hash_text(prompt)[:8]}-{own_seed}.mp4"
                self.clips.append(ClipFile(path, prompt, own_seed, group=index))

    def make(self, device: str | torch.device, share: slice = slice(None), show_progress: bool = True) -> int:
        """Generate the missing clips of a share of all, and return their number."""
        mine = self.clips[share]
        missing = [clip for clip in mine if not clip.path.exists()]
        if not missing:
            return 0
        self.folder.mkdir(parents=True, exist_ok=True)
        memory = PeakMemory(device)
        runner = FORMS[self.spec.form](self.spec, device)
        progress = {"total": len(mine), "initial": len(mine) - len(missing), "disable": not show_progress}
        with tqdm(unit="clip", desc=f"{self.spec.name}: generating", **progress) as bar:
            for clip in missing:
                memory.reset()
                start = time.perf_counter()
                frames = runner.generate(clip.prompt, clip.seed)
                costs = {"seconds": time.perf_counter() - start, "peak_memory_gib": memory.gib()}
                metadata = {"prompt": clip.prompt, "seed": clip.seed, **costs, "system": self.record}
                write_video(clip.path, frames, SAMPLED_FPS, metadata)
                bar.update()
        del runner  # its memory is free before the next system is loaded
        gc.collect()
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
        return len(missing)

    def costs(self) -> tuple[float, float | None]:
        """Median seconds of a clip, so that the warm-up of the first does not count, and peak memory in GiB."""
        costs: list[dict[str, Any]] = [read_metadata(clip.path) for clip in self.clips]
        memory = [cost["peak_memory_gib"] for cost in costs if cost["peak_memory_gib"] is not None]
        return float(np.median([cost["seconds"] for cost in costs])), max(memory, default=None)


def clip_seed(seed: int, repeat: int, index: int) -> int:
    """The seed of a clip, 32 bits. It stays the same when prompts or repeats are added."""
    return int(np.random.SeedSequence((seed, repeat, index)).generate_state(1)[0])


def still_clips(clips: Sequence[ClipFile], folder: Path, num_frames: int) -> list[ClipFile]:
    """The first frame of each clip, repeated: the baseline that moves nothing.

    Videos of them are written into `folder` for the report; the frame itself is measured, without the codec's loss.
    """
    stills = [replace(clip, still=True) for clip in clips]
    for still in stills:
        shown = shown_file(still, folder)
        if not shown.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_video(shown, still.frames(num_frames, 1), SAMPLED_FPS)
    return stills


def shown_file(clip: ClipFile, still_folder: Path) -> Path:
    """The video that shows a clip."""
    return still_folder / f"{clip.path.stem}-{hash_clip(clip.path)[:8]}.mp4" if clip.still else clip.path


class PeakMemory:
    """Peak of the memory in use since the last `reset`, beyond what was in use when this object was created.

    On a GPU it is the memory that torch allocated there, on a CPU with Linux the resident memory of the process.
    Elsewhere it is not known.
    """

    def __init__(self, device: str | torch.device) -> None:
        self.device = torch.device(device)
        self.before = self._held("VmRSS")

    def reset(self) -> None:
        """Forget earlier peaks."""
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            return
        with suppress(OSError):  # not on Linux, or not allowed: `gib` then counts from the start of the process
            Path("/proc/self/clear_refs").write_text("5")  # see proc(5): resets VmHWM

    def gib(self) -> float | None:
        """The peak in GiB; None where it is not known."""
        peak = self._held("VmHWM")
        return None if peak is None or self.before is None else max(0.0, (peak - self.before) / GIB)

    def _held(self, entry: str) -> int | None:
        if self.device.type == "cuda":
            peak = entry == "VmHWM"
            return (torch.cuda.max_memory_allocated if peak else torch.cuda.memory_allocated)(self.device)
        status = Path("/proc/self/status")
        if self.device.type != "cpu" or not status.exists():
            return None
        for line in status.read_text().splitlines():
            if line.startswith(f"{entry}:"):
                return int(line.split()[1]) * 1024
        return None
