"""The pictures that image retention begins with: for each training clip, its first frame in RGB beside its latents.

A video has that frame in its file. A latent cache needs shards `first_frames-*.safetensors` beside those of the
latents, one for each and with the same clips in the same order: one tensor `first_frames`, uint8, (clips, starts, 3,
height, width), the pixels of the first so many frames. A training clip begins at one of them.
"""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from landscape_video.training.data.clip_sampling import ClipDataset, ClipRequest
from landscape_video.training.data.latent_cache import FIRST_FRAMES, LatentCache, first_frames_of
from landscape_video.training.data.video_dataset import VideoDataset


IMAGE_STREAM = 1  # of what is drawn from a request's seed, whose own stream is the noise


class WithFirstFrames(torch.utils.data.Dataset):
    """The clips of `dataset`, each item with "image", the first of its frames in [-1, 1], (3, height, width).

    Args:
        dataset: a `VideoDataset`, a latent cache with first frames, or what `encode_once` made of `videos`.
        videos: where the frames of such encoded clips are read.
        image_dropout_prob: how often a clip gets the null picture, which is white (DreamVideo, 5.1); whether it does
            depends on the request alone, and not on whether its caption was dropped.

    Attributes:
        last_start: the last frame that a clip may begin with, None where any may.
        image_size: height and width of the pictures.
    """

    def __init__(self, dataset: ClipDataset, videos: VideoDataset | None, image_dropout_prob: float = 0.0) -> None:
        self.dataset = dataset
        self.captions, self.lengths = dataset.captions, dataset.lengths
        self.default_stride = dataset.default_stride
        self.image_dropout_prob = image_dropout_prob
        self.pictures = CachedFirstFrames(dataset) if isinstance(dataset, LatentCache) else None
        self.videos = videos
        self.last_start = None if self.pictures is None else self.pictures.starts - 1
        self.image_size = (videos.resolution,) * 2 if self.pictures is None else self.pictures.image_size

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        item = self.dataset[request]
        if is_image_dropped(request, self.image_dropout_prob):
            image = torch.ones(3, *self.image_size)
        elif "pixel_values" in item:
            image = item["pixel_values"][0]
        else:
            image = self.read(request.clip, request.start)
        return item | {"image": image}

    def read(self, clip: int, start: int) -> torch.Tensor:
        """Frame `start` of a clip in [-1, 1], (3, height, width)."""
        if self.pictures is not None:
            return self.pictures.read(clip, start).float() / 127.5 - 1
        return self.videos.read(clip, start, 1, 1)[0]

    def name(self, clip: int) -> str:
        """Where a clip lies, for messages."""
        return self.dataset.name(clip)


class CachedFirstFrames:
    """The pixels of the first frames of a latent cache.

    Attributes:
        starts: how many frames of each clip there are.
        image_size: their height and width.

    Raises:
        ValueError: naming the shard that is missing, damaged or not as it should be.
    """

    def __init__(self, cache: LatentCache) -> None:
        self.place = cache.place
        self.shards = [first_frames_of(shard) for shard in cache.shards]
        self._handles: dict[int, Any] = {}  # opened when a process first reads from them
        latents = Counter(number for number, _ in cache.place)
        shapes = set()
        for number, shard in enumerate(self.shards):
            clips, *shape = _check_shard(shard)
            if clips != latents[number]:
                raise ValueError(f"{shard} holds {clips} clips, but the latents beside it {latents[number]}.")
            shapes.add(tuple(shape))
        if len({shape[1:] for shape in shapes}) > 1:
            raise ValueError(f"{cache.directory}: first frames differ in shape: {sorted(shapes)}.")
        self.starts = min(shape[0] for shape in shapes)
        self.image_size = next(iter(shapes))[2:]

    def read(self, clip: int, start: int) -> torch.Tensor:
        """Frame `start` of a clip, uint8, (3, height, width)."""
        number, row = self.place[clip]
        if number not in self._handles:
            self._handles[number] = safe_open(self.shards[number], framework="pt")
        return self._handles[number].get_slice(FIRST_FRAMES)[row : row + 1, start : start + 1][0, 0]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}  # open files do not travel to worker processes


def is_image_dropped(request: ClipRequest, probability: float) -> bool:
    """Whether a clip gets the null picture, a pure function of the request."""
    return bool(np.random.default_rng([request.noise_seed, IMAGE_STREAM]).random() < probability)


def _check_shard(shard: Path) -> list[int]:
    if not shard.is_file():
        raise ValueError(
            f"{shard} is missing: image retention learns from the pixels of first frames. Encode the videos with "
            "`cache_latents.py --first_frames`, or train on the videos themselves."
        )
    try:
        with safe_open(shard, framework="pt") as file:
            view = file.get_slice(FIRST_FRAMES)
            shape, dtype = view.get_shape(), view.get_dtype()
    except SafetensorError as error:
        raise ValueError(f"{shard} is damaged: {error}.") from None
    if len(shape) != 5 or shape[2] != 3 or dtype != "U8":
        raise ValueError(
            f"{shard}: `{FIRST_FRAMES}` is {dtype} of shape {shape}, but has to be U8, "
            "(clips, starts, 3, height, width)."
        )
    return shape
