"""Generate the clips of the systems to measure, measure the cost, and keep them for later runs."""

import gc
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from landscape_video.evaluation.systems.clips import ClipFile, hash_clip
from landscape_video.evaluation.systems.text_to_video import FORMS, SystemSpec
from landscape_video.files import hash_json, hash_text
from pipeline_landscape_video.video_io import read_metadata, write_video
from pipeline_landscape_video.video_writing import SAMPLED_FPS


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


GIB = 2**30


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
        try:
            Path("/proc/self/clear_refs").write_text("5")  # see proc(5): resets VmHWM
        except OSError:
            pass  # not on Linux, or not allowed: `gib` then counts from the start of the process

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
