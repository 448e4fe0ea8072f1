"""Read the results of `benchmarks/sofp.py` as rows of a report's table."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from landscape_video.evaluation.metrics.intervals import RESAMPLES, bootstrap, mean
from landscape_video.evaluation.metrics.registry import metric_value
from landscape_video.evaluation.results import MetricValue, Results, System


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
