"""Serve captioned videos as training clips."""

from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize

from landscape_video.training.data.caption_tables import RejectedClip
from landscape_video.training.data.clip_check import check_clips, report_rejected
from landscape_video.training.data.clip_list import VideoSource, list_clips
from landscape_video.training.data.clip_sampling import ClipRequest
from pipeline_landscape_video.video_io import VideoFrame


REPORT = "clips_report.jsonl"


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
