"""Generate the clips that are measured, from captions of held-out scenes, and store them for later runs.

Contact sheets show frames of rendered and generated clips side by side, with their prompts.
"""

import platform
import textwrap
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field, fields, replace
from functools import cached_property, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from tqdm import tqdm, trange

from landscape_video.evaluation.systems.clips import clip_seed
from landscape_video.files import hash_chunks, hash_json, hash_text, write_file
from landscape_video.generation.generate_clip import Pipeline, run_pipeline
from landscape_video.generation.settings import TextToVideoSettings
from pipeline_landscape_video import LandscapeImageToVideoPipeline, LandscapeVideoPipeline
from shanshui.renderer.captions import caption
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import LANGUAGES, Scene


MODEL_PARTS = ("model_index.json", "tokenizer", "text_encoder", "unet", "motion_adapter", "vae", "scheduler")

CHINESE_FONTS = (
    "NotoSansCJK-Regular.ttc", "NotoSerifCJK-Regular.ttc", "SourceHanSansSC-Regular.otf", "wqy-microhei.ttc",
    "PingFang.ttc", "msyh.ttc", "simsun.ttc",
)  # fmt: skip
FRAMES = 4  # of each clip
FONT_SIZE, LINE_HEIGHT, GAP = 13, 18, 16  # pixels; the gap is between the two clips


@dataclass(frozen=True)
class Request:
    """One clip: the number of its scene, and what the pipeline is asked for."""

    index: int
    prompt: str
    negative_prompt: str = ""

    @property
    def file_name(self) -> str:
        """Name of the stored clip."""
        digest = hash_text(f"{self.prompt}\n{self.negative_prompt}")
        return f"{self.index:04d}-{digest[:8]}.npy"


@dataclass(frozen=True)
class Variant:
    """How clips are sampled.

    Args:
        settings: Settings of sampling; their seed is not used.
        noise: Chooses among the starting noises of a scene.
        stages: Stages of an animated clip.
    """

    settings: TextToVideoSettings
    noise: int = 0
    stages: int = 1

    def changed(self, **settings: Any) -> Self:
        """The same with other settings."""
        return replace(self, settings=replace(self.settings, **settings))

    @property
    def name(self) -> str:
        """Name of the folder of such clips. All settings are part of it."""
        digest = hash_json([self.settings.as_metadata(), self.stages])[:8]
        guidance = f"guidance{self.settings.guidance_scale:g}"
        return f"{guidance}-frames{self.settings.num_frames}-noise{self.noise}-{digest}"


def prompts_of(scenes: Sequence[Scene], seed: int, language: str) -> list[str]:
    """A complete caption for each scene."""
    number = LANGUAGES.index(language)
    return [
        caption(scene, np.random.default_rng((seed, index, 2 + number)), language)
        for index, scene in enumerate(scenes)
    ]


@dataclass
class ClipMaker:
    """Generates clips and stores them as uint8 `.npy` files (num_frames, height, width, 3).

    The files are in a folder named after the weights and the settings, so clips of different models never mix. A run
    that was stopped resumes, and one with more prompts makes only the new clips.

    Args:
        model: Folder of the pipeline.
        folder: Folder of all stored clips.
        batch: Prompts in one call.
        seed: Seed of all starting noises.
        device: Device to generate clips on.
        dtype: "float32" or "bfloat16". Weights and the latents between steps are float32 in both cases; autocast
            computes each step and the decoding in bfloat16.
        workers: Processes of one thread each that generate side by side on a CPU; 1 generates in this process.
    """

    model: Path
    folder: Path
    batch: int
    seed: int
    device: str
    dtype: str = "float32"
    workers: int = 1
    seconds: float = field(default=0.0, init=False)
    made: int = field(default=0, init=False)
    pool: ProcessPoolExecutor | None = field(default=None, init=False)

    pipeline_class: ClassVar[type[Pipeline]] = LandscapeVideoPipeline
    model_parts: ClassVar[tuple[str, ...]] = MODEL_PARTS

    def __post_init__(self) -> None:
        self.pipe = self.pipeline_class.from_pretrained(self.model, dtype=torch.float32).to(self.device)
        self.pipe.set_progress_bar_config(disable=True)
        self.store = self.folder / f"{model_hash(self.model, self.model_parts)}-seed{self.seed}-{self.dtype}"

    @property
    def device_name(self) -> str:
        """What the clips are generated on, for tables."""
        on_gpu = self.device.startswith("cuda")
        name = torch.cuda.get_device_name(self.device) if on_gpu else platform.processor() or platform.machine()
        return f"{name}, {self.workers} processes" if self.workers > 1 else name

    @property
    def size(self) -> int:
        """Height and width of the model's clips, pixels."""
        return self.pipe.clip_size()[0]

    def clips(self, requests: Sequence[Request], variant: Variant) -> list[np.ndarray]:
        """The clips of the requests: stored ones are read, the others are made."""
        (self.store / variant.name).mkdir(parents=True, exist_ok=True)
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
        """File of a stored clip."""
        return self.store / variant.name / request.file_name

    def make_all(self, batches: Sequence[Sequence[Request]], variant: Variant) -> Iterator[float]:
        """Make and store the batches; give the seconds that each took, in order."""
        if min(self.workers, len(batches)) <= 1:
            return (self.make_and_store(variant, batch) for batch in batches)
        if self.pool is None:
            arguments = {each.name: getattr(self, each.name) for each in fields(self) if each.init}
            # Fresh processes: a fork of one that has threads (torch, OpenCV) can hang.
            self.pool = ProcessPoolExecutor(
                self.workers, get_context("spawn"), initializer=_start_worker, initargs=(type(self), arguments)
            )
        return self.pool.map(partial(_make_in_worker, variant), batches)

    def make_and_store(self, variant: Variant, requests: Sequence[Request]) -> float:
        """Make clips in one call of the pipeline and store them; return the seconds that it took to make them."""
        start = time.perf_counter()
        clips = self.make(requests, variant)
        seconds = time.perf_counter() - start
        for clip, request in zip(clips, requests, strict=True):
            with write_file(self.path(request, variant)) as unfinished:
                np.save(unfinished, clip)
        return seconds

    def make(self, requests: Sequence[Request], variant: Variant) -> np.ndarray:
        """Run the pipeline: uint8 (requests, num_frames, height, width, 3)."""
        seeds = [clip_seed(self.seed, variant.noise, request.index) for request in requests]
        negative = [request.negative_prompt for request in requests]
        content = self.content(requests, variant) | {"negative_prompt": negative}
        with torch.autocast(torch.device(self.device).type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
            frames = run_pipeline(self.pipe, variant.settings, seeds, **content)
        return (np.clip(frames, 0, 1) * 255).round().astype(np.uint8)

    def content(self, requests: Sequence[Request], variant: Variant) -> dict[str, Any]:
        """What to generate, as arguments of the pipeline's call."""
        return {"prompt": [request.prompt for request in requests]}


@dataclass
class AnimationMaker(ClipMaker):
    """Animates the first frames of rendered scenes; `Request.index` is the number of the scene.

    A retention scale of 0 gives the text-to-video model, which sees no image.
    """

    scenes: Sequence[Scene] = ()

    pipeline_class = LandscapeImageToVideoPipeline
    model_parts = (*MODEL_PARTS, "image_retention")

    @cached_property
    def images(self) -> np.ndarray:
        """The first frames, uint8 (scenes, height, width, 3)."""
        return np.stack([self.image(index) for index in trange(len(self.scenes), desc="images")])

    def image(self, index: int) -> np.ndarray:
        """The first frame of a scene, uint8 (height, width, 3)."""
        return render_clip(self.scenes[index], [0.0], self.size, self.size)[0]

    def content(self, requests: Sequence[Request], variant: Variant) -> dict[str, Any]:
        """See `ClipMaker.content`."""
        images = np.stack([self.image(request.index) for request in requests]).astype(np.float32) / 255
        return {
            "prompts": [[request.prompt for request in requests]] * variant.stages,
            "image": None if variant.settings.retention_scale == 0 else images,
        }


def _start_worker(maker: type[ClipMaker], arguments: dict[str, Any]) -> None:
    global _worker
    torch.set_num_threads(1)
    _worker = maker(**arguments | {"workers": 1})


def _make_in_worker(variant: Variant, requests: Sequence[Request]) -> float:
    return _worker.make_and_store(variant, requests)


def model_hash(model: Path, parts: Sequence[str] = MODEL_PARTS) -> str:
    """Twelve digits that stand for the files of a pipeline folder; by default for all that its clips depend on."""
    paths = [model / part for part in parts]
    files = [file for path in paths for file in (path, *sorted(path.rglob("*"))) if file.is_file()]
    return hash_chunks(str(file.relative_to(model)).encode() + file.read_bytes() for file in files)[:12]


def write_contact_sheets(
    folder: Path,
    language: str,
    prompts: Sequence[str],
    rendered: Sequence[np.ndarray],
    generated: Sequence[np.ndarray],
    rows: int = 10,
    pages: int = 4,
) -> None:
    """Write `sheet_LANGUAGE_1.png`, ...: four frames of each rendered clip, four of the generated one, and the prompt.

    Chinese is drawn where the system has a font for it. The prompts are also in `prompts_LANGUAGE.txt`, numbered.
    """
    folder.mkdir(parents=True, exist_ok=True)
    numbered = [f"{number}. {prompt}" for number, prompt in enumerate(prompts, start=1)]
    (folder / f"prompts_{language}.txt").write_text("\n".join(numbered) + "\n", encoding="utf-8")
    font = caption_font(language)
    for page, start in enumerate(range(0, min(len(prompts), rows * pages), rows), start=1):
        strips = [
            contact_strip(numbered[i] if font else f"{i + 1}.", rendered[i], generated[i], font)
            for i in range(start, min(start + rows, len(prompts)))
        ]
        Image.fromarray(np.concatenate(strips)).save(folder / f"sheet_{language}_{page}.png")


def caption_font(language: str) -> ImageFont.FreeTypeFont | None:
    """A font that has the letters of a language, or None."""
    if language == "en":
        return ImageFont.load_default(FONT_SIZE)
    for name in CHINESE_FONTS:
        try:
            return ImageFont.truetype(name, FONT_SIZE)
        except OSError:
            continue
    return None


def contact_strip(
    text: str, rendered: np.ndarray, generated: np.ndarray, font: ImageFont.FreeTypeFont | None
) -> np.ndarray:
    """Draw frames of both clips in a row, and the text below: (height, width, 3) uint8."""
    frames = [
        np.concatenate(clip[np.linspace(0, len(clip) - 1, FRAMES).round().astype(int)], axis=1)
        for clip in (rendered, generated)
    ]
    images = np.concatenate([frames[0], np.full((len(frames[0]), GAP, 3), 255, np.uint8), frames[1]], axis=1)
    font = font or ImageFont.load_default(FONT_SIZE)
    is_wide = bool(text) and max(text) > "\u2e7f"  # Chinese characters are about twice as wide as Latin letters
    letters = max(1, int(images.shape[1] / (font.size * (1.0 if is_wide else 0.5))))
    lines = textwrap.wrap(text, letters)
    label = Image.new("RGB", (images.shape[1], 10 + LINE_HEIGHT * max(len(lines), 1)), "white")
    draw = ImageDraw.Draw(label)
    for number, line in enumerate(lines):
        draw.text((4, 2 + LINE_HEIGHT * number), line, "black", font)
    return np.concatenate([images, np.asarray(label)])
