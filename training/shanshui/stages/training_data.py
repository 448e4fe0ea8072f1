"""Prepare what the stages train on: rendered clips, their captions and labels, and their latents.

Clips and latents that exist already are not made again.
"""

import json
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL
from tqdm.auto import tqdm

from landscape_video.files import hash_file, write_directory
from landscape_video.training.data.latent_store import encode_frames, write_first_frames, write_shard
from shanshui.renderer.captions import caption, shown
from shanshui.renderer.dataset import DepthFrames, FramePairs, render_dataset, render_depth, render_pairs
from shanshui.renderer.scene import ATTRIBUTES, CHOICES, LANGUAGES, PICTURES_SEED, SIZE, TRAINING_SEED, Scene
from shanshui.stages.family_run import FamilyRun


CAPTIONS_PER_CLIP = 4  # English and Chinese take turns
AT_REST = ("water", "trees", "light", "waterfall", "pavilion")  # attributes that move little or not at all


def training_clips(run: FamilyRun) -> tuple[np.ndarray, list[Scene]]:
    """Return the training clips, uint8 (clips, 16, 128, 128, 3), and their scenes."""
    return _render(run, render_dataset, "clips.npy", TRAINING_SEED)


def retention_clips(run: FamilyRun) -> tuple[np.ndarray, list[Scene]]:
    """Return the clips that the image retention branch learns from, and their scenes, like `training_clips`.

    The first frame of an ordinary clip reveals where camera and boat will go. A branch trained on such clips reads the
    motion off the image and ignores what the prompt asks for, so the first frames of these clips do not reveal it.
    """
    return _render(run, render_dataset, "picture_clips.npy", PICTURES_SEED, begin_anywhere=True)


def training_pairs(run: FamilyRun) -> FramePairs:
    """Return a pair of neighboring frames of each training clip at twice the size, with the flow between them."""
    return _render(run, render_pairs, "pairs", TRAINING_SEED, size=2 * SIZE)


def training_depth(run: FamilyRun) -> DepthFrames:
    """Return some frames of each training clip with their depth."""
    return _render(run, render_depth, "depth_clips", TRAINING_SEED)


def _render(run: FamilyRun, render: Callable, name: str, seed: int, **settings) -> Any:
    """Call a function of the renderer, such as `render_dataset`, for a file or folder of the run."""
    try:
        return render(run.run_dir / name, run.clips, seed, fine_motifs=False, workers=run.workers, **settings)
    except ValueError as error:  # the file holds another number of clips
        raise SystemExit(f"train_tiny: {error}") from None


def draw_caption(scene: Scene, rng: np.random.Generator, language: str) -> tuple[str, list[str]]:
    """Describe a scene; a fifth of the captions omit some attributes, as the prompts of users do.

    Returns:
        The caption and the attributes that it states.
    """
    unsaid = [name for name in ATTRIBUTES if rng.random() < 0.25] if rng.random() < 0.2 else []
    return _caption_without(unsaid, scene, rng, language)


def motion_caption(scene: Scene, rng: np.random.Generator, language: str) -> tuple[str, list[str]]:
    """Describe what moves in a scene, as users do when they supply the image; returns the same as `draw_caption`.

    Palette and mountain layers are never mentioned, resting things seldom, and a resting camera half of the time.
    """
    unsaid = {"palette", "layers", *(name for name in AT_REST if rng.random() < 0.6)}
    if scene.camera == "still" and rng.random() < 0.5:
        unsaid.add("camera")
    return _caption_without(unsaid, scene, rng, language)


def _caption_without(unsaid: Collection[str], scene: Scene, rng: np.random.Generator, language: str):
    said = [name for name in shown(scene) if name not in unsaid]
    # A caption that omits everything is empty, and gives way to a complete one.
    return caption(scene, rng, language, unsaid) or caption(scene, rng, language), said or shown(scene)


def training_captions(scenes: Sequence[Scene], seed: int = TRAINING_SEED) -> list[list[str]]:
    """Draw `CAPTIONS_PER_CLIP` captions of each scene; caption k is in language k modulo 2."""
    return [
        [
            # Stream 0 of a scene's random numbers draws the scene itself.
            draw_caption(scene, np.random.default_rng((seed, index, 1 + k)), LANGUAGES[k % 2])[0]
            for k in range(CAPTIONS_PER_CLIP)
        ]
        for index, scene in enumerate(scenes)
    ]


def retention_captions(scenes: Sequence[Scene]) -> list[list[str]]:
    """Draw captions for the image retention branch: the second half of each scene's describe only what moves."""
    captions = training_captions(scenes, PICTURES_SEED)
    for index, scene in enumerate(scenes):
        rng = np.random.default_rng((PICTURES_SEED, index, 1 + CAPTIONS_PER_CLIP))
        captions[index][len(LANGUAGES) :] = [motion_caption(scene, rng, language)[0] for language in LANGUAGES]
    return captions


def attribute_labels(scenes: Sequence[Scene], device: torch.device) -> dict[str, torch.Tensor]:
    """Return, for each attribute, the index of every scene's value in `CHOICES`; 0 means absence where that exists."""
    return {
        name: torch.tensor([choices.index(getattr(scene, name)) for scene in scenes], device=device)
        for name, choices in CHOICES.items()
    }


def encode_training_clips(run: FamilyRun) -> None:
    """Write the latents and captions of the training clips."""
    frames, scenes = training_clips(run)
    _write_cache(run, "latents", frames, "clips.jsonl", lambda: training_captions(scenes))


def encode_retention_clips(run: FamilyRun) -> Path:
    """Write latents, captions and first frames of the clips for the image retention branch; returns their folder."""
    frames, scenes = retention_clips(run)
    captions = lambda: retention_captions(scenes)  # noqa: E731
    return _write_cache(run, "moving_pictures", frames, "picture_clips.jsonl", captions, with_first_frames=True)


def encode_clip(vae: AutoencoderKL, frames: np.ndarray) -> torch.Tensor:
    """Encode uint8 frames (num_frames, height, width, 3) into scaled latents, float16 (num_frames, channels, h, w)."""
    return encode_frames(vae, to_pixel_values(frames.copy())).half().cpu()


def _write_cache(
    run: FamilyRun,
    name: str,
    frames: np.ndarray,
    scenes_file: str,
    captions: Callable[[], list[list[str]]],
    with_first_frames: bool = False,
) -> Path:
    """Write a latent cache, unless it was made with the same autoencoder and clips before."""
    folder, vae_folder = run.run_dir / name, run.model("vae")
    made_of = {
        "vae": hash_file(vae_folder / "diffusion_pytorch_model.safetensors"),
        "clips": hash_file(run.run_dir / scenes_file),
    }
    if (folder / "made_of.json").exists() and json.loads((folder / "made_of.json").read_text()) == made_of:
        return folder
    vae = AutoencoderKL.from_pretrained(vae_folder).to(run.device)
    with run.autocast():
        clips = [encode_clip(vae, clip) for clip in tqdm(frames, desc=name, unit="clip")]
    latents = torch.stack(clips)  # outside, because autocast on a CPU refuses to stack float16
    with write_directory(folder) as unfinished:
        shard = write_shard(unfinished, 0, latents)
        if with_first_frames:
            write_first_frames(shard, torch.from_numpy(frames[:, :1].copy()).permute(0, 1, 4, 2, 3))
        with open(unfinished / "captions.jsonl", "w", encoding="utf-8") as file:
            for text, *others in captions():
                file.write(json.dumps({"text": text, "texts": others}, ensure_ascii=False) + "\n")
        (unfinished / "made_of.json").write_text(json.dumps(made_of))
    return folder


def to_pixel_values(frames: np.ndarray) -> torch.Tensor:
    """Convert uint8 (count, height, width, 3) to float32 (count, 3, height, width) in [-1, 1]."""
    return torch.from_numpy(frames).permute(0, 3, 1, 2).float() / 127.5 - 1
