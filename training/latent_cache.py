"""Clips as latents on disk: encoded once, then trained on without a VAE or a video decoder.

A cache is a folder of shards `latents-*.safetensors`, each with one tensor `latents`, float16,
(clips, num_frames, channels, height, width), already multiplied by the VAE's `scaling_factor`; and `captions.jsonl`,
UTF-8, one line for each clip in the order of the sorted shards: `{"text": ..., "texts": [...]}`, where `texts` holds
the same caption in other words or languages and may be missing.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from clip_sampling import ClipRequest


CAPTIONS = "captions.jsonl"
SHARDS = "latents-*.safetensors"


class LatentCache(torch.utils.data.Dataset):
    """The clips of a cache; indexed by a `ClipRequest`, because a batch wants certain frames of a clip.

    Attributes:
        captions: for each clip, its caption and that caption's other wordings.
        lengths: for each clip, its number of frames.
        latent_shape: (channels, height, width) of a frame.

    Raises:
        FileNotFoundError, ValueError: for a folder that is no cache, naming the file and what is wrong with it.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.shards = sorted(self.directory.glob(SHARDS))
        if not self.shards:
            raise FileNotFoundError(f"{self.directory} holds no {SHARDS}.")
        self._handles: dict[int, Any] = {}  # opened when a process first reads from them
        self._place: list[tuple[int, int]] = []  # shard and row of each clip
        self.lengths: list[int] = []
        shapes = {}
        for number, shard in enumerate(self.shards):
            clips, num_frames, *frame_shape = self._check_shard(shard)
            self._place += [(number, row) for row in range(clips)]
            self.lengths += [num_frames] * clips
            shapes[tuple(frame_shape)] = shard
        if len(shapes) > 1:
            raise ValueError("Frames differ in shape: " + ", ".join(f"{shape} in {p}" for shape, p in shapes.items()))
        self.latent_shape = next(iter(shapes))
        self.captions = read_captions(self.directory / CAPTIONS)
        if len(self.captions) != len(self.lengths):
            raise ValueError(
                f"{self.directory / CAPTIONS} has {len(self.captions)} lines, but the shards hold "
                f"{len(self.lengths)} clips."
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        """The request, and as "latents" its frames, float32, (num_frames, channels, height, width)."""
        number, row = self._place[request.clip]
        if number not in self._handles:
            self._handles[number] = safe_open(self.shards[number], framework="pt")
        stop = request.start + (request.num_frames - 1) * request.stride + 1
        frames = self._handles[number].get_slice("latents")[row : row + 1, request.start : stop][0]
        return {"request": request, "latents": frames[:: request.stride].float()}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}  # open files do not travel to worker processes

    def name(self, clip: int) -> str:
        """Where a clip lies, for messages."""
        number, row = self._place[clip]
        return f"{self.shards[number]}, clip {row}"

    @staticmethod
    def _check_shard(shard: Path) -> list[int]:
        try:
            with safe_open(shard, framework="pt") as file:
                names = list(file.keys())
                if names != ["latents"]:
                    raise ValueError(f"{shard} holds the tensors {names}, but has to hold one, 'latents'.")
                view = file.get_slice("latents")
                shape, dtype = view.get_shape(), view.get_dtype()
        except SafetensorError as error:
            raise ValueError(f"{shard} is damaged: {error}.") from None
        if len(shape) != 5 or dtype != "F16":
            raise ValueError(
                f"{shard}: `latents` is {dtype} of shape {shape}, but has to be F16, "
                "(clips, num_frames, channels, height, width)."
            )
        return shape


def is_latent_cache(directory: str | Path) -> bool:
    """Whether a folder looks like a cache rather than like videos."""
    return any(Path(directory).glob(SHARDS))


def write_shard(directory: str | Path, number: int, latents: torch.Tensor) -> Path:
    """Write one shard.

    Args:
        latents: (clips, num_frames, channels, height, width), multiplied by the scaling factor; stored as float16.
    """
    path = Path(directory) / SHARDS.replace("*", f"{number:05d}")
    save_file({"latents": latents.to("cpu", torch.float16).contiguous()}, path)
    return path


def read_captions(path: str | Path) -> list[list[str]]:
    """The captions of each line of a `captions.jsonl`: `text`, then what `texts` adds to it.

    Raises:
        FileNotFoundError, ValueError: naming the file, the line and what is wrong with it.
    """
    path = Path(path)
    captions = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").rstrip().split("\n"), start=1):
        try:
            row = json.loads(line)
            texts = [row["text"], *row.get("texts", [])]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: not {{'text': ..., 'texts': [...]}}: {error!r}.") from None
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"{path}, line {number}: every caption has to be a text that is not empty.")
        captions.append(list(dict.fromkeys(texts)))
    return captions
