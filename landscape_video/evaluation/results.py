"""The file between measuring and showing: `evaluate` writes OUTPUT/results.json, reports and studies read it.

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


FILE_NAME = "results.json"
KINDS = ("generated", "folder", "still", "reference")
DIRECTIONS = ("higher", "lower", None)


@dataclass(frozen=True)
class Metric:
    """One cell of a table.

    `low` and `high` bound its spread over repeats (95 %), None where there is none; `better` says which way is better,
    None where neither is (how much moves); `unit` is for readers, "" where there is none.
    """

    value: float
    low: float | None = None
    high: float | None = None
    better: str | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        numbers = [number for number in (self.value, self.low, self.high) if number is not None]
        if not all(_is_number(number) and math.isfinite(number) for number in (self.value, *numbers)):
            raise ValueError(f"a metric is {self.value} [{self.low}, {self.high}], but must be of finite numbers.")
        if self.better not in DIRECTIONS:
            raise ValueError(f"`better` is {self.better!r}, but must be one of {DIRECTIONS}.")


@dataclass(frozen=True)
class ClipResult:
    """One clip: `file` is relative to the folder of the results file, with forward slashes; metrics by label."""

    prompt: str
    file: str
    seed: int | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class System:
    """What makes clips, or has made them; its clips stand in the order of the prompts."""

    name: str
    kind: str
    metrics: Mapping[str, Metric]
    clips: tuple[ClipResult, ...]
    seconds_per_clip: float | None = None
    peak_memory_gib: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"system {self.name}: its kind is {self.kind!r}, but must be one of {', '.join(KINDS)}.")


@dataclass(frozen=True)
class Results:
    """All systems, measured alike; `protocol` says how, one line of text for each name."""

    protocol: Mapping[str, str]
    systems: tuple[System, ...]

    def __post_init__(self) -> None:
        names = [system.name for system in self.systems]
        if len(set(names)) < len(names):
            raise ValueError(f"two systems have the same name: {', '.join(names)}.")

    @property
    def labels(self) -> tuple[str, ...]:
        """All metrics of any system, in the order in which they first appear."""
        return tuple(dict.fromkeys(label for system in self.systems for label in system.metrics))


def write_results(results: Results, path: str | Path) -> None:
    """Write the file, whole or not at all. Raises `ValueError` for numbers that are not finite."""
    write_text(path, json.dumps(asdict(results), indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_results(path: str | Path) -> Results:
    """Read a results file, or the one in a folder.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is no such file; the message names it and what is wrong.
    """
    path = Path(path)
    path = path / FILE_NAME if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; `landscape-video evaluate` writes it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        protocol = {_text(name): _text(line) for name, line in content["protocol"].items()}
        return Results(protocol, tuple(_system(entry) for entry in content["systems"]))
    except KeyError as error:
        raise ValueError(f"{path}: no results of `landscape-video evaluate`: there is no {error}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no results of `landscape-video evaluate`: {error}") from error


def _system(entry: dict[str, Any]) -> System:
    return System(
        name=_text(entry["name"]),
        kind=entry["kind"],
        metrics={_text(label): Metric(**metric) for label, metric in entry["metrics"].items()},
        clips=tuple(_clip(clip) for clip in entry["clips"]),
        seconds_per_clip=_number_or_none(entry["seconds_per_clip"]),
        peak_memory_gib=_number_or_none(entry["peak_memory_gib"]),
    )


def _clip(entry: dict[str, Any]) -> ClipResult:
    metrics = {_text(label): _number_or_none(value) for label, value in entry["metrics"].items()}
    seed = entry["seed"]
    if not (seed is None or (isinstance(seed, int) and not isinstance(seed, bool))):
        raise ValueError(f"the seed of a clip is {seed!r}, but must be an integer.")
    return ClipResult(_text(entry["prompt"]), _text(entry["file"]), seed, metrics)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{value!r} stands where text belongs.")
    return value


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number_or_none(value: Any) -> float | None:
    if not (value is None or (_is_number(value) and math.isfinite(value))):
        raise ValueError(f"{value!r} stands where a finite number belongs.")
    return value
