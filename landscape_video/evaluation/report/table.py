"""Write the results of an evaluation as a Markdown table."""

from landscape_video.evaluation.results import Metric, Results, System
from motion_adapter.markdown import escape, markdown_table


ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}
COSTS = ("seconds a clip", "peak memory, GiB")


def markdown(results: Results) -> str:
    """Format results as a Markdown table and the list of what they depend on.

    Each system is a row and each metric a column. The best value of a column is bold; still baselines and references
    do not compete.
    """
    metrics = {label: _first(results, label) for label in results.labels}
    header = [f"{label}{f', {one.unit}' if one.unit else ''}{ARROWS[one.better]}" for label, one in metrics.items()]
    rows = []
    for system in results.systems:
        cells = [_cell(results, system, label) for label in metrics]
        costs = [_number(number) for number in (system.seconds_per_clip, system.peak_memory_gib)]
        rows.append([f"{system.name} ({len(system.clips)})", *cells, *costs])
    protocol = [f"- {escape(name)}: {escape(line)}" for name, line in results.protocol.items()]
    return "\n".join(
        [markdown_table(["system (clips)", *header, *COSTS], rows), "", "Measured so:", "", *protocol, ""]
    )


def _first(results: Results, label: str) -> Metric:
    return next(system.metrics[label] for system in results.systems if label in system.metrics)


def _cell(results: Results, system: System, label: str) -> str:
    if label not in system.metrics:
        return "-"
    metric = system.metrics[label]
    text = _number(metric.value)
    # Neither a still picture nor the truth takes part in the contest.
    rivals = [one.metrics[label].value for one in results.systems if _takes_part(one) and label in one.metrics]
    if metric.better and _takes_part(system) and len(rivals) > 1:
        text = f"**{text}**" if metric.value == (max if metric.better == "higher" else min)(rivals) else text
    if metric.low is None or metric.high is None:
        return text
    return f"{text} [{_number(metric.low)}, {_number(metric.high)}]"


def _takes_part(system: System) -> bool:
    return system.kind in ("generated", "folder")


def _number(value: float | None) -> str:
    """Four digits that count."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:#.4g}"
