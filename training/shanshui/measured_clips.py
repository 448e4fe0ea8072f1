"""Prompts of held-out scenes, and the clips that a pipeline makes of them, stored so that none is made twice."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from captions import caption
from scene import Scene


logger = logging.getLogger(__name__)

LANGUAGES = ("en", "zh")
MODEL_PARTS = ("model_index.json", "tokenizer", "text_encoder", "unet", "motion_adapter", "vae", "scheduler")


@dataclass(frozen=True)
class Request:
    """One clip: the number of its scene and what the pipeline is asked for."""

    index: int
    prompt: str
    negative_prompt: str = ""

    @property
    def file_name(self) -> str:
        key = sha256(f"{self.prompt}\n{self.negative_prompt}".encode()).hexdigest()[:8]
        return f"{self.index:04d}-{key}.npy"


@dataclass(frozen=True)
class Variant:
    """The settings of a call; `noise` chooses among starting noises of a scene."""

    guidance_scale: float = 8.0
    num_frames: int = 16
    noise: int = 0

    @property
    def name(self) -> str:
        return f"guidance{self.guidance_scale:g}-frames{self.num_frames}-noise{self.noise}"


def prompts_of(scenes: Sequence[Scene], seed: int, language: str) -> list[str]:
    """A whole caption for each scene."""
    number = LANGUAGES.index(language)
    return [
        caption(scene, np.random.default_rng((seed, index, 2 + number)), language)
        for index, scene in enumerate(scenes)
    ]


class ClipMaker:
    """Makes clips with a pipeline and keeps them as uint8 `.npy` files (num_frames, height, width, 3).

    They lie in a folder named after the weights and the settings, so that clips of different models never mix; a run
    that was stopped goes on where it was, and one with more prompts makes only the new ones.

    Args:
        model: folder of the pipeline.
        folder: where the clips are kept.
        steps: denoising steps.
        batch: prompts in one call.
        seed: of all starting noises.
        device: to generate on.
    """

    def __init__(self, model: Path, folder: Path, steps: int, batch: int, seed: int, device: str) -> None:
        from pipeline_landscape_video import LandscapeVideoPipeline

        self.pipe = LandscapeVideoPipeline.from_pretrained(model, dtype=torch.float32).to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.folder = folder / f"{model_hash(model)}-steps{steps}-seed{seed}"
        self.steps, self.batch, self.seed = steps, batch, seed
        self.seconds, self.made = 0.0, 0

    @property
    def size(self) -> int:
        """Height and width of the model's clips, pixels."""
        return self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor

    def clips(self, requests: Sequence[Request], variant: Variant) -> list[np.ndarray]:
        """The clips of the requests, read where they are there, else made."""
        folder = self.folder / variant.name
        folder.mkdir(parents=True, exist_ok=True)
        paths = [folder / request.file_name for request in requests]
        missing = [(request, path) for request, path in zip(requests, paths, strict=True) if not path.exists()]
        with tqdm(total=len(requests), initial=len(requests) - len(missing), unit="clip", desc=variant.name) as bar:
            for start in range(0, len(missing), self.batch):
                batch = missing[start : start + self.batch]
                for clip, (_, path) in zip(self.make([r for r, _ in batch], variant), batch, strict=True):
                    with open(path.with_suffix(".part"), "wb") as file:
                        np.save(file, clip)
                    path.with_suffix(".part").replace(path)
                bar.update(len(batch))
        return [np.load(path) for path in paths]

    def make(self, requests: Sequence[Request], variant: Variant) -> np.ndarray:
        """Run the pipeline: uint8 (requests, num_frames, height, width, 3)."""
        start = time.perf_counter()
        # Noise is drawn on the CPU, and for each clip by itself: it depends on neither device nor batch.
        states = [np.random.SeedSequence((self.seed, variant.noise, request.index)) for request in requests]
        generators = [torch.Generator().manual_seed(int(state.generate_state(1)[0])) for state in states]
        frames = self.pipe(
            prompt=[request.prompt for request in requests],
            negative_prompt=[request.negative_prompt for request in requests],
            num_frames=variant.num_frames,
            num_inference_steps=self.steps,
            guidance_scale=variant.guidance_scale,
            generator=generators,
            output_type="np",
            interpolate=False,
        ).frames
        self.seconds += time.perf_counter() - start
        self.made += len(requests)
        return (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)


def model_hash(model: Path, parts: Sequence[str] = MODEL_PARTS) -> str:
    """Twelve digits that stand for the files of a pipeline folder; by default for all that have a say in its clips."""
    digest = sha256()
    for part in parts:
        path = model / part
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file():
                digest.update(str(file.relative_to(model)).encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:12]
