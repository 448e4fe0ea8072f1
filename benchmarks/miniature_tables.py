"""Turn the measurements of the miniature study into results for `landscape-video report`, and into Markdown."""

import json
import math
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import diffusers
import numpy as np
import torch

from landscape_video.evaluation.metrics.distribution_metrics import frechet_distance, polynomial_mmd
from landscape_video.evaluation.metrics.measurements import MetricModels
from landscape_video.evaluation.metrics.registry import metric_value
from landscape_video.evaluation.results import ClipResult, MetricValue, Results, System
from miniature_claims import (
    CLAIMS,
    FULL,
    RULE,
    Comparison,
    Row,
    Run,
    compare,
    difference_sentence,
    own_spread,
    sentence,
)
from miniature_figures import GUIDANCE_SCALE, NOISES, Measured, measured_file, read_measured
from miniature_training import Settings, trained_folder, training_minutes
from motion_adapter.markdown import markdown_table
from shanshui.renderer.scene import PROMPTS_SEED
from sofp_table import summary


LOSS, MINUTES = "diffusion loss", "training time"
RENDERED, STILL = "rendered", "still"
NUM_FRAMES = 16
PAPER_STEPS = 40_000


@dataclass(frozen=True)
class Study:
    """Everything that was trained and measured.

    Args:
        output: Folder of the study.
        settings: What all runs share.
        prompts: Prompts that every run generates.
        held_out_clips: Clips that the loss is taken on.
        sampling_steps: Denoising steps.
        runs: Trainings of each row.
        models: The models that metrics use.
    """

    output: Path
    settings: Settings
    prompts: Sequence[str]
    held_out_clips: int
    sampling_steps: int
    runs: Mapping[Row, Sequence[Run]]
    models: MetricModels

    def file(self, name: str) -> Path:
        """File with the measurements of a run, of the rendered clips or of the stills."""
        return measured_file(self.output, name, len(self.prompts), self.held_out_clips, self.sampling_steps)

    def measured(self, row: Row) -> dict[int, Measured]:
        """Measurements of a row by training seed."""
        return {run.seed: read_measured(self.file(run.name)) for run in self.runs[row]}

    def minutes(self, row: Row) -> float:
        """Mean training time of a row."""
        folders = [trained_folder(self.output, run) for run in self.runs[row]]
        return float(np.mean([training_minutes(folder, self.settings.batch_size) for folder in folders]))

    def baselines(self) -> dict[str, Measured]:
        """Measurements of the stills and the rendered clips."""
        return {name: read_measured(self.file(name)) for name in (STILL, RENDERED) if self.file(name).exists()}


@dataclass(frozen=True)
class Figure:
    """How a column of the tables is computed from the measurements of a run."""

    label: str
    values: Callable[[Measured], np.ndarray]  # (clips, ...)
    statistic: Callable[[np.ndarray], float] = np.mean

    def is_known_of(self, name: str) -> bool:
        """Whether rendered clips or stills have it: they have no loss, and the reference no distance to itself."""
        return self.label != LOSS and not (name == RENDERED and "VD" in self.label)

    def spread(self, found: Mapping[int, Measured]) -> tuple[float, float | None, float | None]:
        """See `own_spread`, for the measurements of a row."""
        return own_spread({seed: self.values(one) for seed, one in found.items()}, self.statistic)


def figures_of(study: Study) -> list[Figure]:
    """The columns in order: metrics of clips, distances to the rendered clips, and the loss."""
    reference = read_measured(study.file(RENDERED))
    extractor = study.models.extractor
    listed = [Figure(label, lambda one, label=label: one.metrics[label]) for label in reference.metrics]
    if len(reference.features) > 1:
        frechet = partial(frechet_distance, reference=reference.features, ddof=extractor.ddof)
        label = f"VD{NUM_FRAMES}[{extractor.name}]"
        listed.append(Figure(f"F{label}", lambda one: one.features, frechet))
        # A clip and the true clip show the same scene, and are drawn together.
        listed.append(Figure(f"K{label}", lambda one: np.stack([one.features, reference.features], 1), paired_kernel))
    return [*listed, Figure(LOSS, lambda one: one.losses)]


def paired_kernel(pairs: np.ndarray) -> float:
    """KVD from features and those of the true clips of the same scenes, (clips, 2, dim)."""
    return polynomial_mmd(pairs[:, 0], pairs[:, 1], paired=True)


def compare_all(study: Study, figures: Sequence[Figure]) -> dict[Row, dict[str, Comparison]]:
    """Compare every row with the full model, by label; empty without the full model."""
    found = {row: study.measured(row) for row in study.runs}
    full = next((measured for row, measured in found.items() if row.key == FULL), None)
    comparisons = {}
    for row, measured in found.items() if full else ():
        if row.key != FULL:
            comparisons[row] = {
                one.label: compare(
                    *({seed: one.values(run) for seed, run in runs.items()} for runs in (measured, full)),
                    one.statistic,
                )
                for one in figures
            }
    return comparisons


def results_of(study: Study, figures: Sequence[Figure]) -> Results:
    """The rows, the stills and the rendered clips. Clips are those of the first training seed."""
    systems = []
    for row, runs in study.runs.items():
        found = study.measured(row)
        values = {one.label: _value(one, found) for one in figures}
        values[MINUTES] = metric_value(MINUTES, study.minutes(row))
        seconds = [one.seconds_per_clip for one in found.values() if not math.isnan(one.seconds_per_clip)]
        clips = _clips(study, runs[0].name, found[runs[0].seed])
        systems.append(System(row.name, "generated", values, clips, float(np.mean(seconds)) if seconds else None))
    for name, measured in study.baselines().items():
        values = {one.label: _value(one, {0: measured}) for one in figures if one.is_known_of(name)}
        kind = "still" if name == STILL else "reference"
        systems.append(System(name, kind, values, _clips(study, name, measured)))
    return Results(protocol(study), tuple(systems))


def _value(figure: Figure, found: Mapping[int, Measured]) -> MetricValue:
    value, margin, _ = figure.spread(found)
    return metric_value(figure.label, value, *(() if margin is None else (value - margin, value + margin)))


def _clips(study: Study, name: str, found: Measured) -> tuple[ClipResult, ...]:
    folder = study.file(name).with_suffix("").relative_to(study.output)
    clips = []
    for index, prompt in enumerate(study.prompts):
        values = {label: float(column[index]) for label, column in found.metrics.items()}
        clips.append(ClipResult(prompt, (folder / f"{index:04d}.mp4").as_posix(), PROMPTS_SEED, values))
    return tuple(clips)


def protocol(study: Study) -> dict[str, str]:
    """What the results depend on, one line of text each."""
    settings = study.settings
    device = torch.cuda.get_device_name() if settings.device.startswith("cuda") else f"CPU, {platform.machine()}"
    return {
        "budget": f"{settings.budget()}, of {NUM_FRAMES} frames each (the paper: {PAPER_STEPS} steps)",
        "training": "adapters from scratch on the tiny family's frozen image UNet and latents, flags as in "
        f"train_tiny.py without slow motion; {settings.mixed_precision} precision"
        f"{', compiled' if settings.compile else ''}",
        "training seeds": "; ".join(f"{row.name} {len(runs)}" for row, runs in study.runs.items()),
        "clips": f"{len(study.prompts)} held-out prompts in English (scenes of seed {PROMPTS_SEED}), every row with "
        f"the same noise, {study.sampling_steps} steps, guidance {GUIDANCE_SCALE:g}, no interpolation",
        LOSS: f"on {study.held_out_clips} held-out clips at {NOISES} steps of the schedule each, every row with the "
        "same noise",
        "reference": f"the {len(study.prompts)} rendered clips of the same scenes; KVD leaves out the pairs of one "
        "scene, which are not independent",
        "camera accuracy": "a still image is right where the camera should not move",
        "spread": "95 % over prompts, of the mean over training seeds",
        **study.models.protocol(),
        "CLIP-SIM": "not shown: it is CLIP-text with another CLIP, and only one is used here",
        "made of": ", ".join(f"{name} sha256 {digest[:12]}" for name, digest in settings.made_of.items()),
        "device": device,
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}",
    }


def markdown(study: Study, figures: Sequence[Figure], sofp: Path | None = None) -> str:
    """Write the tables, the rule, and the sentences that it gives."""
    settings, comparisons = study.settings, compare_all(study, figures)
    parts = [
        "# The paper's claims in miniature",
        f"Adapters of the tiny family, each trained from scratch for {settings.steps} steps of {settings.batch_size} "
        f"clips. The paper trains for {PAPER_STEPS} steps, so this short budget leaves many rows indistinguishable. "
        "Made by `python benchmarks/miniature_study.py`. Brackets name the weights that a value was computed with. "
        "Compare values only with other rows, not with the paper's.",
        "## Values",
        _values_table(study, figures),
        "Means over training seeds ± their standard deviation, where a row was trained from several seeds.",
    ]
    if comparisons:
        parts += ["## Against the full model", _differences_table(comparisons)]
        parts += [f"{RULE} Differences that count are bold.", "## What the numbers say", sentences(study, comparisons)]
    if sofp is not None:
        found = json.loads(sofp.read_text(encoding="utf-8"))
        note = "PSNR in dB of `benchmarks/sofp.py`, by the speed of the motion."
        parts += ["## Interpolation", note, summary(found)]
    lines = [f"- {name}: {line}" for name, line in protocol(study).items()]
    return "\n\n".join([*parts, "## How this was measured", "\n".join(lines)]) + "\n"


def sentences(study: Study, comparisons: Mapping[Row, Mapping[str, Comparison]]) -> str:
    """One sentence for each claim of the paper, then one for the loss of each row, which the paper does not give."""
    by_key = {row.key: found for row, found in comparisons.items()}
    steps = study.settings.steps
    lines = [sentence(claim, by_key[claim.row], steps) for claim in CLAIMS if claim.row in by_key]
    full = study.measured(next(row for row in study.runs if row.key == FULL))
    loss = float(np.mean([one.losses.mean() for one in full.values()]))
    lines += [difference_sentence(row.name, LOSS, found[LOSS], loss, steps) for row, found in comparisons.items()]
    return "\n".join(f"- {line}" for line in lines)


def _values_table(study: Study, figures: Sequence[Figure]) -> str:
    rows = []
    for row, runs in study.runs.items():
        cells = []
        for value, _, deviation in (one.spread(study.measured(row)) for one in figures):
            cells.append(f"{value:#.4g}" + ("" if deviation is None else f" ± {deviation:.2g}"))
        rows.append([f"{row.name} ({len(runs)})", *cells, f"{study.minutes(row):.1f}"])
    for name, found in study.baselines().items():
        cells = [f"{one.spread({0: found})[0]:#.4g}" if one.is_known_of(name) else "-" for one in figures]
        rows.append([name, *cells, "-"])
    return markdown_table(["row (seeds)", *(one.label for one in figures), "training, minutes"], rows)


def _differences_table(comparisons: Mapping[Row, Mapping[str, Comparison]]) -> str:
    rows = []
    for row, found in comparisons.items():
        cells = [f"**{one.text()}**" if one.counts else one.text() for one in found.values()]
        rows.append([row.name, *cells])
    return markdown_table(["row minus full model", *found], rows)
