"""Measure systems side by side: folders of clips and clips that pipelines generate, against a reference.

    evaluate(Plan(Path("result"), folders={"ours": Path("clips")}, reference=Path("truth")), MetricModels.load())

writes `result/results.json` (see `results.py`) and `result/results.md`. Generated clips and measurements are kept
there, so the same call resumes after a stop. On several GPUs (`accelerate launch`), each process generates and
measures its share of the clips, and the first one writes the tables.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import torch
from accelerate import PartialState
from tqdm import tqdm

from landscape_video.evaluation.metrics.measurements import (
    ClipMeasurements,
    MeasuredClip,
    MetricModels,
    measure_clip,
    spread_in_words,
    summarize,
)
from landscape_video.evaluation.metrics.registry import (
    NEEDS,
    REVISION,
    Metric,
    SetMetric,
    find_metric,
    select_metrics,
)
from landscape_video.evaluation.results import (
    FILE_NAME,
    ClipResult,
    MetricValue,
    Results,
    System,
    markdown,
    write_results,
)
from landscape_video.evaluation.systems.clips import (
    ClipFile,
    GeneratedClips,
    count_kinds,
    list_clips,
    shown_file,
    still_clips,
)
from landscape_video.evaluation.systems.text_to_video import SystemSpec
from landscape_video.files import write_file, write_text
from landscape_video.generation.generate_clip import describe_environment
from pipeline_landscape_video.video_io import probe_video


REFERENCE, STILL = "reference", "still"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Plan:
    """What to evaluate, and how.

    Args:
        output: Folder for everything; created if it is missing.
        folders: Folders of clips, by name of the system.
        systems: Pipelines; each generates `repeats` clips of each prompt.
        prompts: Prompts for the pipelines.
        reference: Folder of true clips, for FVD and KVD. It also gets a row of its own.
        images: Folder of the images that the clips of `folders` were made from.
        num_frames: Frames of every clip, from its first frame on.
        stride: Frame stride of clips in folders; every frame of generated clips counts.
        seed: Seed of the noise and of the draws for intervals.
        repeats: Clips of each prompt.
        metrics: Names of the metrics, see `select_metrics`.
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
    metrics: Sequence[str] = ("default",)

    def check(self) -> None:
        """Raise `ValueError` for what is wrong without looking at any clip."""
        select_metrics(self.metrics)
        names = [*(spec.name for spec in self.systems), *self.folders, REFERENCE, STILL]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"names of systems must differ, got {twice[0]!r} twice; rename one (NAME=..., name=...).")
        if not (self.systems or self.folders):
            raise ValueError("nothing to evaluate: give a folder of videos, or a model and prompts.")
        if self.systems and not self.prompts:
            raise ValueError("a model needs prompts to generate clips from.")
        if self.output.exists() and not self.output.is_dir():
            raise ValueError(f"`output` must be a folder, got the file {self.output}.")


@dataclass(frozen=True)
class Source:
    """The clips of one row of the table, before they are measured."""

    name: str
    kind: str
    clips: Sequence[ClipFile]
    stride: int = 1
    generated: GeneratedClips | None = None


def start_processes(device: str = "auto") -> PartialState:
    """Join the other processes of `accelerate launch`, if there are any. They may arrive up to a week apart."""
    return PartialState(cpu=device == "cpu", timeout=timedelta(days=7))


def evaluate(
    plan: Plan, models: MetricModels, device: str | torch.device = "cpu", state: PartialState | None = None
) -> Results | None:
    """Generate missing clips, measure new ones, and write the tables.

    Args:
        plan: What to evaluate, and how.
        models: The models that metrics use, on the device of this process.
        device: Device to generate clips on.
        state: Result of `start_processes`; None for this process alone.

    Returns:
        The results in the first process, None in the others.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: The input is wrong. Nothing is generated or measured then,
            unless the error shows only while a system generates. A clip that cannot be measured is left out with a
            warning, unless it is the last one.
    """
    state = state or PartialState(cpu=True)
    share = slice(state.process_index, None, state.num_processes)
    metrics = select_metrics(plan.metrics)
    sources = find_sources(plan)

    # 1. Generate
    for source in sources:
        if source.generated is not None:
            source.generated.make(device, share, state.is_main_process)
    state.wait_for_everyone()
    with state.main_process_first():  # it writes the videos of the stills, and the others find them
        stills = still_clips(sources[0].clips, still_folder(plan), plan.num_frames)
    sources.insert(len(sources) - (plan.reference is not None), Source(STILL, "still", stills))

    # 2. Measure
    fingerprint = repr([REVISION, [metric.name for metric in metrics], *models.protocol().items()])
    tasks = [(source, clip) for source in sources for clip in source.clips][share]
    faults: set[str] = set()
    for source, clip in tqdm(tasks, unit="clip", desc="measuring", disable=not state.is_main_process):
        path = measured_file(plan, source, clip, fingerprint)
        if path.exists():
            continue
        try:
            measure(clip, models, metrics, plan.num_frames, source.stride, path)
        except ValueError as error:
            if str(error) not in faults:  # a clip and its still have the same image
                logger.warning("%s The clip is left out.", error)
            faults.add(str(error))
    state.wait_for_everyone()
    if not state.is_main_process:
        return None

    # 3. Summarize
    sources = [_without_failed(plan, source, fingerprint) for source in sources]
    found = {
        source.name: [ClipMeasurements.load(measured_file(plan, source, clip, fingerprint)) for clip in source.clips]
        for source in sources
    }
    rows = []
    for source in tqdm(sources, unit="system", desc="intervals"):
        true = found[REFERENCE] if plan.reference is not None and source.kind != "reference" else None
        groups = [clip.group for clip in source.clips]
        values = summarize(found[source.name], models, plan.num_frames, groups, true, plan.seed, metrics)
        rows.append(make_row(plan, source, found[source.name], values))
    lines = protocol(plan, sources, models, device, state)
    if missing := not_measured(rows, metrics):
        lines["not measured"] = missing
    results = Results(lines, tuple(rows))
    write_results(results, plan.output / FILE_NAME)
    write_text(plan.output / "results.md", markdown(results))
    return results


def _without_failed(plan: Plan, source: Source, fingerprint: str) -> Source:
    """Leave out the clips that could not be measured, by any process. Raises `ValueError` if none is left."""
    clips = [clip for clip in source.clips if measured_file(plan, source, clip, fingerprint).exists()]
    if not clips:
        raise ValueError(f"{source.name}: no clip could be measured.")
    return replace(source, clips=clips)


def find_sources(plan: Plan) -> list[Source]:
    """All rows but the still baseline, in order. Everything is checked before the output folder is created."""
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
    """Folder of the videos that show the still baseline: the first system's first frames."""
    return plan.output / "clips" / f"still-{plan.num_frames}"


def measured_file(plan: Plan, source: Source, clip: ClipFile, fingerprint: str) -> Path:
    """File with the measurements of a clip, named after everything that they depend on."""
    return plan.output / "measured" / f"{clip.key(plan.num_frames, source.stride, fingerprint)}.npz"


def measure(
    clip: ClipFile, models: MetricModels, metrics: Sequence[Metric], num_frames: int, stride: int, path: Path
) -> None:
    """Measure a clip into a file. Raises `ValueError` that begins with the name of the clip or of its image."""
    try:
        frames = clip.frames(num_frames, stride)
        found = measure_clip(MeasuredClip(frames, models, clip.prompt, clip.read_image(), clip.labels), metrics)
    except ValueError as error:
        named = str(error).startswith((str(clip.path), str(clip.image)))
        raise ValueError(str(error) if named else f"{clip.path}: {error}") from error
    with write_file(path) as temporary:
        found.save(temporary)


def make_row(
    plan: Plan, source: Source, measurements: Sequence[ClipMeasurements], values: Mapping[str, MetricValue]
) -> System:
    """A row of the results. Files are named relative to the output folder."""
    clips = []
    for clip, one in zip(source.clips, measurements, strict=True):
        shown = os.path.relpath(shown_file(clip, still_folder(plan)), plan.output)
        clips.append(ClipResult(clip.prompt or "", Path(shown).as_posix(), clip.seed, dict(one.metrics)))
    seconds, memory = (None, None) if source.generated is None else source.generated.costs()
    return System(source.name, source.kind, values, tuple(clips), seconds, memory)


def protocol(
    plan: Plan, sources: Sequence[Source], models: MetricModels, device: str | torch.device, state: PartialState
) -> dict[str, str]:
    """Everything that the values depend on, one line of text each."""
    sizes = {source.name: probe_video(source.clips[0].path) for source in sources}
    lines = {
        "clips": "; ".join(f"{source.name} {len(source.clips)}" for source in sources),
        "files": "; ".join(f"{source.name} {count_kinds(source.clips)}" for source in sources if source.kind != STILL),
        "size": "; ".join(f"{name} {info.width} x {info.height}" for name, info in sizes.items()),
        "frames": f"the first {plan.num_frames}, stride {plan.stride} (generated clips: every frame)",
    }
    for source in sources:
        if source.generated is not None:
            lines[source.name] = _record_in_words(source.generated.record)
    lines["seeds"] = f"draws for intervals from seed {plan.seed}"
    if plan.systems:
        lines["seeds"] += f"; noise from seed {plan.seed}, {plan.repeats} clip(s) of each prompt, each with its own"
    lines["spread"] = spread_in_words()
    lines |= models.protocol()
    prompts = {clip.prompt for source in sources for clip in source.clips if clip.prompt is not None}
    if cut := [prompt for prompt in prompts if models.clip.is_too_long(prompt)]:
        limit = models.clip.tokenizer.model_max_length
        lines["prompts"] = f"{len(cut)} longer than the {limit} tokens of CLIP, truncated"
    lines["seconds, memory"] = "median of the clips; peak beyond what the process held before it loaded the system"
    at = describe_environment(torch.device(device))
    processes = f"{state.num_processes} process(es), {at['threads']} thread(s)"
    lines["device"] = f"{at['device']} ({at['device_name']}), {processes}"
    lines["versions"] = ", ".join(f"{name} {number}" for name, number in at["versions"].items())
    return lines


def not_measured(rows: Sequence[System], metrics: Sequence[Metric]) -> str:
    """Name the metrics that have no value, or none of some systems, and say what each needs."""
    parts = []
    for metric in metrics:
        # The reference has no distance to itself.
        judged = [row for row in rows if not (row.kind == "reference" and "reference" in metric.needs)]
        missing = [row.name for row in judged if metric not in map(find_metric, row.metrics)]
        if missing:
            needed = [NEEDS[need] for need in metric.needs]
            needed += [f"{metric.min_clips} clips"] if isinstance(metric, SetMetric) else []
            of = "" if len(missing) == len(judged) else f" of {', '.join(missing)}"
            parts.append(f"{metric.name}{of} (needs {', '.join(needed)})")
    return "; ".join(parts)


def _record_in_words(record: Mapping[str, object]) -> str:
    words = ", ".join(f"{name} {value}" for name, value in record.items() if value is not None)
    sampled = record["num_frames"] // 2 + 1
    if not record["interpolate"]:
        return f"{words}; {record['num_frames']} frames sampled"
    return f"{words}; {sampled} frames sampled, interpolated to {2 * sampled - 1}, cut to {record['num_frames']}"
