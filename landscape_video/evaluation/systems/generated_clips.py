"""Clips that systems make of prompts, kept so that none is made twice."""

import gc
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from landscape_video.evaluation.metrics.peak_memory import PeakMemory
from landscape_video.evaluation.systems.clips import ClipFile
from landscape_video.evaluation.systems.text_to_video import FORMS, SystemSpec
from landscape_video.files import hash_file, hash_json, hash_text
from pipeline_landscape_video.video_io import read_metadata, write_video
from pipeline_landscape_video.video_writing import SAMPLED_FPS


class GeneratedClips:
    """The clips of one system: `repeats` of each prompt, each with a seed of its own.

    They lie in a folder that is named after the system and the hash of its weights and settings, so that clips of
    other weights or settings never mix; a run that was stopped goes on where it was.

    Args:
        spec: the system.
        prompts: one clip each, `repeats` times.
        folder: where such folders are.
        seed: of all seeds.
        repeats: clips of a prompt.

    Raises:
        ValueError, OSError: as `SystemSpec.record`: a part is not there.
    """

    def __init__(self, spec: SystemSpec, prompts: Sequence[str], folder: Path, seed: int, repeats: int) -> None:
        self.spec, self.record = spec, spec.record()
        # Where weights lie says nothing about the clips, their hashes do.
        decisive = {name: value for name, value in self.record.items() if name not in ("model", "adapter", "lora")}
        digest = hash_json(decisive)[:8]
        self.folder = folder / f"{re.sub(r'[^0-9A-Za-z._-]+', '-', spec.name)}-{digest}"
        self.clips = []
        for index, prompt in enumerate(prompts):
            for repeat in range(repeats):
                own_seed = clip_seed(seed, repeat, index)
                self.clips.append(ClipFile(self._path(index, prompt, own_seed), prompt, own_seed, group=index))

    def _path(self, index: int, prompt: str, seed: int) -> Path:
        return self.folder / f"{index + 1:04d}-{hash_text(prompt)[:8]}-{seed}.mp4"

    def make(self, device: str | torch.device, share: slice = slice(None), show_progress: bool = True) -> int:
        """Make what is missing of a share of the clips; how many that were."""
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
                figures = {"seconds": time.perf_counter() - start, "peak_memory_gib": memory.gib()}
                metadata = {"prompt": clip.prompt, "seed": clip.seed, **figures, "system": self.record}
                write_video(clip.path, frames, SAMPLED_FPS, metadata)
                bar.update()
        del runner
        gc.collect()
        if torch.device(device).type == "cuda":
            torch.cuda.empty_cache()
        return len(missing)

    def costs(self) -> tuple[float, float | None]:
        """Median seconds of a clip, so that the first one's warming up does not count, and peak memory in GiB."""
        costs: list[dict[str, Any]] = [read_metadata(clip.path) for clip in self.clips]
        memory = [cost["peak_memory_gib"] for cost in costs if cost["peak_memory_gib"] is not None]
        return float(np.median([cost["seconds"] for cost in costs])), max(memory, default=None)


def clip_seed(seed: int, repeat: int, index: int) -> int:
    """The seed of a clip, 32 bits: it stays the same when prompts or repeats are added."""
    return int(np.random.SeedSequence((seed, repeat, index)).generate_state(1)[0])


def still_clips(clips: Sequence[ClipFile], folder: Path, num_frames: int) -> list[ClipFile]:
    """The first frame of each clip, repeated: what a system that moves nothing would reach.

    The files that show it are written into the folder; measured is the frame itself, not what a codec makes of it.
    """
    stills = []
    for clip in clips:
        still = ClipFile(clip.path, clip.prompt, clip.seed, clip.image, True, clip.group)
        stills.append(still)
        shown = shown_file(still, folder)
        if not shown.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_video(shown, still.frames(num_frames, 1), SAMPLED_FPS)
    return stills


def shown_file(clip: ClipFile, still_folder: Path) -> Path:
    """The video that shows a clip."""
    if not clip.still:
        return clip.path
    return still_folder / f"{clip.path.stem}-{hash_file(clip.path)[:8]}.mp4"
