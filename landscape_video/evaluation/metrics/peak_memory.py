"""Measure the peak memory of a system."""

from pathlib import Path

import torch


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
