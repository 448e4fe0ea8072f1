"""The interpolation benchmark (`benchmarks/sofp.py`) in the shape of results, so that a report shows it alike."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landscape_video.evaluation.metrics.intervals import RESAMPLES, bootstrap, mean
from landscape_video.evaluation.results import Metric, Results, System


NAMES = {
    "repeat": "repeat",
    "average": "average",
    "farneback": "Farneback",
    "rife": "RIFE",
    "sofp_linear": "SOFP linear",
    "sofp_projection": "SOFP projection",
    "sofp_quadratic": "SOFP quadratic",
}
BASELINES = ("repeat", "average")  # what needs no idea of motion


def read_interpolation(path: str | Path) -> Results:
    """Mean PSNR of every method, for each speed of the rendered clips and for the natural ones.

    The spread is 95 % of a bootstrap over clips (seed 0); a group of fewer than three clips has none. Methods that
    only a part of the clips was measured with are left out.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no result of the benchmark; the message names it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; `python benchmarks/sofp.py` writes it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        groups: dict[str, list[Mapping[str, Any]]] = {}
        for clip in content["clips"]:
            groups.setdefault(f"PSNR, {clip['speed'] or clip['kind']}", []).append(clip["scores"])
        methods = [name for name in NAMES if all(name in scores for group in groups.values() for scores in group)]
        if not groups or not methods:
            raise ValueError("no method was measured on every clip.")
        systems = tuple(
            System(
                name=NAMES[method],
                kind="still" if method in BASELINES else "generated",
                metrics={
                    label: _mean([float(scores[method]["psnr"]) for scores in group])
                    for label, group in groups.items()
                },
                clips=(),
            )
            for method in methods
        )
        return Results(_protocol(content["settings"], groups), systems)
    except KeyError as error:
        raise ValueError(f"{path}: no results of benchmarks/sofp.py: there is no {error}.") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: no results of benchmarks/sofp.py: {error}") from error


def _mean(values: list[float]) -> Metric:
    if len(values) < 3:
        return Metric(float(np.mean(values)), better="higher", unit="dB")
    found = bootstrap(mean, np.array(values))
    return Metric(found.value, found.low, found.high, "higher", "dB")


def _protocol(settings: Mapping[str, Any], groups: Mapping[str, list]) -> dict[str, str]:
    versions = ", ".join(f"{name} {version}" for name, version in settings["versions"].items())
    protocol = {
        "samples": ", ".join(f"{label.partition(', ')[2]}: {len(group)} clips" for label, group in groups.items()),
        "rendered clips": f"{settings['size']} x {settings['size']}, {settings['num_frames']} frames given at "
        f"{settings['frame_rate']} a second on average, the true half-time frames held out; seed {settings['seed']}",
        "natural clips": "every second frame held out",
        "flow": "OpenCV DIS for SOFP, no weights; Farneback's flow goes through the same warping",
        "spread": f"95 %, bootstrap over clips, {RESAMPLES} resamples, seed 0",
        "machine": f"{settings['device']}; {versions}",
    }
    for name, digest in settings.get("sha256", {}).items():
        protocol[name] = f"sha256 {digest}"
    return protocol
