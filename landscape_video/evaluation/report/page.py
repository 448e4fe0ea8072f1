"""One HTML page that holds everything: the numbers, how they were measured, and the clips themselves.

The page is data for a Jinja2 template in `pages/`: tables and bars from `page_tables.py`, clips from
`report_gallery.py`, explanations from `metric_notes.py`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from landscape_video.evaluation.metrics.metric_notes import explain
from landscape_video.evaluation.report.interpolation_rows import read_interpolation
from landscape_video.evaluation.report.page_tables import Column, make_column
from landscape_video.evaluation.report.report_gallery import Gallery, make_gallery, read_source, unique_systems
from landscape_video.evaluation.results import Metric, System
from landscape_video.files import write_text


KIND_NOTES = {
    "generated": "",
    "folder": "videos of a folder",
    "still": "a baseline",
    "reference": "what the others are compared with",
}
COSTS = ("seconds per clip", "peak memory")  # stand last, and nobody wins them: they depend on the machine
PER_SYSTEM = ("clips", "size")  # lines that go through the systems, and so differ wherever those do


@dataclass(frozen=True)
class Section:
    """A table with its protocol: `protocol` is (name, one line for each source); lines that differ are marked."""

    systems: Sequence[System]
    columns: Sequence[Column]
    sources: Sequence[str]
    protocol: Sequence[tuple[str, Sequence[str]]]

    @property
    def differing(self) -> list[str]:
        return [name for name, lines in self.protocol if len(set(lines)) > 1 and name not in PER_SYSTEM]

    @property
    def has_ties(self) -> bool:
        return any(cell.mark == "tied" for column in self.columns for cell in column.cells.values())

    @property
    def has_spreads(self) -> bool:
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
        paths: results files, or the folders they are in.
        output: an .html file; one that is there is replaced.
        sofp: a results file of `benchmarks/sofp.py`, for a section on interpolation.
        max_bytes: of the page. Prompts are shown with the clips of all systems while they fit.
        clip_width: clips are shrunk to this width, in pixels.
        clips_per_prompt: of each system, the first ones; 0 for a page without clips.
        progress: wraps the list of prompts, for a progress bar.

    Returns:
        What is not on the page, one sentence each; the page says the same.

    Raises:
        FileNotFoundError: a results file or a clip is not there.
        ValueError: `output` cannot be written to, a file is no results file or no video, or the numbers alone are
            larger than `max_bytes`.
    """
    check_page(output)
    sources = [read_source(path) for path in paths]
    systems = unique_systems(sources)
    content = {
        "title": title,
        "numbers": _section(
            [source.results.protocol for source in sources],
            [source.name for source in sources],
            [system for system, _ in systems],
        ),
        "interpolation": None,
        "kind_notes": KIND_NOTES,
    }
    if sofp is not None:
        results = read_interpolation(sofp)
        content["interpolation"] = _section([results.protocol], [Path(sofp).name], results.systems)
    labels = [
        column.label for name in ("numbers", "interpolation") if content[name] for column in content[name].columns
    ]
    content["notes"] = explain(labels)
    bare = len(_render(content, Gallery()).encode())
    if bare > max_bytes:
        raise ValueError(
            f"the numbers alone make a page of {megabytes(bare)}, but it may have {megabytes(max_bytes)}."
        )
    gallery = make_gallery(systems, max_bytes - bare, clip_width, clips_per_prompt, progress)
    write_text(output, _render(content, gallery))
    return gallery.left_out


def check_page(path: str | Path) -> None:
    """Raise `ValueError` in one line if no HTML page can be written there."""
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"{path}: the name of a page has to end in .html.")
    if not path.parent.is_dir():
        raise ValueError(f"{path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise ValueError(f"{path}: is a folder.")


def _section(protocols: Sequence[dict[str, str]], names: Sequence[str], systems: Sequence[System]) -> Section:
    systems = [replace(system, metrics={**system.metrics, **_costs(system)}) for system in systems]
    competing = [system.name for system in systems if system.kind in ("generated", "folder")]
    labels = dict.fromkeys(label for system in systems for label in system.metrics)
    columns = [
        make_column(
            label,
            {system.name: system.metrics[label] for system in systems if label in system.metrics},
            () if label in COSTS else competing,
        )
        for label in sorted(labels, key=lambda label: label in COSTS)
    ]
    lines = dict.fromkeys(name for protocol in protocols for name in protocol)
    protocol = [(name, [protocol.get(name, "not said") for protocol in protocols]) for name in lines]
    protocol = [(name, lines[:1] if len(set(lines)) == 1 else lines) for name, lines in protocol]
    return Section(systems, columns, names, protocol)


def _costs(system: System) -> dict[str, Metric]:
    costs = {}
    if system.seconds_per_clip is not None:
        costs["seconds per clip"] = Metric(system.seconds_per_clip, better="lower", unit="s")
    if system.peak_memory_gib is not None:
        costs["peak memory"] = Metric(system.peak_memory_gib, better="lower", unit="GiB")
    return costs


def _render(content: dict, gallery: Gallery) -> str:
    environment = Environment(
        loader=PackageLoader("landscape_video.evaluation", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(**content, gallery=gallery)


def megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"
