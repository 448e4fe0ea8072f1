"""The miniature study's figures as results for `landscape-video report`, and as Markdown with sentences."""

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
from landscape_video.evaluation.metrics.registry import DIRECTIONS, Measurers
from landscape_video.evaluation.results import ClipResult, Metric, Results, System
from miniature_claims import RULE, Comparison, compare, difference_sentence, own_spread, sentence
from miniature_figures import CAMERA, GUIDANCE_SCALE, NOISES, Measured, measured_file, read_measured
from miniature_rows import CLAIMS, FULL, ROWS, Row, Run
from miniature_training import Settings, trained_folder, training_minutes
from motion_adapter.markdown import markdown_table
from shanshui.renderer.constants import PROMPTS_SEED
from sofp_table import summary


LOSS, MINUTES = "diffusion loss", "training time"
RENDERED, STILL = "rendered", "still"
OWN_DIRECTIONS = {CAMERA: ("higher", ""), LOSS: ("lower", ""), MINUTES: (None, "minutes")}
NUM_FRAMES = 16
PAPER_STEPS = 40_000


@dataclass(frozen=True)
class Study:
    """All that was trained and measured: runs by row and training seed; the rendered clips, and stills."""

    output: Path
    settings: Settings
    prompts: Sequence[str]
    held_out_clips: int
    sampling_steps: int
    runs: Mapping[Row, Sequence[Run]]
    measurers: Measurers

    def file(self, name: str) -> Path:
        return measured_file(self.output, name, len(self.prompts), self.held_out_clips, self.sampling_steps)

    def measured(self, row: Row) -> dict[int, Measured]:
        """By training seed."""
        return {run.seed: read_measured(self.file(run.name)) for run in self.runs[row]}

    def minutes(self, run: Run) -> float:
        return training_minutes(trained_folder(self.output, run), self.settings.batch_size)


@dataclass(frozen=True)
class Figure:
    """How a column of the tables comes from what was measured of a run."""

    label: str
    values: Callable[[Measured], np.ndarray]  # (clips, ...)
    statistic: Callable[[np.ndarray], float] = np.mean


def figures_of(study: Study) -> list[Figure]:
    """The columns, in order: what the paper has, what moves, the loss."""
    reference = read_measured(study.file(RENDERED))
    extractor = study.measurers.extractor
    listed = [Figure(label, lambda one, label=label: one.metrics[label]) for label in reference.metrics]
    if len(reference.features) > 1:
        frechet = partial(frechet_distance, reference=reference.features, ddof=extractor.ddof)
        label = f"VD{NUM_FRAMES}[{extractor.name}]"
        listed.append(Figure(f"F{label}", lambda one: one.features, frechet))
        # Clip and true clip show the same scene, and are drawn together.
        listed.append(Figure(f"K{label}", lambda one: np.stack([one.features, reference.features], 1), paired_kernel))
    return [*listed, Figure(LOSS, lambda one: one.losses)]


def paired_kernel(pairs: np.ndarray) -> float:
    """KVD of features and those of the true clips of the same scenes, (clips, 2, dim)."""
    return polynomial_mmd(pairs[:, 0], pairs[:, 1], paired=True)


def compare_all(study: Study, figures: Sequence[Figure]) -> dict[Row, dict[str, Comparison]]:
    """Every row but the full model against it, by label; empty without the full model."""
    full_rows = [row for row in study.runs if row.key == FULL]
    if not full_rows:
        return {}
    full = study.measured(full_rows[0])
    comparisons = {}
    for row in study.runs:
        if row.key != FULL:
            found = study.measured(row)
            comparisons[row] = {
                one.label: compare(
                    *({seed: one.values(run) for seed, run in runs.items()} for runs in (found, full)), one.statistic
                )
                for one in figures
            }
    return comparisons


def results_of(study: Study, figures: Sequence[Figure]) -> Results:
    """The rows, the rendered clips and stills; clips are those of the first training seed."""
    systems = []
    for row, runs in study.runs.items():
        found = study.measured(row)
        metrics = {one.label: _metric(one, found) for one in figures}
        metrics[MINUTES] = Metric(
            float(np.mean([study.minutes(run) for run in runs])), None, None, *_direction(MINUTES)
        )
        seconds = [one.seconds_per_clip for one in found.values() if not math.isnan(one.seconds_per_clip)]
        clips = _clips(study, runs[0].name, found[runs[0].seed])
        systems.append(System(row.name, "generated", metrics, clips, float(np.mean(seconds)) if seconds else None))
    for name, kind in ((STILL, "still"), (RENDERED, "reference")):
        if study.file(name).exists():
            found = {0: read_measured(study.file(name))}
            metrics = {one.label: _metric(one, found) for one in figures if _is_measured(one, name)}
            systems.append(System(name, kind, metrics, _clips(study, name, found[0])))
    return Results(protocol(study), tuple(systems))


def _is_measured(figure: Figure, name: str) -> bool:
    """Whether the rendered clips or stills, which have no loss, have that figure; a distance is from others."""
    return figure.label != LOSS and not (name == RENDERED and "VD" in figure.label)


def _metric(figure: Figure, found: Mapping[int, Measured]) -> Metric:
    value, margin, _ = own_spread({seed: figure.values(one) for seed, one in found.items()}, figure.statistic)
    low, high = (None, None) if margin is None else (value - margin, value + margin)
    return Metric(value, low, high, *_direction(figure.label))


def _direction(label: str) -> tuple[str | None, str]:
    return OWN_DIRECTIONS.get(label) or DIRECTIONS[label.partition("[")[0].rstrip("0123456789")]


def _clips(study: Study, name: str, found: Measured) -> tuple[ClipResult, ...]:
    folder = study.file(name).with_suffix("").relative_to(study.output)
    return tuple(
        ClipResult(
            prompt,
            (folder / f"{index:04d}.mp4").as_posix(),
            PROMPTS_SEED,
            {label: float(values[index]) for label, values in found.metrics.items()},
        )
        for index, prompt in enumerate(study.prompts)
    )


def protocol(study: Study) -> dict[str, str]:
    """What the figures depend on, a line each."""
    settings = study.settings
    device = torch.cuda.get_device_name() if settings.device.startswith("cuda") else f"CPU, {platform.machine()}"
    seeds = "; ".join(f"{row.name} {len(runs)}" for row, runs in study.runs.items())
    return {
        "budget": f"every row {settings.steps} steps of {settings.batch_size} clips of {NUM_FRAMES} frames (the "
        f"paper: {PAPER_STEPS} steps), what the full model does in {settings.minutes:g} minutes at "
        f"{settings.seconds_per_step:.2f} s a step",
        "training": "adapters from nothing on the tiny family's frozen image UNet and latents, flags as in "
        "train_tiny.py without slow motion; "
        f"{settings.mixed_precision} precision{', compiled' if settings.compile else ''}",
        "training seeds": seeds,
        "clips": f"{len(study.prompts)} held-out prompts in English (scenes of seed {PROMPTS_SEED}), the same noise "
        f"for every row, {study.sampling_steps} steps, guidance {GUIDANCE_SCALE:g}, no interpolation",
        LOSS: f"on {study.held_out_clips} held-out clips at {NOISES} steps of the schedule each, the same noise for "
        "every row",
        "reference": f"the {len(study.prompts)} rendered clips of the same scenes; KVD leaves out the pairs of one "
        "scene, which are not independent",
        CAMERA: "the share of clips whose camera, fitted to optical flow, goes where the prompt says; a still picture "
        "is right where the camera is to rest",
        "spread": "95 % over prompts, of the mean over training seeds",
        **study.measurers.protocol(),
        "CLIP-SIM": "not apart: it is CLIP-text with another CLIP, and there is one here",
        "made of": ", ".join(f"{name} sha256 {digest[:12]}" for name, digest in settings.made_of.items()),
        "device": device,
        "versions": f"python {platform.python_version()}, torch {torch.__version__}, "
        f"diffusers {diffusers.__version__}",
    }


def markdown(study: Study, figures: Sequence[Figure], sofp: Path | None = None) -> str:
    """Tables, the rule, and the sentences that it gives."""
    comparisons = compare_all(study, figures)
    parts = ["# The paper's claims in miniature", _introduction(study), "## Figures", _figures_table(study, figures)]
    parts.append("Means over training seeds ± their standard deviation, where a row was trained from several.")
    if comparisons:
        parts += ["## Against the full model", _differences_table(comparisons)]
        parts += [f"{RULE} Differences that count are bold.", "## What the numbers say", sentences(study, comparisons)]
    if sofp is not None:
        found = json.loads(sofp.read_text(encoding="utf-8"))
        parts += [
            "## Interpolation",
            "PSNR in dB of `benchmarks/sofp.py`, by the speed of the motion.",
            summary(found),
        ]
    parts += ["## Measured so", "\n".join(f"- {name}: {line}" for name, line in protocol(study).items())]
    return "\n\n".join(parts) + "\n"


def sentences(study: Study, comparisons: Mapping[Row, Mapping[str, Comparison]]) -> str:
    """One for each claim of the paper; then the loss, of which it says nothing, and all of what is no claim."""
    by_key = {row.key: found for row, found in comparisons.items()}
    steps = study.settings.steps
    lines = [sentence(claim, by_key[claim.row], steps) for claim in CLAIMS if claim.row in by_key]
    full = study.measured(next(row for row in study.runs if row.key == FULL))
    loss = float(np.mean([one.losses.mean() for one in full.values()]))
    lines += [difference_sentence(row.name, LOSS, found[LOSS], loss, steps) for row, found in comparisons.items()]
    return "\n".join(f"- {line}" for line in lines)


def _introduction(study: Study) -> str:
    settings = study.settings
    return (
        f"Adapters of the tiny family, each trained from nothing for {settings.steps} steps of {settings.batch_size} "
        f"clips, where the paper trains for {PAPER_STEPS}: a short budget, so that much cannot be told apart. "
        "Made by `python benchmarks/miniature_study.py`. In brackets stand the weights behind a figure: none of them "
        "compares with the paper's numbers, only with the rows beside it."
    )


def _figures_table(study: Study, figures: Sequence[Figure]) -> str:
    rows = []
    for row, runs in study.runs.items():
        found = study.measured(row)
        cells = []
        for one in figures:
            value, _, deviation = own_spread({seed: one.values(run) for seed, run in found.items()}, one.statistic)
            cells.append(f"{value:#.4g}" + ("" if deviation is None else f" ± {deviation:.2g}"))
        minutes = np.mean([study.minutes(run) for run in runs])
        rows.append([f"{row.name} ({len(runs)})", *cells, f"{minutes:.1f}"])
    for name in (STILL, RENDERED):
        if study.file(name).exists():
            own = read_measured(study.file(name))
            cells = [f"{one.statistic(one.values(own)):#.4g}" if _is_measured(one, name) else "-" for one in figures]
            rows.append([name, *cells, "-"])
    return markdown_table(["row (seeds)", *(one.label for one in figures), "training, minutes"], rows)


def _differences_table(comparisons: Mapping[Row, Mapping[str, Comparison]]) -> str:
    labels = list(next(iter(comparisons.values())))
    rows = []
    for row, found in comparisons.items():
        cells = [found[label].text() for label in labels]
        marked = [f"**{cell}**" if found[label].counts else cell for cell, label in zip(cells, labels, strict=True)]
        rows.append([row.name, *marked])
    return markdown_table(["row minus full model", *labels], rows)


def rows_in_order(runs: Sequence[Run]) -> dict[Row, list[Run]]:
    """The runs of each row, rows in the order of the paper's tables."""
    return {row: [run for run in runs if run.row == row] for row in ROWS if any(run.row == row for run in runs)}
