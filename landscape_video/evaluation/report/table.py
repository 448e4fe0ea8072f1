"""Write the results of an evaluation as a Markdown table."""

from landscape_video.evaluation.results import Results, System
from motion_adapter.markdown import escape, markdown_table


ARROWS = {"higher": " ↑", "lower": " ↓", None: ""}


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
