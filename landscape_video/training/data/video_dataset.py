"""Decode every captioned video once before training, and serve the usable ones as training clips.

A damaged file is better found now than on the second day. The outcome of the check is a report in JSON lines, one for
each listed clip: its number of frames and their times, or the reason to reject it. Later starts trust the report for
files that have not changed since.
"""

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize
from tqdm import tqdm

from landscape_video.files import read_json_lines, write_text
from landscape_video.training.data.caption_tables import RejectedClip
from landscape_video.training.data.clip_list import ListedClip, VideoSource, list_clips
from landscape_video.training.data.clip_sampling import ClipRequest, why_too_short
from pipeline_landscape_video.video_io import VideoError, VideoFrame


SECONDS_OFF = 1.0  # allowed between declared and decoded duration; WebVid declares whole seconds
SHOWN = 20  # rejected clips in a message; the report has all of them

logger = logging.getLogger(__name__)

REPORT = "clips_report.jsonl"


class ClipTiming(NamedTuple):
    """Times of a clip's frames in seconds: `num_frames`, the first at `start`, `interval` apart on average."""

    num_frames: int
    start: float
    interval: float


def check_clips(
    clips: list[ListedClip],
    rejected: list[RejectedClip],
    num_frames: int = 1,
    stride: int = 1,
    report: Path | None = None,
) -> list[tuple[ListedClip, ClipTiming]]:
    """Find the clips that can be used, in their order, and the times of their frames.

    Args:
        clips: Listed clips, see `list_clips`.
        rejected: Already rejected clips; receives those that cannot be used.
        num_frames, stride: Longest request that will be made; shorter clips are rejected.
        report: File to write, and to read if an earlier start has left one.
    """
    found = _decode_all(dict.fromkeys(clip.source for clip in clips), _read_report(report))
    usable = []
    rows = [{"clip": clip, "refused": reason} for clip, reason in rejected]
    for clip in clips:
        outcome = found[clip.source]
        reason = outcome if isinstance(outcome, str) else _why_rejected(clip, outcome, num_frames, stride)
        timing = {} if isinstance(outcome, str) else {"file": _signature(clip.source), **outcome._asdict()}
        rows.append({"clip": str(clip.source), "refused": reason, **timing})
        if reason is None:
            usable.append((clip, outcome))
        else:
            rejected.append(RejectedClip(str(clip.source), reason))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    # All processes of a run find the same; only the first one writes.
    if report is not None and not (report.is_file() and report.read_text(encoding="utf-8") == text):
        report.parent.mkdir(parents=True, exist_ok=True)
        write_text(report, text)
    return usable


def report_rejected(rejected: list[RejectedClip], num_usable: int, report: Path | None, skip_bad: bool) -> None:
    """Warn about rejected clips if `skip_bad`, raise a `ValueError` otherwise."""
    if not rejected:
        return
    lines = [f"{len(rejected)} of {len(rejected) + num_usable} clips cannot be used:"]
    lines += [f"{clip}: {reason}" for clip, reason in rejected[:SHOWN]]
    lines += [f"... and {len(rejected) - SHOWN} more"] if len(rejected) > SHOWN else []
    lines += [f"{report} lists all of them."] if report is not None else []
    if not skip_bad:
        raise ValueError("\n".join([*lines, "Repair or remove them, or train without them with --skip_bad."]))
    logger.warning("%s", "\n".join(lines))


def _decode_all(
    sources: dict[VideoSource, None], known: dict[str, dict[str, Any]]
) -> dict[VideoSource, ClipTiming | str]:
    """Frame times of each source, or the reason why it cannot be decoded; `known` is an earlier report."""
    found: dict[VideoSource, ClipTiming | str] = {}
    interrupted = Event()
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # threads, because FFmpeg releases Python's lock
        try:
            waiting = {}
            for source in sources:
                row = known.get(str(source))
                if row is not None and row["file"] == _signature(source):
                    found[source] = ClipTiming(row["num_frames"], row["start"], row["interval"])
                else:
                    waiting[pool.submit(_decode, source, interrupted)] = source
            progress = tqdm(total=len(waiting), desc="Checking videos", unit="clip", disable=None if waiting else True)
            for future in as_completed(waiting):
                found[waiting[future]] = future.result()
                progress.update()
            progress.close()
        finally:  # an interrupt does not wait for the remaining videos
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)
    return found


def _decode(source: VideoSource, interrupted: Event) -> ClipTiming | str:
    count, first, last = 0, None, None
    try:
        for frame in source.frames():
            if interrupted.is_set():
                return "not checked to its end."
            first = frame.timestamp if first is None else first
            last = frame.timestamp
            count += 1
    except (VideoError, OSError) as error:
        return str(error).removeprefix(f"{source}: ")
    return ClipTiming(count, float(first), float(last - first) / (count - 1) if count > 1 else 0.0)


def _why_rejected(clip: ListedClip, timing: ClipTiming, num_frames: int, stride: int) -> str | None:
    if reason := why_too_short(timing.num_frames, num_frames, stride):
        return reason
    seconds = timing.num_frames * timing.interval
    if clip.declared_seconds is not None and abs(seconds - clip.declared_seconds) > SECONDS_OFF:
        return f"lasts {seconds:.1f} s, but its row declares {clip.declared_seconds:.1f} s."
    return None


def _signature(source: VideoSource) -> list[int]:
    """Size and modification time of the file, and the clip's place in it: they change when the file does."""
    stat = source.path.stat()
    return [stat.st_size, stat.st_mtime_ns, *(source.member[1:] if source.member is not None else ())]


def _read_report(report: Path | None) -> dict[str, dict[str, Any]]:
    """Rows of an earlier report about clips that could be decoded."""
    rows = [] if report is None else read_json_lines(report)
    return {row["clip"]: row for row in rows if {"clip", "file"} <= row.keys()}


class VideoDataset(torch.utils.data.Dataset):
    """Clips of a dataset, indexed by a `ClipRequest`, because a batch needs certain frames of a clip.

    All videos are decoded once at the start, and every row, member and file that cannot be used is found.

    Positions in a clip are times, not frames of the file: position i is the frame shown i mean frame intervals after
    the first. At a constant rate that is frame i; at a variable rate, motion keeps its speed.

    Args:
        location: A folder with `metadata.jsonl` or `metadata.csv` (`{"file_name": ..., "text": ...}`, where a list
            `texts` may add the caption in other words or languages), a CSV file with WebVid's columns, or a folder of
            WebDataset shards; see `list_clips`.
        resolution: Height and width of the frames in pixels; the shorter side is resized to it, the longer cropped.
        num_frames, stride: Longest request that will be made; clips too short for it cannot be used.
        caption_column: Column that holds the caption.
        skip_bad: Warn about clips that cannot be used and continue without them.
        report: File for the outcome of the check, JSON lines; files checked before are not decoded again.
        root: Folder that must contain the files after links are resolved; the dataset's own folder by default.

    Attributes:
        captions: For each clip, its caption and that caption's other wordings.
        lengths: For each clip, its number of frames.
        sources: For each clip, the location of its bytes.

    Raises:
        FileNotFoundError: No dataset at `location`.
        ValueError: Clips that cannot be used, without `skip_bad`; or no usable clip. The message names each clip.
    """

    default_stride = (4, 4)  # as NADM trains

    def __init__(
        self,
        location: str | Path,
        resolution: int = 256,
        num_frames: int = 1,
        stride: int = 1,
        caption_column: str = "text",
        skip_bad: bool = False,
        report: Path | None = None,
        root: Path | None = None,
    ) -> None:
        self.resolution = resolution
        rejected: list[RejectedClip] = []
        listed = list_clips(location, rejected, caption_column, root)
        usable = check_clips(listed, rejected, num_frames, stride, report)
        report_rejected(rejected, len(usable), report, skip_bad)
        if not usable:
            raise ValueError(f"{location} has no usable clip.")
        self.sources: list[VideoSource] = [clip.source for clip, _ in usable]
        self.captions = [clip.captions for clip, _ in usable]
        self.lengths = [timing.num_frames for _, timing in usable]
        self._timings = [timing for _, timing in usable]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        """The request, and its frames as "pixel_values", see `read`."""
        pixel_values = self.read(request.clip, request.start, request.num_frames, request.stride)
        return {"request": request, "pixel_values": pixel_values}

    def read(self, clip: int, start: int, num_frames: int, stride: int) -> torch.Tensor:
        """Positions `start`, `start + stride`, ... of a clip in [-1, 1], (num_frames, 3, resolution, resolution)."""
        first, interval = self._timings[clip].start, self._timings[clip].interval
        # A quarter of an interval later, because containers round timestamps, to milliseconds for example.
        times = [
            first + (position + 0.25) * interval for position in range(start, start + num_frames * stride, stride)
        ]
        frames = []
        for frame in self.sources[clip].frames():
            shown_until = float(frame.timestamp + max(frame.duration, 0))
            while len(frames) < num_frames and times[len(frames)] < shown_until:
                frames.append(self._fitted(frame))
            if len(frames) == num_frames:
                break
        else:
            # The last frame is assumed to last one mean interval; the duration in the file is ignored.
            if times[-1] > float(frame.timestamp) + interval:
                raise ValueError(f"{self.name(clip)}: has become shorter since it was checked; restart the run.")
            frames += [self._fitted(frame)] * (num_frames - len(frames))
        return torch.stack(frames).float().div_(127.5).sub_(1)

    def _fitted(self, frame: VideoFrame) -> torch.Tensor:
        """uint8 (3, resolution, resolution). One frame at a time: a minute of decoded 1080p takes 11 GB."""
        pixels = torch.from_numpy(frame.pixels).permute(2, 0, 1)
        pixels = resize(pixels, self.resolution, InterpolationMode.BICUBIC, antialias=True)
        return center_crop(pixels, [self.resolution, self.resolution]).contiguous()

    def name(self, clip: int) -> str:
        """Location of a clip, for messages."""
        return str(self.sources[clip])
