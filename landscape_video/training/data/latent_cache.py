"""Clips as latents on disk: encoded once, then trained on without a VAE or a video decoder.

    python training/cache_latents.py --pretrained_model_name_or_path MODEL --train_data_dir VIDEOS --output_dir CACHE

A cache is a folder of shards `latents-*.safetensors`, each with one tensor `latents`, float16,
(clips, num_frames, channels, height, width), already multiplied by the VAE's `scaling_factor`; and `captions.jsonl`,
UTF-8, one line for each clip in the order of the sorted shards: `{"text": ..., "texts": [...]}`, where `texts` holds
the same caption in other words or languages and may be missing. Clips in different shards may differ in length.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from tqdm import tqdm

from landscape_video.files import write_directory
from landscape_video.training.data.caption_tables import captions_of, read_rows
from landscape_video.training.data.clip_sampling import ClipRequest
from landscape_video.training.data.latents import encode_frames, load_vae
from landscape_video.training.data.video_dataset import VideoDataset


CAPTIONS = "captions.jsonl"
SHARDS = "latents-*.safetensors"
FIRST_FRAMES = "first_frames"
CLIPS_PER_SHARD = 64

logger = logging.getLogger("latent_cache")


class LatentCache(torch.utils.data.Dataset):
    """The clips of a cache; indexed by a `ClipRequest`, because a batch wants certain frames of a clip.

    Attributes:
        captions: for each clip, its caption and that caption's other wordings.
        lengths: for each clip, its number of frames.
        place: for each clip, the number of its shard and its row there.
        latent_shape: (channels, height, width) of a frame.

    Raises:
        FileNotFoundError, ValueError: for a folder that is no cache, naming the file and what is wrong with it.
    """

    default_stride = (1, 1)  # the cache was made at the stride that is wanted

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self.shards = sorted(self.directory.glob(SHARDS))
        if not self.shards:
            raise FileNotFoundError(f"{self.directory} holds no {SHARDS}.")
        self._handles: dict[int, Any] = {}  # opened when a process first reads from them
        self.place: list[tuple[int, int]] = []
        self.lengths: list[int] = []
        shapes = {}
        for number, shard in enumerate(self.shards):
            clips, num_frames, *frame_shape = self._check_shard(shard)
            self.place += [(number, row) for row in range(clips)]
            self.lengths += [num_frames] * clips
            shapes[tuple(frame_shape)] = shard
        if len(shapes) > 1:
            raise ValueError("Frames differ in shape: " + ", ".join(f"{shape} in {p}" for shape, p in shapes.items()))
        self.latent_shape = next(iter(shapes))
        self.captions = [captions_of(row, where) for where, row in read_rows(self.directory / CAPTIONS)]
        if len(self.captions) != len(self.lengths):
            raise ValueError(
                f"{self.directory / CAPTIONS} has {len(self.captions)} lines, but the shards hold "
                f"{len(self.lengths)} clips."
            )

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        """The request, and as "latents" its frames, float32, (num_frames, channels, height, width)."""
        number, row = self.place[request.clip]
        if number not in self._handles:
            self._handles[number] = safe_open(self.shards[number], framework="pt")
        stop = request.start + (request.num_frames - 1) * request.stride + 1
        frames = self._handles[number].get_slice("latents")[row : row + 1, request.start : stop][0]
        return {"request": request, "latents": frames[:: request.stride].float()}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_handles": {}}  # open files do not travel to worker processes

    def name(self, clip: int) -> str:
        """Where a clip lies, for messages."""
        number, row = self.place[clip]
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


def first_frames_of(shard: Path) -> Path:
    """Where the pixels lie that belong to a shard of latents, see `first_frames.py`."""
    return shard.with_name(shard.name.replace("latents", FIRST_FRAMES, 1))


def write_first_frames(shard: Path, frames: torch.Tensor) -> None:
    """Write the pixels that belong to a shard of latents: uint8, (clips, starts, 3, height, width)."""
    save_file({FIRST_FRAMES: frames.to("cpu", torch.uint8).contiguous()}, first_frames_of(shard))


def encode_videos(
    videos: VideoDataset,
    vae: AutoencoderKL,
    output_dir: str | Path,
    num_frames: int | None = None,
    sample_stride: int = 1,
    first_frames: int = 0,
) -> None:
    """Write the latents of all videos as a cache, which appears at `output_dir` when it is complete.

    Args:
        num_frames: how many frames to keep of each clip, from its first; None keeps all.
        sample_stride: keep every so manyth frame. Training strides count from there.
        first_frames: keep the pixels of so many frames, too, see `first_frames.py`; of fewer where a clip is shorter.

    Raises:
        ValueError: naming the first clip that is too short for `num_frames`.
    """
    lengths = [(length - 1) // sample_stride + 1 for length in videos.lengths]
    for clip, length in enumerate(lengths if num_frames is not None else []):
        if length < num_frames:
            raise ValueError(
                f"{videos.name(clip)}: {videos.lengths[clip]} frames, but {num_frames} frames at a stride of "
                f"{sample_stride} take at least {(num_frames - 1) * sample_stride + 1}."
            )
        lengths[clip] = num_frames
    order = sorted(range(len(lengths)), key=lengths.__getitem__)  # a shard holds clips of one length
    progress = tqdm(total=len(order), desc="Encoding", unit="clip", disable=None)
    with write_directory(output_dir) as directory, (directory / CAPTIONS).open("w", encoding="utf-8") as captions:
        for number, clips in enumerate(_shards(order, lengths)):
            latents, pictures = [], []
            for clip in clips:
                pixel_values = videos.read(clip, 0, lengths[clip], sample_stride)
                latents.append(encode_frames(vae, pixel_values).half().cpu())
                pictures.append(((pixel_values[:first_frames] + 1) * 127.5).round().to(torch.uint8))
                text, *others = videos.captions[clip]
                captions.write(json.dumps({"text": text, "texts": others}, ensure_ascii=False) + "\n")
                progress.update()
            shard = write_shard(directory, number, torch.stack(latents))
            if first_frames > 0:
                write_first_frames(shard, torch.stack(pictures))
    progress.close()


def _shards(order: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """The clips of each shard: neighbours in `order` of equal length."""
    for _, group in groupby(order, key=lengths.__getitem__):
        clips = list(group)
        for first in range(0, len(clips), CLIPS_PER_SHARD):
            yield clips[first : first + CLIPS_PER_SHARD]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Encode videos once, for `train_motion.py`.", allow_abbrev=False)
    parser.add_argument("--pretrained_model_name_or_path", required=True, help="a model with the VAE to encode with")
    parser.add_argument("--revision", help="commit, tag or branch of a hub id")
    parser.add_argument("--train_data_dir", type=Path, required=True, help="videos, as for train_motion.py")
    parser.add_argument("--output_dir", type=Path, required=True, help="must not exist yet")
    parser.add_argument("--resolution", type=int, default=256)
    parser.add_argument("--num_frames", type=int, help="frames to keep of each clip; all")
    parser.add_argument("--sample_stride", type=int, default=1, help="keep every so manyth frame")
    parser.add_argument(
        "--first_frames",
        type=int,
        default=0,
        help="for train_image_retention.py: keep the pixels of the first so many frames of each clip",
    )
    parser.add_argument("--skip_bad", action="store_true", help="go on without the clips that cannot be used")
    args = parser.parse_args(argv)
    for name in ("resolution", "num_frames", "sample_stride"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name} is {value}, but has to be at least 1.")
    if args.first_frames < 0:
        parser.error(f"--first_frames is {args.first_frames}, but has to be 0 or more.")
    if args.output_dir.exists():
        parser.error(f"--output_dir {args.output_dir} exists already.")
    return args


def run(argv: list[str] | None = None) -> int:
    """Parse the flags and encode; what is wrong with the videos or the model becomes one message and code 1."""
    logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s", stream=sys.stderr)
    args = parse_args(argv)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        videos = VideoDataset(
            args.train_data_dir, args.resolution, args.num_frames or 1, args.sample_stride, skip_bad=args.skip_bad
        )
        vae = load_vae(args.pretrained_model_name_or_path, args.revision, device)
        encode_videos(videos, vae, args.output_dir, args.num_frames, args.sample_stride, args.first_frames)
    except (ValueError, OSError, SafetensorError, torch.OutOfMemoryError) as error:
        logger.error("%s", error)
        return 1
    logger.info("Encoded %d clips into %s.", len(videos), args.output_dir)
    return 0
