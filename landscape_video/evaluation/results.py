"""Read and write results.json, the output of `evaluate` and the input of reports and user studies.

`markdown` formats the same as a table.

{"protocol": {"frames": "16 of 16, stride 1", "CLIP": "... sha256 ...", ...},
 "systems": [{"name": "ours", "kind": "generated",
              "metrics": {"CLIP-temp": {"value": 0.98, "low": 0.97, "high": 0.99, "better": "higher", "unit": ""}},
              "seconds_per_clip": 12.0, "peak_memory_gib": null,
              "clips": [{"prompt": "mist", "file": "ours/0001.mp4", "seed": 7, "metrics": {"CLIP-temp": 0.98}}]}]}
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from landscape_video.files import write_text
from motion_adapter.markdown import escape, markdown_table


FILE_NAME = "results.json"
KINDS = ("generated", "folder", "still", "reference")
DIRECTIONS = ("higher", "lower", None)
NUMBER = int | float

ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


@dataclass(frozen=True)
class MetricValue:
    """The value of a metric for one system: one cell of a table.

    Args:
        value: The value, finite.
        low, high: Ends of its 95 % interval; None without one.
        better: "higher", "lower", or None where neither is better.
        unit: Unit of the value, "" for none.
    """

    value: float
    low: float | None = None
    high: float | None = None
    better: str | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        _checked("value", self.value, NUMBER)
        _checked("low", self.low, NUMBER | None)
        _checked("high", self.high, NUMBER | None)
        if self.better not in DIRECTIONS:
            raise ValueError(f"`better` must be one of {DIRECTIONS}, got {self.better!r}.")


@dataclass(frozen=True)
class ClipResult:
    """One clip of a system.

    Args:
        prompt: Its prompt, "" without one.
        file: Path relative to the folder of results.json, with forward slashes.
        seed: Seed of its noise, if it is known.
        metrics: Values by label.
    """

    prompt: str
    file: str
    seed: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """A row of the table: a model or a folder of clips.

    Args:
        name: Unique name.
        kind: One of `KINDS`.
        metrics: Values by label.
        clips: Clips in the order of the prompts.
        seconds_per_clip: Median time to generate a clip.
        peak_memory_gib: Peak memory while it was generated, in GiB.
    """

    name: str
    kind: str
    metrics: Mapping[str, MetricValue]
    clips: tuple[ClipResult, ...]
    seconds_per_clip: float | None = None
    peak_memory_gib: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"`kind` of {self.name} must be one of {', '.join(KINDS)}, got {self.kind!r}.")

    @property
    def competes(self) -> bool:
        """Whether it may be the best; still baselines and references only serve for comparison."""
        return self.kind in ("generated", "folder")


@dataclass(frozen=True)
class Results:
    """All systems, measured in the same way; `protocol` says how, with one line of text for each name."""

    protocol: Mapping[str, str]
    systems: tuple[System, ...]

    def __post_init__(self) -> None:
        names = [system.name for system in self.systems]
        if len(set(names)) < len(names):
            raise ValueError(f"names of systems must differ, got {', '.join(names)}.")

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of all metrics of any system, in the order in which they first appear."""
        return tuple(dict.fromkeys(label for system in self.systems for label in system.metrics))


def write_results(results: Results, path: str | Path) -> None:
    """Write results.json. Raises `ValueError` for numbers that are not finite; nothing is written then."""
    write_text(path, json.dumps(asdict(results), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_results(path: str | Path) -> Results:
    """Read a results file, or the one in a folder.

    Raises:
        FileNotFoundError: The file is missing.
        ValueError: It is not a results file; the message names the file and what is wrong.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `landscape-video evaluate` writes it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        protocol = {name: _checked(name, line, str) for name, line in content["protocol"].items()}
        return Results(protocol, tuple(map(_system, content["systems"])))
    except KeyError as error:
        raise ValueError(f"{path}: not a results file of `landscape-video evaluate`: {error} is missing.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: not a results file of `landscape-video evaluate`: {error}") from error


def _system(entry: dict[str, Any]) -> System:
    return System(
        name=_checked("name", entry["name"], str),
        kind=entry["kind"],
        metrics={label: MetricValue(**value) for label, value in entry["metrics"].items()},
        clips=tuple(map(_clip, entry["clips"])),
        seconds_per_clip=_checked("seconds_per_clip", entry["seconds_per_clip"], NUMBER | None),
        peak_memory_gib=_checked("peak_memory_gib", entry["peak_memory_gib"], NUMBER | None),
    )


def _clip(entry: dict[str, Any]) -> ClipResult:
    return ClipResult(
        prompt=_checked("prompt", entry["prompt"], str),
        file=_checked("file", entry["file"], str),
        seed=_checked("seed", entry["seed"], int | None),
        metrics={label: _checked(label, value, NUMBER | None) for label, value in entry["metrics"].items()},
    )


def _checked(name: str, value: Any, kind: Any) -> Any:
    """Return `value` if it is of that kind; True and False are not numbers, and numbers must be finite."""
    is_finite = not isinstance(value, float) or math.isfinite(value)
    if isinstance(value, bool) or not isinstance(value, kind) or not is_finite:
        expected = {str: "a string", int | None: "an integer", NUMBER: "a finite number"}
        raise ValueError(f"`{name}` must be {expected.get(kind, 'a finite number')}, got {value!r}.")
    return value


def markdown(results: Results) -> str:
    """Format results as a Markdown table and the list of what they depend on.

    Each system is a row and each metric a column. The best value of a column is bold; still baselines and references
    do not compete.
    """
    header = ["system (clips)"]
    for label in results.labels:
        value = next(system.metrics[label] for system in results.systems if label in system.metrics)
        header.append(f"{label}{f', {value.unit}' if value.unit else ''}{ARROWS[value.better]}")
    rows = []
    for system in results.systems:
        cells = [_cell(results, system, label) for label in results.labels]
        costs = map(_number, (system.seconds_per_clip, system.peak_memory_gib))
        rows.append([f"{system.name} ({len(system.clips)})", *cells, *costs])
    protocol = [f"- {escape(name)}: {escape(line)}" for name, line in results.protocol.items()]
    table = markdown_table([*header, "seconds per clip", "peak memory, GiB"], rows)
    return "\n".join([table, "", "Measured as follows:", "", *protocol, ""])


def _cell(results: Results, system: System, label: str) -> str:
    metric = system.metrics.get(label)
    if metric is None:
        return "-"
    text = _number(metric.value)
    rivals = [one.metrics[label].value for one in results.systems if one.competes and label in one.metrics]
    if metric.better and system.competes and len(rivals) > 1:
        text = f"**{text}**" if metric.value == (max if metric.better == "higher" else min)(rivals) else text
    if metric.low is None or metric.high is None:
        return text
    return f"{text} [{_number(metric.low)}, {_number(metric.high)}]"


def _number(value: float | None) -> str:
    """Format with four significant digits."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}"
