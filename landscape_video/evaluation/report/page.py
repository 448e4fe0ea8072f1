"""Write one HTML page with everything: the numbers, how they were measured, and the clips themselves.

The page is a Jinja2 template in `pages/`. Tables and bars come from `page_tables.py`, clips from `report_gallery.py`,
explanations from the notes of the metrics. The results of `benchmarks/sofp.py` become rows of a table as well.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from landscape_video.evaluation.metrics.intervals import RESAMPLES, bootstrap, mean
from landscape_video.evaluation.metrics.registry import explain, metric_value
from landscape_video.evaluation.pages import render_page
from landscape_video.evaluation.report.page_tables import Column, make_column
from landscape_video.evaluation.report.report_gallery import Gallery, make_gallery, read_source, unique_systems
from landscape_video.evaluation.results import MetricValue, Results, System
from landscape_video.files import write_text


NAMES = {
    "repeat": "repeat",
    "average": "average",
    "farneback": "Farneback",
    "rife": "RIFE",
    "sofp_linear": "SOFP linear",
    "sofp_projection": "SOFP projection",
    "sofp_quadratic": "SOFP quadratic",
}
BASELINES = ("repeat", "average")  # they do not estimate motion

KIND_NOTES = {
    "generated": "",
    "folder": "videos of a folder",
    "still": "a baseline",
    "reference": "what the others are compared with",
}
COSTS = {"seconds per clip": "seconds_per_clip", "peak memory": "peak_memory_gib"}
PER_SYSTEM = ("clips", "size")  # protocol lines that list the systems, and so differ wherever those do


def read_interpolation(path: str | Path) -> Results:
    """Read the mean PSNR of every method, for each speed of the rendered clips and for the natural clips.

    Intervals are 95 % of a bootstrap over clips (seed 0). Methods that were measured on some clips only are left out.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is not a results file of the benchmark; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `python benchmarks/sofp.py` writes it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for clip in content["clips"]:
            groups.setdefault(f"PSNR, {clip['speed'] or clip['kind']}", []).append(clip["scores"])
        methods = [name for name in NAMES if all(name in scores for group in groups.values() for scores in group)]
        if not groups or not methods:
            raise ValueError("no method was measured on every clip.")
        systems = []
        for method in methods:
            kind = "still" if method in BASELINES else "generated"
            values = {
                label: _mean(label, [float(scores[method]["psnr"]) for scores in group])
                for label, group in groups.items()
            }
            systems.append(System(NAMES[method], kind, values, clips=()))
        return Results(_protocol(content["settings"], groups), tuple(systems))
    except KeyError as error:
        raise ValueError(f"{path}: not a results file of benchmarks/sofp.py: {error} is missing.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a results file of benchmarks/sofp.py: {error}") from error


def _mean(label: str, values: list[float]) -> MetricValue:
    found = bootstrap(mean, np.array(values))
    # The bootstrap of one or two clips says nothing.
    return metric_value(label, found.value, *((found.low, found.high) if len(values) > 2 else ()))


def _protocol(settings: Mapping[str, Any], groups: Mapping[str, list]) -> dict[str, str]:
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    return {
        "samples": ", ".join(f"{label.partition(', ')[2]}: {len(group)} clips" for label, group in groups.items()),
        "rendered clips": f"{settings['size']} x {settings['size']}, {settings['num_frames']} frames given at "
        f"{settings['frame_rate']} a second on average, the true half-time frames held out; seed {settings['seed']}",
        "natural clips": "every second frame held out",
        "flow": "OpenCV DIS for SOFP, no weights; Farneback's flow goes through the same warping",
        "spread": f"95 %, bootstrap over clips, {RESAMPLES} resamples, seed 0",
        "machine": f"{settings['device']}; {versions}",
        **{name: f"sha256 {digest}" for name, digest in settings.get("sha256", {}).items()},
    }


@dataclass(frozen=True)
class Section:
    """A table with its protocol.

    Args:
        systems: Rows.
        columns: Metrics.
        sources: Names of the results files.
        protocol: Name of each line, and its text in each of the sources, or one text if all agree.
    """

    systems: Sequence[System]
    columns: Sequence[Column]
    sources: Sequence[str]
    protocol: Sequence[tuple[str, Sequence[str]]]

    @property
    def differing(self) -> list[str]:
        """Names of the lines in which the sources differ."""
        return [name for name, lines in self.protocol if len(lines) > 1 and name not in PER_SYSTEM]

    @property
    def has_ties(self) -> bool:
        """Whether any value cannot be told apart from the best one."""
        return any(cell.mark == "tied" for column in self.columns for cell in column.cells.values())

    @property
    def has_spreads(self) -> bool:
        """Whether any value has an interval."""
        return any(cell.spread for column in self.columns for cell in column.cells.values())


def write_report(
    paths: Sequence[str | Path],
    output: str | Path,
    title: str = "Evaluation",
    sofp: str | Path | None = None,
    max_bytes: int = 20_000_000,
    clip_width: int = 192,
    clips_per_prompt: int = 1,
    progress: Callable[[Sequence], Iterator] = iter,
) -> list[str]:
    """Write the page.

    Args:
        paths: Results files, or the folders they are in.
        output: An .html file; an existing one is replaced.
        title: Heading of the page.
        sofp: Results file of `benchmarks/sofp.py`, for a section on interpolation.
        max_bytes: Largest size of the page. Prompts are shown, with the clips of all systems, while they fit.
        clip_width: Width in pixels that wider clips are reduced to.
        clips_per_prompt: Number of clips of each system, from the first one on; 0 for a page without clips.
        progress: Wraps the list of prompts, for a progress bar.

    Returns:
        What the page leaves out, one sentence each; the page says the same.

    Raises:
        FileNotFoundError: A results file or a clip is missing.
        ValueError: `output` cannot be written to, a file is not a results file or not a video, or the numbers alone
            are larger than `max_bytes`.
    """
    check_page(output)
    sources = [read_source(path) for path in paths]
    systems = unique_systems(sources)
    numbers = _section([(source.name, source.results.protocol) for source in sources], [one for one, _ in systems])
    content = {"title": title, "numbers": numbers, "interpolation": None, "kind_notes": KIND_NOTES}
    columns = numbers.columns
    if sofp is not None:
        results = read_interpolation(sofp)
        content["interpolation"] = _section([(Path(sofp).name, results.protocol)], results.systems)
        columns = [*columns, *content["interpolation"].columns]
    content["notes"] = explain([column.label for column in columns])
    bare = len(render_page("report.html", **content, gallery=Gallery()).encode())
    if bare > max_bytes:
        room = f"{megabytes(bare)}, the size without clips"
        raise ValueError(f"`max_bytes` must be at least {room}, got {megabytes(max_bytes)}.")
    gallery = make_gallery(systems, max_bytes - bare, clip_width, clips_per_prompt, progress)
    write_text(output, render_page("report.html", **content, gallery=gallery))
    return gallery.left_out


def check_page(path: str | Path) -> None:
    """Raise `ValueError` if no HTML page can be written there."""
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"{path}: the name of a page must end in .html.")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: no such folder {path.parent}.")
    if path.is_dir():
        raise ValueError(f"{path}: must be a file, got a folder.")


def _section(sources: Sequence[tuple[str, Mapping[str, str]]], systems: Sequence[System]) -> Section:
    systems = [replace(system, metrics={**system.metrics, **_costs(system)}) for system in systems]
    labels = dict.fromkeys(label for system in systems for label in system.metrics)
    columns = []
    for label in sorted(labels, key=lambda label: label in COSTS):  # costs stand last
        values = {system.name: system.metrics[label] for system in systems if label in system.metrics}
        # Costs depend on the machine, so no system wins them.
        competing = [system.name for system in systems if system.competes and label not in COSTS]
        columns.append(make_column(label, values, competing))
    protocol = []
    for name in dict.fromkeys(name for _, lines in sources for name in lines):
        texts = [lines.get(name, "not said") for _, lines in sources]
        protocol.append((name, texts if len(set(texts)) > 1 else texts[:1]))
    return Section(systems, columns, [name for name, _ in sources], protocol)


def _costs(system: System) -> dict:
    costs = {label: getattr(system, attribute) for label, attribute in COSTS.items()}
    return {label: metric_value(label, cost) for label, cost in costs.items() if cost is not None}


def megabytes(size: int) -> str:
    """Format a number of bytes."""
    return f"{size / 1e6:.1f} MB"
