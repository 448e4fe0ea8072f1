"""Add the image that image retention starts from to each training clip: its first frame in RGB."""

from collections import Counter
from typing import Any

import numpy as np
import torch

from landscape_video.training.data.clip_sampling import ClipDataset, ClipRequest
from landscape_video.training.data.latent_store import FIRST_FRAMES, LatentCache, LatentPlace, first_frames_shard
from landscape_video.training.data.tensor_store import read_shape
from landscape_video.training.data.video_dataset import VideoDataset


IMAGE_STREAM = 1  # random stream of a request's seed; the seed itself is the noise's


class WithFirstFrames(torch.utils.data.Dataset):
    """Clips of `dataset`, each item with "image", the first of its frames in [-1, 1], (3, height, width).

    Args:
        dataset: A `VideoDataset`, the latents that `encode_once` made of one, or a latent cache with first frames.
        videos: The videos of `dataset`; None for a latent cache.
        image_dropout_prob: Probability of the null image, which is white (DreamVideo, section 5.1). It depends on the
            request alone, not on whether the caption was dropped.

    Attributes:
        last_start: Last frame that a clip may start at, None if any may.
        image_size: Height and width of the images.

    Raises:
        ValueError: First frames of a latent cache are missing, damaged or of another layout; the message names the
            file.
    """

    def __init__(self, dataset: ClipDataset, videos: VideoDataset | None, image_dropout_prob: float = 0.0) -> None:
        self.dataset, self.videos = dataset, videos
        self.captions, self.lengths = dataset.captions, dataset.lengths
        self.default_stride = dataset.default_stride
        self.image_dropout_prob = image_dropout_prob
        if videos is not None:
            self.last_start, self.image_size = None, (videos.resolution,) * 2
        else:
            starts, self.image_size = check_first_frames(dataset)
            self.last_start = starts - 1

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
        if self.videos is not None:
            return self.videos.read(clip, start, 1, 1)[0]
        file, _, row = self.dataset.places[clip]
        frames = self.dataset.read(LatentPlace(first_frames_shard(file), FIRST_FRAMES, row), slice(start, start + 1))
        return frames[0].float() / 127.5 - 1

    def name(self, clip: int) -> str:
        """Location of a clip, for messages."""
        return self.dataset.name(clip)


def is_image_dropped(request: ClipRequest, probability: float) -> bool:
    """Whether a clip gets the null image, a pure function of the request."""
    return bool(np.random.default_rng([request.noise_seed, IMAGE_STREAM]).random() < probability)


def check_first_frames(clips: LatentCache) -> tuple[int, tuple[int, int]]:
    """Number of first frames that every clip of a latent cache has, and their (height, width).

    Raises:
        ValueError: A file is missing, damaged or of another layout; the message names it.
    """
    expected = Counter(place.file for place in clips.places)
    shapes = []
    for latents in clips.shards:
        file = first_frames_shard(latents)
        if not file.is_file():
            raise ValueError(
                f"{file} is missing: image retention learns from the pixels of first frames. Encode the videos with "
                "`cache_latents.py --first_frames`, or train on the videos themselves."
            )
        shape = read_shape(file, FIRST_FRAMES, "U8", ("clips", "starts", 3, "height", "width"))
        if shape[0] != expected[latents]:
            raise ValueError(f"{file} must hold {expected[latents]} clips as {latents.name} does, got {shape[0]}.")
        shapes.append(shape)
    sizes = sorted({shape[3:] for shape in shapes})
    if len(sizes) > 1:
        raise ValueError(f"{clips.shards[0].parent}: first frames differ in size: {sizes}.")
    return min(shape[1] for shape in shapes), sizes[0]
