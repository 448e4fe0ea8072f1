"""Measure systems side by side: clips of folders and clips that pipelines make, against a reference.

    evaluate(Plan(Path("result"), folders={"ours": Path("clips")}, reference=Path("truth")), Measurers.load())

writes `result/results.json` (see `results.py`) and `result/results.md`. What was painted and what was measured is kept
there, so the same call goes on where it was stopped. On several GPUs (`accelerate launch`) each process paints and
measures its share of the clips; the first one makes the tables.
"""

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from accelerate import PartialState
from tqdm import tqdm

from landscape_video.evaluation.metrics.registry import (
    DEFINITIONS,
    SPLITS,
    ClipFigures,
    Measurers,
    spread_in_words,
    summarize,
)
from landscape_video.evaluation.report.table import markdown
from landscape_video.evaluation.results import FILE_NAME, ClipResult, Metric, Results, System, write_results
from landscape_video.evaluation.systems.clips import ClipFile, list_clips
from landscape_video.evaluation.systems.generated_clips import GeneratedClips, shown_file, still_clips
from landscape_video.evaluation.systems.text_to_video import SystemSpec
from landscape_video.files import write_file, write_text
from pipeline_landscape_video.video_io import probe_video


PACKAGES = ("landscape-video", "torch", "diffusers", "transformers", "opencv-python", "av", "numpy")
REFERENCE, STILL = "reference", "still"


@dataclass(frozen=True)
class Plan:
    """What is evaluated, and how.

    Args:
        output: folder for everything; made if it is not there.
        folders: clips that are there, by name of the system.
        systems: pipelines, each of which makes `repeats` clips of each prompt.
        prompts: for the systems.
        reference: folder of true clips, for FVD and KVD; it gets a row of its own as well.
        images: folder of pictures that the clips of `folders` were made from.
        num_frames, stride: of every clip, from its first frame on; all frames of painted ones.
        seed: of noise, and of the spreads' draws.
        repeats: clips of a prompt.
    """

    output: Path
    folders: Mapping[str, Path] = field(default_factory=dict)
    systems: Sequence[SystemSpec] = ()
    prompts: Sequence[str] = ()
    reference: Path | None = None
    images: Path | None = None
    num_frames: int = 16
    stride: int = 1
    seed: int = 0
    repeats: int = 1

    def check(self) -> None:
        """Raise `ValueError` for what can be seen without looking at any clip."""
        names = [*(spec.name for spec in self.systems), *self.folders, REFERENCE, STILL]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"two systems are called {twice[0]!r}; give one another name (NAME=..., name=...).")
        if not (self.systems or self.folders):
            raise ValueError("there is nothing to evaluate: give a folder of videos, or a model and prompts.")
        if self.systems and not self.prompts:
            raise ValueError("there are no prompts for the model to paint.")
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"{self.output}: is no folder.")


@dataclass(frozen=True)
class Source:
    """A row of the table before it is measured. Of painted clips, and of stills of them, every frame counts."""

    name: str
    kind: str
    clips: Sequence[ClipFile]
    stride: int = 1
    generated: GeneratedClips | None = None


def start_processes(device: str = "auto") -> PartialState:
    """Meet the other processes of `accelerate launch`, if there are any; they may be a week apart."""
    return PartialState(cpu=device == "cpu", timeout=timedelta(days=7))


def evaluate(
    plan: Plan, measurers: Measurers, device: str | torch.device = "cpu", state: PartialState | None = None
) -> Results | None:
    """Paint what is missing, measure what is new, write the tables.

    Args:
        plan: what and how.
        measurers: on this process's device.
        device: to paint on.
        state: of `start_processes`; None for this process alone.

    Returns:
        the results, in the first process; None in the others.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: what is wrong with the input, before anything is painted or
            measured, except for what shows only when a system paints.
    """
    state = state or PartialState(cpu=True)
    share = slice(state.process_index, None, state.num_processes)
    sources = find_sources(plan)

    # 1. Paint
    for source in sources:
        if source.generated is not None:
            source.generated.make(device, share, state.is_main_process)
    state.wait_for_everyone()
    with state.main_process_first():  # the files that it writes, the others find
        stills = still_clips(sources[0].clips, still_folder(plan), plan.num_frames)
    sources.insert(len(sources) - (plan.reference is not None), Source(STILL, "still", stills))

    # 2. Measure
    fingerprint = repr([DEFINITIONS, *measurers.protocol().items()])
    tasks = [(source, clip) for source in sources for clip in source.clips][share]
    for source, clip in tqdm(tasks, unit="clip", desc="measuring", disable=not state.is_main_process):
        path = measured_file(plan, source, clip, fingerprint)
        if not path.exists():
            measure(clip, measurers, plan.num_frames, source.stride, path)
    state.wait_for_everyone()
    if not state.is_main_process:
        return None

    # 3. Tell
    figures = {
        source.name: [ClipFigures.load(measured_file(plan, source, clip, fingerprint)) for clip in source.clips]
        for source in sources
    }
    rows = []
    for source in tqdm(sources, unit="system", desc="spreads"):
        true = figures[REFERENCE] if plan.reference is not None and source.kind != "reference" else None
        groups = [clip.group for clip in source.clips]
        metrics = summarize(figures[source.name], measurers, plan.num_frames, groups, true, plan.seed)
        rows.append(make_row(plan, source, figures[source.name], metrics))
    results = Results(protocol(plan, sources, measurers, device, state), tuple(rows))
    write_results(results, plan.output / FILE_NAME)
    write_text(plan.output / "results.md", markdown(results))
    return results


def find_sources(plan: Plan) -> list[Source]:
    """All rows but the still one, in order; raises for what is wrong with any, before the output folder is made."""
    plan.check()
    frames = plan.num_frames, plan.stride
    listed = [
        Source(name, "folder", list_clips(path, *frames, plan.images), plan.stride)
        for name, path in plan.folders.items()
    ]
    if plan.reference is not None:
        listed.append(Source(REFERENCE, "reference", list_clips(plan.reference, *frames), plan.stride))
    made = []
    for spec in plan.systems:
        generated = GeneratedClips(spec, plan.prompts, plan.output / "clips", plan.seed, plan.repeats)
        made.append(Source(spec.name, "generated", generated.clips, generated=generated))
    (plan.output / "measured").mkdir(parents=True, exist_ok=True)
    return made + listed


def still_folder(plan: Plan) -> Path:
    """Where the videos of the still baseline are: the first system's first frames."""
    return plan.output / "clips" / f"still-{plan.num_frames}"


def measured_file(plan: Plan, source: Source, clip: ClipFile, fingerprint: str) -> Path:
    """Where the figures of a clip are: the same file measured alike is measured once."""
    return plan.output / "measured" / f"{clip.key(plan.num_frames, source.stride, fingerprint)}.npz"


def measure(clip: ClipFile, measurers: Measurers, num_frames: int, stride: int, path: Path) -> None:
    """Measure a clip into a file. Raises `ValueError` that begins with the clip's or the picture's name."""
    try:
        figures = measurers.measure(clip.frames(num_frames, stride), clip.prompt, clip.read_image())
    except ValueError as error:
        named = str(error).startswith((str(clip.path), str(clip.image)))
        raise ValueError(str(error) if named else f"{clip.path}: {error}") from error
    with write_file(path) as unfinished:
        figures.save(unfinished)


def make_row(plan: Plan, source: Source, figures: Sequence[ClipFigures], metrics: Mapping[str, Metric]) -> System:
    """A row of the results; files are named from the output folder."""
    clips = []
    for clip, one in zip(source.clips, figures, strict=True):
        shown = os.path.relpath(shown_file(clip, still_folder(plan)), plan.output)
        clips.append(ClipResult(clip.prompt or "", Path(shown).as_posix(), clip.seed, dict(one.metrics)))
    seconds, memory = (None, None) if source.generated is None else source.generated.costs()
    return System(source.name, source.kind, metrics, tuple(clips), seconds, memory)


def protocol(
    plan: Plan, sources: Sequence[Source], measurers: Measurers, device: str | torch.device, state: PartialState
) -> dict[str, str]:
    """Everything the figures depend on, one line of text each."""
    lines = {"clips": "; ".join(f"{source.name} {len(source.clips)}" for source in sources)}
    sizes = {source.name: probe_video(source.clips[0].path) for source in sources}
    lines["size"] = "; ".join(f"{name} {info.width} x {info.height}" for name, info in sizes.items())
    lines["frames"] = f"the first {plan.num_frames}, stride {plan.stride} (of painted clips every frame)"
    for source in sources:
        if source.generated is not None:
            lines[source.name] = _in_words(source.generated.record)
    lines["seeds"] = f"draws of spreads from seed {plan.seed}"
    if plan.systems:
        lines["seeds"] += f"; noise from seed {plan.seed}, {plan.repeats} clip(s) of each prompt, each with its own"
    lines["spread"] = spread_in_words()
    lines |= measurers.protocol()
    if measurers.classifier is not None and (few := [one.name for one in sources if len(one.clips) < SPLITS]):
        lines["IS"] += f"; not of {', '.join(few)}: fewer than {SPLITS} clips"
    if plan.reference is None:
        lines["FVD and KVD"] += "; not measured: no reference"
    elif few := [one.name for one in sources if len(one.clips) < 2]:
        lines["FVD and KVD"] += f"; only where there are two clips a side, not with {', '.join(few)}"
    if silent := [one.name for one in sources if any(clip.prompt is None for clip in one.clips)]:
        lines["CLIP-text"] = f"not of {', '.join(silent)}: not every clip comes with a prompt"
    prompts = {clip.prompt for one in sources for clip in one.clips if clip.prompt is not None}
    if cut := [prompt for prompt in prompts if measurers.clip.is_too_long(prompt)]:
        lines["prompts"] = (
            f"{len(cut)} longer than CLIP's {measurers.clip.tokenizer.model_max_length} tokens, cut there"
        )
    lines["seconds, memory"] = "median of the clips; peak beyond what the process held before loading the system"
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else platform.machine()
    lines["device"] = f"{device} ({name}), {state.num_processes} process(es), {torch.get_num_threads()} thread(s)"
    lines["versions"] = ", ".join([f"python {platform.python_version()}", *_versions()])
    return lines


def _in_words(record: Mapping[str, object]) -> str:
    words = ", ".join(f"{name} {value}" for name, value in record.items() if value is not None)
    sampled = record["num_frames"] // 2 + 1
    if not record["interpolate"]:
        return f"{words}; {record['num_frames']} frames sampled"
    return f"{words}; {sampled} frames sampled, interpolated to {2 * sampled - 1}, cut to {record['num_frames']}"


def _versions() -> Iterator[str]:
    for package in PACKAGES:
        try:
            yield f"{package} {version(package)}"
        except PackageNotFoundError:  # run from a checkout
            continue
