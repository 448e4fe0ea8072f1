"""Videos that are encoded by the VAE once, and trained on as latents from then on.

A clip's latents lie in a `TensorStore` under the SHA-256 of the video's bytes, in a folder named after the VAE's
weights and the resolution: a changed video or setting is encoded again, and nothing else is.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from tqdm import tqdm

from landscape_video.files import hash_json, hash_stream, write_json
from landscape_video.training.data.clip_sampling import ClipRequest
from landscape_video.training.data.latents import encode_frames
from landscape_video.training.data.tensor_store import TensorStore, hash_model
from landscape_video.training.data.video_dataset import VideoDataset


SHARD_BYTES = 64 * 2**20
FORMAT = 1  # of what is stored; another number, and everything is encoded again

logger = logging.getLogger(__name__)


class CachedClips(torch.utils.data.Dataset):
    """The clips of a `VideoDataset` as latents; indexed by a `ClipRequest`, like that one.

    Args:
        videos: gives captions, lengths and names.
        store: holds the latents of every clip, float16, (frames, channels, height, width).
        names: of each clip's latents in it.
    """

    def __init__(self, videos: VideoDataset, store: TensorStore, names: list[str]) -> None:
        self.captions = videos.captions
        self.lengths = videos.lengths
        self.default_stride = videos.default_stride
        self.store = store
        self.names = names
        self._sources = [videos.name(clip) for clip in range(len(videos))]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        """The request, and as "latents" its frames, float32, (num_frames, channels, height, width)."""
        stop = request.start + (request.num_frames - 1) * request.stride + 1
        frames = self.store.read(self.names[request.clip], slice(request.start, stop))
        return {"request": request, "latents": frames[:: request.stride].float()}

    def name(self, clip: int) -> str:
        """Where a clip lies, for messages."""
        return self._sources[clip]


def cache_clips(
    videos: VideoDataset, vae: AutoencoderKL, cache_dir: str | Path, process_index: int = 0, num_processes: int = 1
) -> CachedClips:
    """Encode what the cache lacks of `videos`; every process its share of it.

    With several processes, all have to be done (a barrier) and call `store.refresh()` before the first clip is read.
    """
    settings = {"format": FORMAT, "vae": hash_model(vae), "resolution": videos.resolution}
    directory = Path(cache_dir) / f"latents-{hash_json(settings)[:32]}"
    store = TensorStore(directory)
    names = [_hash_source(source) for source in tqdm(videos.sources, desc="Hashing videos", unit="clip", disable=None)]
    missing = {name: clip for clip, name in enumerate(names) if name not in store}
    logger.info("%d of %d clips are in the cache %s.", len(set(names)) - len(missing), len(set(names)), directory)
    if missing and process_index == 0:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(directory / "settings.json", settings)
    # Of all names: processes that look at the cache one after the other do not find the same clips missing.
    own = sorted(set(names))[process_index::num_processes]
    share = [(name, missing[name]) for name in own if name in missing]
    encoded: dict[str, torch.Tensor] = {}
    try:
        for name, clip in tqdm(share, desc="Encoding", unit="clip", disable=None if share else True):
            pixel_values = videos.read(clip, 0, videos.lengths[clip], 1)
            encoded[name] = encode_frames(vae, pixel_values).half().cpu()
            if sum(latents.nbytes for latents in encoded.values()) >= SHARD_BYTES:
                store.write(encoded)
                encoded = {}
    finally:  # a run that is stopped here keeps what it has encoded
        if encoded:
            store.write(encoded)
    return CachedClips(videos, store, names)


def _hash_source(source: Any) -> str:
    with source.open() as file:
        return hash_stream(file)
