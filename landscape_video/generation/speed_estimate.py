"""Predict the time and memory of a clip from a short clip made on the same machine."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from landscape_video.generation.generate_clip import Pipeline, generate_clip
from landscape_video.generation.settings import TextToVideoSettings


GIB = 2**30


@dataclass
class SpeedEstimate:
    """Scales the cost of a measured clip by frames and pixels; attention, which grows faster, is not told apart."""

    seconds_per_step: float | None = None  # of a step, for one pixel of one frame in one pass of the UNet
    seconds_after: float = 0.0  # of decoding and interpolation, for one pixel of one frame
    bytes_before: int | None = None  # in use before the clip
    bytes_per_pixel: float = 0.0  # of one pixel of one frame in one pass of the UNet

    def measure(self, pipe: Pipeline, settings: TextToVideoSettings) -> None:
        """Make a clip of at least two steps, and learn from it."""
        ends = []
        before = memory_in_use(pipe.device)
        generate_clip(pipe, "mist", settings, on_step=lambda progress: ends.append(time.monotonic()))
        after = time.monotonic() - ends[-1]
        filled = settings.filled_in(pipe.resolve_sampling())
        passes = 2 if filled.guidance_scale > 1 else 1
        pixels = settings.num_frames * settings.height * settings.width
        # The first step also allocates and compiles.
        self.seconds_per_step = (ends[-1] - ends[0]) / (len(ends) - 1) / (passes * pixels)
        self.seconds_after = after / pixels
        self.bytes_before = before
        if before is not None:
            self.bytes_per_pixel = max(0, peak_memory(pipe.device) - before) / (passes * pixels)

    def predict(self, values: Mapping[str, Any]) -> tuple[float, float | None] | None:
        """Return the seconds and GiB of a clip; None before `measure`, and None for memory that is not known.

        Args:
            values: `num_frames`, `steps`, `height`, `width`, `guidance_scale` and `interpolate`.
        """
        if self.seconds_per_step is None:
            return None
        passes = 2 if (values["guidance_scale"] or 0) > 1 else 1
        pixels = values["num_frames"] * values["height"] * values["width"]
        seconds = pixels * (passes * values["steps"] * self.seconds_per_step + self.seconds_after)
        memory = None
        if self.bytes_before is not None:
            memory = (self.bytes_before + passes * pixels * self.bytes_per_pixel) / GIB
        return seconds, memory


def memory_in_use(device: torch.device) -> int | None:
    """Bytes in use now, of the GPU or of this process; the peak is counted from here on. None where not known."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # see proc(5): resets VmHWM
        return _status("VmRSS")
    except OSError:  # not on Linux, or not allowed
        return None


def peak_memory(device: torch.device) -> int:
    """Peak of the bytes in use since `memory_in_use`."""
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else _status("VmHWM")


def _status(entry: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{entry}:"))
