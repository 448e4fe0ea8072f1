"""Every clip is decoded once before training starts: a damaged one is better met then than on the second day.

The outcome is a report, JSON lines, one for each clip that was named: how many frames it has and when they come, or
why it is refused. What the report of an earlier start says of a file that has not changed since is believed.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from tqdm import tqdm

from landscape_video.files import write_text
from landscape_video.training.data.caption_tables import Refusal
from landscape_video.training.data.clip_listing import ListedClip, VideoSource
from pipeline_landscape_video.video_io import VideoError


SECONDS_OFF = 1.0  # between a declared duration and the decoded one; WebVid declares whole seconds
SHOWN = 20  # refusals in a message; all are in the report


class ClipTiming(NamedTuple):
    """`num_frames` frames, the first at `start`, on average `interval` apart, in seconds."""

    num_frames: int
    start: float
    interval: float


def check_clips(
    clips: list[ListedClip],
    refused: list[Refusal],
    num_frames: int = 1,
    stride: int = 1,
    report: Path | None = None,
    workers: int | None = None,
) -> list[tuple[ListedClip, ClipTiming]]:
    """The clips that can be used, in their order, and when their frames come.

    Args:
        refused: holds what was refused already, and takes the clips that cannot be used.
        num_frames, stride: a clip too short for so many frames at such a distance is refused.
        report: the file to write (and to read, if it is there).
        workers: threads; None for one per core. FFmpeg works outside of Python's lock.
    """
    known = _read_report(report)
    found: dict[VideoSource, ClipTiming | str] = {}
    interrupted = Event()
    sources = dict.fromkeys(clip.source for clip in clips)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
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
        finally:  # whoever interrupts does not wait for the rest
            interrupted.set()
            pool.shutdown(wait=False, cancel_futures=True)

    usable = []
    rows = [{"clip": clip, "refused": reason} for clip, reason in refused]
    for clip in clips:
        outcome = found[clip.source]
        reason = outcome if isinstance(outcome, str) else _why_not(clip, outcome, num_frames, stride)
        timing = {} if isinstance(outcome, str) else {"file": _signature(clip.source), **outcome._asdict()}
        rows.append({"clip": str(clip.source), "refused": reason, **timing})
        if reason is None:
            usable.append((clip, outcome))
        else:
            refused.append(Refusal(str(clip.source), reason))
    text = "".join(json.dumps(row) + "\n" for row in rows)
    # The processes of one run find the same: only the first of them writes.
    if report is not None and not (report.is_file() and report.read_text(encoding="utf-8") == text):
        report.parent.mkdir(parents=True, exist_ok=True)
        write_text(report, text)
    return usable


def summarise(refused: list[Refusal], num_usable: int, report: Path | None) -> str:
    """What was refused, in lines for a person."""
    lines = [f"{len(refused)} of {len(refused) + num_usable} clips cannot be used:"]
    lines += [f"{clip}: {reason}" for clip, reason in refused[:SHOWN]]
    if len(refused) > SHOWN:
        lines.append(f"... and {len(refused) - SHOWN} more")
    if report is not None:
        lines.append(f"All of them are listed in {report}.")
    return "\n".join(lines)


def _decode(source: VideoSource, interrupted: Event) -> ClipTiming | str:
    """When the frames come, or what is wrong with the file."""
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


def _why_not(clip: ListedClip, timing: ClipTiming, num_frames: int, stride: int) -> str | None:
    needed = (num_frames - 1) * stride + 1
    if timing.num_frames < needed:
        return f"{timing.num_frames} frames, but {num_frames} frames at a stride of {stride} take at least {needed}."
    seconds = timing.num_frames * timing.interval
    if clip.declared_seconds is not None and abs(seconds - clip.declared_seconds) > SECONDS_OFF:
        return f"lasts {seconds:.1f} s, but its row says {clip.declared_seconds:.1f} s."
    return None


def _signature(source: VideoSource) -> list[int]:
    """Changes when the file does: its size, when it was written, and where in it the clip lies."""
    stat = source.path.stat()
    return [stat.st_size, stat.st_mtime_ns, *(source.member[1:] if source.member is not None else ())]


def _read_report(report: Path | None) -> dict[str, dict[str, Any]]:
    """What an earlier report says of the clips that could be decoded."""
    if report is None or not report.is_file():
        return {}
    rows = {}
    for line in report.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            if "file" in row:
                rows[row["clip"]] = row
        except (ValueError, TypeError, KeyError):
            continue  # not ours, or cut short: the clip is decoded again
    return rows
