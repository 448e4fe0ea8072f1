"""Add the mask of the background to each training clip, at the size of the latents."""

import json
from pathlib import Path
from typing import Any

import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import center_crop, resize

from landscape_video.files import write_directory, write_text
from landscape_video.generation.masks import background_of, check_masks, read_masks, shrink_mask
from landscape_video.training.data.clip_sampling import ClipDataset, ClipRequest, frames_needed
from landscape_video.training.data.latent_store import CAPTIONS, LATENTS, LatentCache, write_shard
from landscape_video.training.data.tensor_store import TensorReader, read_shape, write_tensors
from landscape_video.training.data.video_dataset import VideoDataset
from pipeline_landscape_video.video_io import probe_video


BACKGROUND = "background"
MASK_SUFFIXES = (".npz", ".npy", ".mp4", "")  # "" is a folder of PNG files


class WithBackgrounds(torch.utils.data.Dataset):
    """Clips of `dataset`, each item with "background", the share of each latent pixel: (num_frames, 1, h, w).

    Args:
        dataset: A `VideoDataset`, the latents that `encode_once` made of one, or a latent cache with backgrounds.
        backgrounds: For each clip, the backgrounds of all frames, (num_frames, 1, h, w) in [0, 1].
    """

    def __init__(self, dataset: ClipDataset, backgrounds: list[torch.Tensor]) -> None:
        self.dataset, self.backgrounds = dataset, backgrounds
        self.captions, self.lengths = dataset.captions, dataset.lengths
        self.default_stride = dataset.default_stride

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, request: ClipRequest) -> dict[str, Any]:
        stop = request.start + frames_needed(request.num_frames, request.stride)
        background = self.backgrounds[request.clip][request.start : stop : request.stride]
        return self.dataset[request] | {BACKGROUND: background.float()}

    def name(self, clip: int) -> str:
        """Location of a clip, for messages."""
        return self.dataset.name(clip)


def read_backgrounds(
    clips: VideoDataset | LatentCache, masks_dir: Path, objects: tuple[str, ...], size: tuple[int, int]
) -> list[torch.Tensor]:
    """Read the background of each clip, (num_frames, 1, h, w) float16.

    Args:
        clips: Videos, or a latent cache that holds backgrounds.
        masks_dir: Folder of the masks of videos.
        objects: See `read_masks`.
        size: Height and width of the latents.

    Raises:
        ValueError: Masks are missing, or do not have the size and number of frames of their clip.
    """
    if isinstance(clips, LatentCache):
        return _stored_backgrounds(clips, size)
    return [_background_of_video(clips, clip, masks_dir, objects, size) for clip in range(len(clips))]


def _background_of_video(
    clips: VideoDataset, clip: int, masks_dir: Path, objects: tuple[str, ...], size: tuple[int, int]
) -> torch.Tensor:
    path = Path(clips.sources[clip].path)
    found = [file for suffix in MASK_SUFFIXES if (file := masks_dir / f"{path.stem}{suffix}").exists()]
    if not found:
        raise ValueError(f"`masks_dir` {masks_dir} has no masks of {clips.name(clip)}: add {path.stem}.npz.")
    masks, info = read_masks(found[:1], objects), probe_video(path)
    try:
        check_masks(masks, clips.lengths[clip], info.height, info.width)
    except ValueError as error:
        raise ValueError(f"{found[0]}: {error}") from error
    # Scaled and cropped as `VideoDataset` does with frames.
    background = resize(background_of(torch.from_numpy(masks)), clips.resolution, InterpolationMode.BILINEAR)
    background = center_crop(background, [clips.resolution, clips.resolution])
    return shrink_mask(background, *size).clamp(0, 1).half()


def backgrounds_shard(latents: Path) -> Path:
    """File of the backgrounds that belong to a shard of latents."""
    return latents.with_name(latents.name.replace(LATENTS, BACKGROUND, 1))


def _stored_backgrounds(clips: LatentCache, size: tuple[int, int]) -> list[torch.Tensor]:
    reader, found = TensorReader(), []
    for place, length in zip(clips.places, clips.lengths, strict=True):
        file = backgrounds_shard(place.file)
        if not file.is_file():
            raise ValueError(f"{file} is missing: combined tuning needs masks. Train on videos with `masks_dir`.")
        shape = read_shape(file, BACKGROUND, "F16", ("clips", "num_frames", 1, "height", "width"))
        if shape[1:] != (length, 1, *size):
            raise ValueError(f"{file} must hold masks of {(length, 1, *size)}, as {place.file.name}, got {shape[1:]}.")
        found.append(reader.read(file, BACKGROUND, place.row, slice(None)))
    return found


def write_masked_latents(
    directory: Path, latents: torch.Tensor, background: torch.Tensor, captions: dict[int, str]
) -> list[int]:
    """Write a latent cache with backgrounds: a clip for each prompt over time.

    Args:
        directory: Folder to write.
        latents: Frames, (num_frames, channels, h, w).
        background: Backgrounds, (num_frames, 1, h, w).
        captions: Prompts by the frame at which they begin.

    Returns:
        Number of frames of each clip.
    """
    starts = [*captions, len(latents)]
    spans = list(zip(starts, starts[1:], captions.values(), strict=False))
    lines = ""
    with write_directory(directory) as folder:
        for number, (start, stop, text) in enumerate(spans):
            shard = write_shard(folder, number, latents[None, start:stop])
            write_tensors(backgrounds_shard(shard), {BACKGROUND: background[None, start:stop].half()})
            lines += json.dumps({"text": text}, ensure_ascii=False) + "\n"
        write_text(folder / CAPTIONS, lines)
    return [stop - start for start, stop, _ in spans]
