"""Choose the clips that a report shows, embed them as data URIs, and say what is left out."""

import base64
import io
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from landscape_video.evaluation.report.page_tables import number
from landscape_video.evaluation.results import ClipResult, Results, System, read_results
from pipeline_landscape_video.video_io import VideoFrame, iterate_video, open_mp4


MAX_SECONDS = 8  # longer clips are cut, and the page says so
SHEET_FRAMES = 6
CRF = 26  # of x264: about 10 KB a second at 128 x 128, without visible damage to ink washes

MAX_LONE = 8  # clips per system that nothing is compared with, such as those of a reference folder
WITHOUT_PROMPT = "Clips without a prompt"
_CARD_BYTES = 1200  # HTML around a clip, names and prompt not counted
_NAMES_PER_CARD = 8  # times that a card repeats its names, at most


@dataclass(frozen=True)
class PageClip:
    """An embedded clip.

    Args:
        video: Data URI of an H.264 video.
        sheet: Data URI of a WebP contact sheet.
        width, height: Size of the video in pixels.
        num_frames: Frames of the video.
        fps: Mean frame rate.
        seconds: Duration.
        is_cut: Whether only its beginning is shown.
    """

    video: str
    sheet: str
    width: int
    height: int
    num_frames: int
    fps: float
    seconds: float
    is_cut: bool

    @property
    def size(self) -> int:
        """Number of bytes that it takes in the page."""
        return len(self.video) + len(self.sheet)


def embed_clip(path: Path, width: int) -> PageClip:
    """Read a clip and reduce it to at most `width` pixels. Raises `VideoError` or `FileNotFoundError`."""
    kept: list[VideoFrame] = []
    is_cut = False
    for frame in iterate_video(path):
        is_cut = bool(kept) and frame.timestamp - kept[0].timestamp >= MAX_SECONDS
        if is_cut:
            break
        kept.append(frame._replace(pixels=_shrink(frame.pixels, width)))
    seconds = float(kept[-1].timestamp + kept[-1].duration - kept[0].timestamp)
    fps = len(kept) / seconds
    frames = [frame.pixels for frame in kept]
    height, shown_width, _ = frames[0].shape
    return PageClip(
        video=_data_uri("video/mp4", _mp4(frames, fps)),
        sheet=_data_uri("image/webp", _contact_sheet(frames)),
        width=shown_width,
        height=height,
        num_frames=len(frames),
        fps=fps,
        seconds=seconds,
        is_cut=is_cut,
    )


def _shrink(pixels: np.ndarray, width: int) -> np.ndarray:
    if pixels.shape[1] <= width:
        return pixels
    return cv2.resize(pixels, (width, max(2, round(pixels.shape[0] * width / pixels.shape[1]))), cv2.INTER_AREA)


def _mp4(frames: list[np.ndarray], fps: float) -> bytes:
    height, width, _ = frames[0].shape
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        with open_mp4(path, width, height, fps, crf=CRF) as writer:
            for frame in frames:
                writer.write(frame)
        return path.read_bytes()


def _contact_sheet(frames: list[np.ndarray]) -> bytes:
    """Six frames from first to last, in two rows of three, which have the shape of a card."""
    chosen = np.linspace(0, len(frames) - 1, SHEET_FRAMES).round().astype(int)
    small = [_shrink(frames[index], max(64, frames[index].shape[1] // 2)) for index in chosen]
    rows = [np.concatenate(row, axis=1) for row in (small[: SHEET_FRAMES // 2], small[SHEET_FRAMES // 2 :])]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(rows)).save(buffer, "WEBP", quality=70, method=6)
    return buffer.getvalue()


def _data_uri(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode('ascii')}"


@dataclass(frozen=True)
class Source:
    """Results, the folder that the paths of their clips are relative to, and the name of the file."""

    results: Results
    folder: Path
    name: str


@dataclass(frozen=True)
class GalleryClip:
    """A clip on the page: its system, seed and numbers, and the embedded clip itself."""

    system: str
    seed: int | None
    numbers: str
    clip: PageClip


@dataclass
class Gallery:
    """The clips by prompt, and one sentence for everything that is left out."""

    prompts: list[tuple[str, list[GalleryClip]]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


# A clip before it is embedded.
Member = tuple[System, Source, ClipResult]


def read_source(path: str | Path) -> Source:
    """Read a results file, or the one in a folder. Raises as `read_results`."""
    path = Path(path)
    results = read_results(path)
    folder = path if path.is_dir() else path.parent
    name = folder.absolute().name
    return Source(results, folder, name if path.is_dir() else f"{name}/{path.name}")


def unique_systems(sources: Sequence[Source]) -> list[tuple[System, Source]]:
    """All systems under unique names. A system that several files list with the same numbers counts once."""
    found: dict[str, tuple[System, Source]] = {}
    seen: list[tuple] = []
    for source in sources:
        for system in source.results.systems:
            measured = (system.name, system.kind, system.metrics)
            if measured in seen:
                continue
            seen.append(measured)
            name, count = system.name, 1
            while name in found:
                name = f"{system.name} ({source.name})" if count == 1 else f"{system.name} ({source.name}, {count})"
                count += 1
            found[name] = (replace(system, name=name), source)
    return list(found.values())


def make_gallery(
    systems: Sequence[tuple[System, Source]],
    max_bytes: int,
    clip_width: int,
    clips_per_prompt: int,
    progress: Callable[[Sequence], Iterator] = iter,
) -> Gallery:
    """Embed clips prompt by prompt, each with the clips of all systems, while they fit into `max_bytes`."""
    if not any(system.clips for system, _ in systems):
        return Gallery()
    if not clips_per_prompt:
        return Gallery(left_out=["The clips were left out."])
    gallery = Gallery()
    prompts = _clips_by_prompt(systems, clips_per_prompt, gallery)
    if len(systems) > 1:
        prompts = _without_most_lone(prompts, gallery)
    for system, source, clip in (member for members in prompts.values() for member in members):
        if not (source.folder / clip.file).is_file():
            raise FileNotFoundError(
                f"{source.folder / clip.file}: no such file, but {source.name} lists it as a clip of {system.name}; "
                "restore it, or make a page without clips."
            )

    def rank(prompt: str) -> tuple[bool, int]:
        """Prompts that most systems have come first, because there is something to compare."""
        return prompt == WITHOUT_PROMPT, -len({system.name for system, _, _ in prompts[prompt]})

    used = 0
    for prompt in progress(sorted(prompts, key=rank)):
        clips = [_gallery_clip(*member, clip_width) for member in prompts[prompt]]
        names = sum(len(escape(f"{prompt}{one.system}{one.numbers}").encode()) for one in clips)
        used += sum(one.clip.size + _CARD_BYTES for one in clips) + _NAMES_PER_CARD * names
        if used > max_bytes:
            break
        gallery.prompts.append((prompt, clips))
    _say_what_is_left_out(gallery, len(prompts), systems, clips_per_prompt)
    return gallery


def _clips_by_prompt(
    systems: Sequence[tuple[System, Source]], clips_per_prompt: int, gallery: Gallery
) -> dict[str, list[Member]]:
    prompts: dict[str, list[Member]] = {}
    for system, source in systems:
        taken: dict[str, int] = {}
        for clip in system.clips:
            prompt = clip.prompt or WITHOUT_PROMPT
            taken[prompt] = taken.get(prompt, 0) + 1
            if taken[prompt] <= (clips_per_prompt if clip.prompt else MAX_LONE):
                prompts.setdefault(prompt, []).append((system, source, clip))
        if taken.get(WITHOUT_PROMPT, 0) > MAX_LONE:
            gallery.left_out.append(
                f"{MAX_LONE} of the {taken[WITHOUT_PROMPT]} clips of {system.name} without a prompt are shown."
            )
    return prompts


def _without_most_lone(prompts: dict[str, list[Member]], gallery: Gallery) -> dict[str, list[Member]]:
    """Keep a few of the prompts that only one system has: nothing is compared with their clips."""
    lone: dict[str, list[str]] = {}
    for prompt, members in prompts.items():
        if len({system.name for system, _, _ in members}) == 1:
            lone.setdefault(members[0][0].name, []).append(prompt)
    for name, its_prompts in lone.items():
        if len(its_prompts) > MAX_LONE:
            gallery.left_out.append(f"{MAX_LONE} of the {len(its_prompts)} clips that only {name} has are shown.")
            prompts = {prompt: members for prompt, members in prompts.items() if prompt not in its_prompts[MAX_LONE:]}
    return prompts


def _say_what_is_left_out(
    gallery: Gallery, num_prompts: int, systems: Sequence[tuple[System, Source]], clips_per_prompt: int
) -> None:
    if len(gallery.prompts) < num_prompts:
        gallery.left_out.append(
            f"{len(gallery.prompts)} of {num_prompts} prompts are shown; the clips of the next one would exceed the "
            "size limit of the page."
        )
    made = [[clip.prompt for clip in system.clips if clip.prompt] for system, _ in systems]
    if any(len(prompts) > clips_per_prompt * len(set(prompts)) for prompts in made):
        first = "the first clip is" if clips_per_prompt == 1 else f"the first {clips_per_prompt} clips are"
        gallery.left_out.append(f"Where a system made several clips of one prompt, {first} shown, not the best.")
    if any(one.clip.is_cut for _, clips in gallery.prompts for one in clips):
        gallery.left_out.append("Long clips are cut to their beginning; their captions say so.")


def _gallery_clip(system: System, source: Source, clip: ClipResult, width: int) -> GalleryClip:
    # The table names the weights. Under a clip there is little room: drop the brackets, if labels still differ.
    short = {label: label.partition("[")[0].strip() for label in clip.metrics}
    names = short if len(set(short.values())) == len(short) else {label: label for label in short}
    numbers = [f"{names[label]} {number(value, 2)}" for label, value in clip.metrics.items() if value is not None]
    return GalleryClip(system.name, clip.seed, " · ".join(numbers), embed_clip(source.folder / clip.file, width))
