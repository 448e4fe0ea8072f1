"""Captioned videos as training clips: from a folder, a CSV file or tar shards, checked before they are used."""

import logging
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize

from landscape_video.training.data.caption_tables import Refusal
from landscape_video.training.data.clip_check import check_clips, summarise
from landscape_video.training.data.clip_listing import VideoSource, list_clips
from landscape_video.training.data.clip_sampling import ClipRequest
from pipeline_landscape_video.video_io import VideoFrame


REPORT = "clips_report.jsonl"

logger = logging.getLogger(__name__)


class VideoDataset(torch.utils.data.Dataset):
    """The clips of a data set; indexed by a `ClipRequest`, because a batch wants certain frames of a clip.

    All videos are decoded once at the start, and every row, member and file that cannot be used is found.

    Positions in a clip are times, not frames of the file: position i is the frame that is shown i mean frame intervals
    after the first. At a constant rate that is frame i; at a varying one, motion keeps its speed.

    Args:
        location: one of the layouts of `clip_listing.py`: a folder with `metadata.jsonl` or `metadata.csv`
            (`{"file_name": ..., "text": ...}`, where a list `texts` may add the caption in other words or languages),
            a CSV file of WebVid's columns, or a folder of WebDataset shards.
        resolution: height and width of the frames, in pixels; the shorter side is resized to it, the longer cropped.
        num_frames, stride: the longest request that will be made; a clip that is too short for it cannot be used.
        caption_column: the column that holds the caption.
        skip_bad: go on without what cannot be used.
        report: where to write what was found, JSON lines; a file checked before is not decoded again.
        root: where the files may lie, links followed; the folder itself.

    Attributes:
        captions: for each clip, its caption and that caption's other wordings.
        lengths: for each clip, its number of frames.
        sources: for each clip, where its bytes lie.

    Raises:
        FileNotFoundError, ValueError: there is no such data set, or some of it cannot be used; naming each clip.
    """

    default_stride = (4, 4)  # the paper's

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
        refused: list[Refusal] = []
        listed = list_clips(location, refused, caption_column, root)
        usable = check_clips(listed, refused, num_frames, stride, report)
        if refused:
            found = summarise(refused, len(usable), report)
            if not skip_bad:
                raise ValueError(f"{found}\nMend or remove them, or train without them by --skip_bad.")
            logger.warning("%s", found)
        if not usable:
            raise ValueError(f"{location}: no clip can be used.")
        self.sources: list[VideoSource] = [clip.source for clip, _ in usable]
        self.captions = [clip.captions for clip, _ in usable]
        self.lengths = [timing.num_frames for _, timing in usable]
        self._timings = [timing for _, timing in usable]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        """The request, and as "pixel_values" its frames, as `read` gives them."""
        return {
            "request": request,
            "pixel_values": self.read(request.clip, request.start, request.num_frames, request.stride),
        }

    def read(self, clip: int, start: int, num_frames: int, stride: int) -> torch.Tensor:
        """Positions `start`, `start + stride`, ... of a clip in [-1, 1], (num_frames, 3, resolution, resolution)."""
        first, interval = self._timings[clip].start, self._timings[clip].interval
        # A quarter of an interval later: containers round timestamps, to milliseconds for example.
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
            # The last frame lasts as long as the mean one, whatever the file says.
            if times[-1] > float(frame.timestamp) + interval:
                raise ValueError(f"{self.name(clip)}: has changed since it was checked, and is shorter now.")
            frames += [self._fitted(frame)] * (num_frames - len(frames))
        return torch.stack(frames).float().div_(127.5).sub_(1)

    def _fitted(self, frame: VideoFrame) -> torch.Tensor:
        """uint8 (3, resolution, resolution). Frame by frame: a minute of 1080p as it is decoded takes 11 GB."""
        pixels = torch.from_numpy(frame.pixels).permute(2, 0, 1)
        pixels = resize(pixels, self.resolution, InterpolationMode.BICUBIC, antialias=True)
        return center_crop(pixels, [self.resolution, self.resolution]).contiguous()

    def name(self, clip: int) -> str:
        """Where a clip lies, for messages."""
        return str(self.sources[clip])
