"""Encode clips as VAE latents, store them, and serve them as training clips without a VAE or a video decoder.

There are two layouts, both read by `LatentClips`:

* A latent cache, written by `cache_latents.py` and given to the trainers as their data. Each of its shards
  `latents-*.safetensors` holds one tensor `latents`, float16, (clips, num_frames, channels, height, width), already
  multiplied by the VAE's `scaling_factor`; clips in different shards may differ in length. `captions.jsonl`, UTF-8,
  has one line per clip in the order of the sorted shards: `{"text": ..., "texts": [...]}`, where `texts`, the caption
  in other words or languages, may be missing. For image retention, `first_frames-*.safetensors` beside them each hold
  one tensor `first_frames`, uint8, (clips, starts, 3, height, width): the frames that a training clip may start at.
* The automatic cache of a trainer (`--cache_dir`): one tensor per clip, named by the SHA-256 of the video's bytes, in
  a `TensorStore` whose folder is named after the VAE's weights and the resolution. A changed video or setting is
  encoded again, and nothing else is.
"""

import json
import logging
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import torch
from diffusers import AutoencoderKL
from diffusers.models import AutoModel
from tqdm import tqdm

from landscape_video.files import hash_json, hash_stream, write_directory, write_json
from landscape_video.training.data.caption_tables import RejectedClip, captions_of, raise_rejected, read_table
from landscape_video.training.data.clip_sampling import ClipRequest, frames_needed, why_too_short
from landscape_video.training.data.tensor_store import (
    TensorReader,
    TensorStore,
    hash_model,
    read_shape,
    write_tensors,
)
from landscape_video.training.data.video_dataset import VideoDataset


CAPTIONS = "captions.jsonl"
LATENTS, FIRST_FRAMES = "latents", "first_frames"
SHARDS = f"{LATENTS}-*.safetensors"
CLIPS_PER_SHARD = 64  # of a latent cache
SHARD_BYTES = 64 * 2**20  # of the automatic cache
CACHE_FORMAT = 1  # of the automatic cache; with another number, everything is encoded again

logger = logging.getLogger(__name__)


def load_vae(model: str, revision: str | None, device: torch.device) -> AutoencoderKL:
    """Load the image model's VAE, frozen, in float32: Stable Diffusion's overflows in float16."""
    vae = AutoModel.from_pretrained(model, subfolder="vae", revision=revision, dtype=torch.float32)
    return vae.requires_grad_(False).eval().to(device)


@torch.no_grad()
def encode_frames(vae: AutoencoderKL, pixel_values: torch.Tensor, chunk_size: int = 16) -> torch.Tensor:
    """Encode frames in [-1, 1], (frames, 3, height, width), into scaled latents, (frames, channels, height, width).

    Latents are the mode of the VAE's distribution, not a sample: a clip gets the same latents whenever it is encoded.
    """
    latents = []
    for frames in pixel_values.split(chunk_size):
        encoded = vae.encode(frames.to(vae.device, vae.dtype))
        latents.append(encoded.latent_dist.mode() if "latent_dist" in encoded else encoded.latents)
    shift = getattr(vae.config, "shift_factor", None) or 0
    return (torch.cat(latents) - shift) * vae.config.scaling_factor


class LatentPlace(NamedTuple):
    """Location of a clip's latents: a file, a tensor in it, and the clip's row if the tensor holds several clips."""

    file: Path
    tensor: str
    row: int | None = None


class LatentClips(torch.utils.data.Dataset):
    """Clips stored as latents, indexed by a `ClipRequest`, because a batch needs certain frames of a clip.

    Args:
        captions: For each clip, its caption and that caption's other wordings.
        lengths: For each clip, its number of frames.
        places: For each clip, the location of its latents.
        sources: For each clip, its name for messages.
        default_stride: Smallest and largest distance between frames, unless the user chooses another.
    """

    def __init__(
        self,
        captions: list[list[str]],
        lengths: list[int],
        places: list[LatentPlace],
        sources: list[str],
        default_stride: tuple[int, int],
    ) -> None:
        self.captions, self.lengths, self.places, self.sources = captions, lengths, places, sources
        self.default_stride = default_stride
        self.reader = TensorReader()

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        """The request, and its frames as "latents", float32, (num_frames, channels, height, width)."""
        stop = request.start + frames_needed(request.num_frames, request.stride)
        frames = self.read(self.places[request.clip], slice(request.start, stop))
        return {"request": request, "latents": frames[:: request.stride].float()}

    def read(self, place: LatentPlace, frames: slice) -> torch.Tensor:
        """Some frames of a clip, as they are stored."""
        index = (frames,) if place.row is None else (place.row, frames)
        return self.reader.read(place.file, place.tensor, *index)

    def name(self, clip: int) -> str:
        """Location of a clip, for messages."""
        return self.sources[clip]


# A latent cache


class LatentCache(LatentClips):
    """Clips of a latent cache.

    Attributes:
        shards: Files of latents, sorted.
        latent_shape: (channels, height, width) of a frame.

    Raises:
        FileNotFoundError, ValueError: Not a latent cache; the message names the file and the fault.
    """

    def __init__(self, directory: str | Path) -> None:
        directory = Path(directory)
        self.shards = sorted(directory.glob(SHARDS))
        if not self.shards:
            raise FileNotFoundError(f"{directory} holds no {SHARDS}.")
        places, lengths, shapes = [], [], {}
        for shard in self.shards:
            clips, num_frames, *shape = read_shape(
                shard, LATENTS, "F16", ("clips", "num_frames", "channels", "height", "width")
            )
            places += [LatentPlace(shard, LATENTS, row) for row in range(clips)]
            lengths += [num_frames] * clips
            shapes[tuple(shape)] = shard
        if len(shapes) > 1:
            raise ValueError(
                "Frames differ in shape: " + ", ".join(f"{shape} in {file}" for shape, file in shapes.items())
            )
        (self.latent_shape,) = shapes
        rejected: list[RejectedClip] = []
        captions = read_table(directory / CAPTIONS, captions_of, rejected)
        raise_rejected(rejected)
        if len(captions) != len(lengths):
            raise ValueError(
                f"{directory / CAPTIONS} must have a line for each of the {len(lengths)} clips, got {len(captions)}."
            )
        sources = [f"{place.file}, clip {place.row}" for place in places]
        # The stride was chosen when the cache was written.
        super().__init__(captions, lengths, places, sources, default_stride=(1, 1))


def is_latent_cache(directory: str | Path) -> bool:
    """Whether a folder holds latents rather than videos."""
    return any(Path(directory).glob(SHARDS))


def write_shard(directory: str | Path, number: int, latents: torch.Tensor) -> Path:
    """Write shard `number` of a latent cache and return its path.

    Args:
        latents: (clips, num_frames, channels, height, width), multiplied by the scaling factor; stored as float16.
    """
    path = Path(directory) / SHARDS.replace("*", f"{number:05d}")
    write_tensors(path, {LATENTS: latents.half()})
    return path


def first_frames_shard(latents: Path) -> Path:
    """File of the first frames that belong to a shard of latents."""
    return latents.with_name(latents.name.replace(LATENTS, FIRST_FRAMES, 1))


def write_first_frames(latents: Path, frames: torch.Tensor) -> None:
    """Write the first frames, uint8, (clips, starts, 3, height, width), that belong to a shard of latents."""
    write_tensors(first_frames_shard(latents), {FIRST_FRAMES: frames.to(torch.uint8)})


def encode_videos(
    videos: VideoDataset,
    vae: AutoencoderKL,
    output_dir: str | Path,
    num_frames: int | None = None,
    sample_stride: int = 1,
    first_frames: int = 0,
) -> None:
    """Encode all videos into a latent cache, which appears when it is complete.

    Args:
        videos: Clips to encode.
        vae: Encoder, see `load_vae`.
        output_dir: Folder to write.
        num_frames: Number of frames to keep of each clip, from its first; None keeps all.
        sample_stride: Frame stride: keep every N-th frame. Strides in training count kept frames.
        first_frames: Number of first frames whose pixels are kept, fewer for shorter clips.

    Raises:
        ValueError: A clip is too short for `num_frames`; the message names the first one.
    """
    lengths = [(length - 1) // sample_stride + 1 for length in videos.lengths]
    if num_frames is not None:
        for clip, length in enumerate(videos.lengths):
            if reason := why_too_short(length, num_frames, sample_stride):
                raise ValueError(f"{videos.name(clip)}: {reason}")
        lengths = [num_frames] * len(lengths)
    order = sorted(range(len(lengths)), key=lengths.__getitem__)  # a shard holds clips of one length
    progress = tqdm(total=len(order), desc="Encoding", unit="clip", disable=None)
    with write_directory(output_dir) as directory, (directory / CAPTIONS).open("w", encoding="utf-8") as captions:
        for number, clips in enumerate(_clips_of_shards(order, lengths)):
            latents, pixels = [], []
            for clip in clips:
                pixel_values = videos.read(clip, 0, lengths[clip], sample_stride)
                latents.append(encode_frames(vae, pixel_values).half().cpu())
                pixels.append(((pixel_values[:first_frames] + 1) * 127.5).round().to(torch.uint8))
                text, *others = videos.captions[clip]
                captions.write(json.dumps({"text": text, "texts": others}, ensure_ascii=False) + "\n")
                progress.update()
            shard = write_shard(directory, number, torch.stack(latents))
            if first_frames > 0:
                write_first_frames(shard, torch.stack(pixels))
    progress.close()


def _clips_of_shards(order: list[int], lengths: list[int]) -> Iterator[list[int]]:
    for _, group in groupby(order, key=lengths.__getitem__):
        clips = list(group)
        for first in range(0, len(clips), CLIPS_PER_SHARD):
            yield clips[first : first + CLIPS_PER_SHARD]


# The automatic cache


class AutomaticCache:
    """The latents of `videos` in the automatic cache; what it lacks is encoded on request.

    Attributes:
        names: For each video, the name of its latents in `store`.
    """

    def __init__(self, videos: VideoDataset, vae: AutoencoderKL, cache_dir: str | Path) -> None:
        self.videos, self.vae = videos, vae
        self.settings = {"format": CACHE_FORMAT, "vae": hash_model(vae), "resolution": videos.resolution}
        self.store = TensorStore(Path(cache_dir) / f"latents-{hash_json(self.settings)[:32]}")
        self.names = []
        for source in tqdm(videos.sources, desc="Hashing videos", unit="clip", disable=None):
            with source.open() as file:
                self.names.append(hash_stream(file))

    def encode(self, process_index: int = 0, num_processes: int = 1) -> None:
        """Encode this process's share of what the cache lacks. All must be done before `clips` is called."""
        clip_of = dict(zip(self.names, range(len(self.names)), strict=True))
        missing = sum(name not in self.store.shards for name in clip_of)
        logger.info("%d of %d clips are cached in %s.", len(clip_of) - missing, len(clip_of), self.store.directory)
        if missing and process_index == 0:
            self.store.directory.mkdir(parents=True, exist_ok=True)
            write_json(self.store.directory / "settings.json", self.settings)
        # A share of all names, because processes that look one after the other do not find the same ones missing.
        share = [name for name in sorted(clip_of)[process_index::num_processes] if name not in self.store.shards]
        encoded: dict[str, torch.Tensor] = {}
        try:
            for name in tqdm(share, desc="Encoding", unit="clip", disable=None if share else True):
                clip = clip_of[name]
                pixel_values = self.videos.read(clip, 0, self.videos.lengths[clip], 1)
                encoded[name] = encode_frames(self.vae, pixel_values).half().cpu()
                if sum(latents.nbytes for latents in encoded.values()) >= SHARD_BYTES:
                    self.store.write(encoded)
                    encoded = {}
        finally:  # a run that is stopped here keeps what it has encoded
            if encoded:
                self.store.write(encoded)

    def clips(self) -> LatentClips:
        """The encoded videos.

        Raises:
            ValueError: Some are missing, because the processes do not share the folder.
        """
        self.store.refresh()
        if missing := sum(name not in self.store.shards for name in self.names):
            raise ValueError(
                f"--cache_dir {self.store.directory.parent} lacks {missing} clips that other processes have encoded: "
                "several machines must share one folder."
            )
        videos = self.videos
        places = [LatentPlace(self.store.shards[name], name) for name in self.names]
        return LatentClips(
            videos.captions, videos.lengths, places, list(map(str, videos.sources)), videos.default_stride
        )
