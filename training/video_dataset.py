"""A folder of captioned videos in Hugging Face's VideoFolder layout: videos beside a `metadata.jsonl`."""

from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize
from tqdm import tqdm

from captions_file import captions_of, read_rows
from clip_sampling import ClipRequest
from pipeline_landscape_video.video_io import VideoError, iterate_video


METADATA = "metadata.jsonl"


class VideoFolder(torch.utils.data.Dataset):
    """The clips of a folder; indexed by a `ClipRequest`, because a batch wants certain frames of a clip.

    `metadata.jsonl` is UTF-8, one line for each clip: `{"file_name": ..., "text": ...}`, where the name is relative to
    the folder and a list `texts` may add the caption in other words or languages. All videos are decoded once at the
    start: a damaged one is better met then than on the second day.

    Args:
        directory: the folder.
        resolution: height and width of the frames, in pixels; the shorter side is resized to it, the longer cropped.

    Attributes:
        captions: for each clip, its caption and that caption's other wordings.
        lengths: for each clip, its number of frames.

    Raises:
        FileNotFoundError, ValueError: naming the file, or all damaged and missing videos, and what is wrong.
    """

    default_stride = (4, 4)  # the paper's

    def __init__(self, directory: str | Path, resolution: int = 256) -> None:
        self.directory = Path(directory)
        self.resolution = resolution
        self.paths, self.captions = read_metadata(self.directory)
        self.lengths, failures = [], []
        for path in tqdm(self.paths, desc="Checking videos", unit="clip", disable=None):
            try:
                self.lengths.append(sum(1 for _ in iterate_video(path)))
            except (VideoError, FileNotFoundError) as error:
                failures.append(str(error))
        if failures:
            raise ValueError(f"{len(failures)} of {len(self.paths)} videos cannot be used:\n" + "\n".join(failures))

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        """The request, and as "pixel_values" its frames, as `read` gives them."""
        return {
            "request": request,
            "pixel_values": self.read(request.clip, request.start, request.num_frames, request.stride),
        }

    def read(self, clip: int, start: int, num_frames: int, stride: int) -> torch.Tensor:
        """Frames `start`, `start + stride`, ... of a clip in [-1, 1], (num_frames, 3, resolution, resolution)."""
        wanted = range(start, start + num_frames * stride, stride)
        frames = []
        for index, frame in enumerate(iterate_video(self.paths[clip])):
            if index in wanted:
                frames.append(torch.from_numpy(frame.pixels).permute(2, 0, 1))  # channels first
            if len(frames) == num_frames:
                break
        else:
            raise ValueError(f"{self.name(clip)}: ends before frame {wanted[-1]}.")
        pixels = resize(torch.stack(frames), self.resolution, InterpolationMode.BICUBIC, antialias=True)
        return center_crop(pixels, [self.resolution, self.resolution]).float() / 127.5 - 1

    def name(self, clip: int) -> str:
        """Where a clip lies, for messages."""
        return str(self.paths[clip])


def read_metadata(directory: str | Path) -> tuple[list[Path], list[list[str]]]:
    """The paths and captions in a folder's `metadata.jsonl`.

    Raises:
        FileNotFoundError, ValueError: naming the file, the line and what is wrong with it.
    """
    directory = Path(directory)
    path = directory / METADATA
    if not path.is_file():
        raise FileNotFoundError(f"{directory} holds neither a {METADATA} nor a latent cache.")
    paths, captions = [], []
    for where, row in read_rows(path):
        name = row.get("file_name")
        if not isinstance(name, str):
            raise ValueError(f"{where}: `file_name` is missing, or no text.")
        if not (directory / name).resolve().is_relative_to(directory.resolve()):
            raise ValueError(f"{where}: {name!r} lies outside the folder.")
        paths.append(directory / name)
        captions.append(captions_of(row, where))
    return paths, captions
