"""Prompts of held-out scenes, and the clips that a pipeline makes of them, stored so that none is made twice."""

import platform
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from tqdm import tqdm

from landscape_video.files import hash_chunks, hash_text, write_file
from shanshui.renderer.captions import caption
from shanshui.renderer.constants import LANGUAGES
from shanshui.renderer.scene import Scene


MODEL_PARTS = ("model_index.json", "tokenizer", "text_encoder", "unet", "motion_adapter", "vae", "scheduler")


@dataclass(frozen=True)
class Request:
    """One clip: the number of its scene and what the pipeline is asked for."""

    index: int
    prompt: str
    negative_prompt: str = ""

    @property
    def file_name(self) -> str:
        key = hash_text(f"{self.prompt}\n{self.negative_prompt}")[:8]
        return f"{self.index:04d}-{key}.npy"


@dataclass(frozen=True)
class Variant:
    """The settings of a call; `noise` chooses among starting noises of a scene."""

    guidance_scale: float = 8.0
    num_frames: int = 16
    noise: int = 0
    eta: float = 0.0

    @property
    def name(self) -> str:
        name = f"guidance{self.guidance_scale:g}-frames{self.num_frames}-noise{self.noise}"
        return f"{name}-eta{self.eta:g}" if self.eta else name


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
        dtype: "float32", or "bfloat16": the weights and the latents between steps are float32 all the same, what
            autocast computes in bfloat16 is each step and the decoding.
        workers: processes of one thread each that make clips side by side; 1 makes them in this process.
    """

    pipeline_class = "LandscapeVideoPipeline"
    model_parts: tuple[str, ...] = MODEL_PARTS

    def __init__(
        self,
        model: Path,
        folder: Path,
        steps: int,
        batch: int,
        seed: int,
        device: str,
        dtype: str = "float32",
        workers: int = 1,
    ) -> None:
        import pipeline_landscape_video

        pipeline_class = getattr(pipeline_landscape_video, self.pipeline_class)
        self.pipe = pipeline_class.from_pretrained(model, dtype=torch.float32).to(device)
        self.pipe.set_progress_bar_config(disable=True)
        self.folder = folder / f"{model_hash(model, self.model_parts)}-steps{steps}-seed{seed}-{dtype}"
        self.steps, self.batch, self.seed, self.device, self.dtype = steps, batch, seed, device, dtype
        self.workers, self.pool = workers, None
        self.worker_arguments = (model, folder, steps, batch, seed, device, dtype)
        self.seconds, self.made = 0.0, 0

    @classmethod
    def from_args(cls, args: Namespace, *arguments: Any) -> Self:
        """As the command line of a measuring script says; `arguments` come before those of this class."""
        workers = args.workers if args.device == "cpu" else 1
        folder = args.output / "generated"
        return cls(*arguments, args.model, folder, args.steps, args.batch, args.seed, args.device, args.dtype, workers)

    @property
    def device_name(self) -> str:
        """For tables: what the clips are made on."""
        on_gpu = self.device.startswith("cuda")
        name = torch.cuda.get_device_name(self.device) if on_gpu else platform.processor() or platform.machine()
        return f"{name}, {self.workers} processes" if self.workers > 1 else name

    @property
    def size(self) -> int:
        """Height and width of the model's clips, pixels."""
        return self.pipe.unet.config.sample_size * self.pipe.vae_scale_factor

    def clips(self, requests: Sequence[Request], variant: Variant) -> list[np.ndarray]:
        """The clips of the requests, read where they are there, else made."""
        (self.folder / variant.name).mkdir(parents=True, exist_ok=True)
        paths = [self.path(request, variant) for request in requests]
        missing = [request for request, path in zip(requests, paths, strict=True) if not path.exists()]
        batches = [missing[start : start + self.batch] for start in range(0, len(missing), self.batch)]
        with tqdm(total=len(requests), initial=len(requests) - len(missing), unit="clip", desc=variant.name) as bar:
            for batch, seconds in zip(batches, self.make_all(batches, variant), strict=True):
                self.seconds += seconds
                self.made += len(batch)
                bar.update(len(batch))
        return [np.load(path) for path in paths]

    def path(self, request: Request, variant: Variant) -> Path:
        return self.folder / variant.name / request.file_name

    def make_all(self, batches: Sequence[Sequence[Request]], variant: Variant) -> Iterator[float]:
        """Make and store the batches; the seconds that each took, in order."""
        if min(self.workers, len(batches)) <= 1:
            return (self.make_and_store(variant, batch) for batch in batches)
        if self.pool is None:
            # Fresh processes: a fork of one that has threads (torch, OpenCV) can hang.
            self.pool = ProcessPoolExecutor(
                self.workers,
                get_context("spawn"),
                initializer=_start_worker,
                initargs=(type(self), *self.worker_arguments),
            )
        return self.pool.map(partial(_make_in_worker, variant), batches)

    def make_and_store(self, variant: Variant, requests: Sequence[Request]) -> float:
        """Seconds that it took to make the clips, in one call of the pipeline."""
        start = time.perf_counter()
        clips = self.make(requests, variant)
        seconds = time.perf_counter() - start
        for clip, request in zip(clips, requests, strict=True):
            path = self.path(request, variant)
            with write_file(path) as unfinished:
                np.save(unfinished, clip)
        return seconds

    def make(self, requests: Sequence[Request], variant: Variant) -> np.ndarray:
        """Run the pipeline: uint8 (requests, num_frames, height, width, 3)."""
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            frames = self.pipe(
                prompt=[request.prompt for request in requests],
                negative_prompt=[request.negative_prompt for request in requests],
                num_frames=variant.num_frames,
                num_inference_steps=self.steps,
                guidance_scale=variant.guidance_scale,
                eta=variant.eta,
                generator=self.generators(requests, variant),
                output_type="np",
                interpolate=False,
            ).frames
        return (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)

    def generators(self, requests: Sequence[Request], variant: Variant) -> list[torch.Generator]:
        """Noise is drawn on the CPU, and for each clip by itself: it depends on neither device nor batch."""
        states = [np.random.SeedSequence((self.seed, variant.noise, request.index)) for request in requests]
        return [torch.Generator().manual_seed(int(state.generate_state(1)[0])) for state in states]


def _start_worker(maker: type[ClipMaker], *arguments) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = maker(*arguments)


def _make_in_worker(variant: Variant, requests: Sequence[Request]) -> float:
    return _worker.make_and_store(variant, requests)


def model_hash(model: Path, parts: Sequence[str] = MODEL_PARTS) -> str:
    """Twelve digits that stand for the files of a pipeline folder; by default for all that have a say in its clips."""
    paths = [model / part for part in parts]
    files = [file for path in paths for file in (path, *sorted(path.rglob("*"))) if file.is_file()]
    return hash_chunks(str(file.relative_to(model)).encode() + file.read_bytes() for file in files)[:12]
