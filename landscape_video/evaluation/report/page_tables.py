"""Prepare the numbers of a report page: round them per column, mark the best, and place them on an axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from landscape_video.evaluation.results import MetricValue


CUT_BELOW = 0.25  # values that differ by less than this share of the largest are dots on a cut axis, not bars
MAX_DECIMALS = 4
STEPS = (1, 2, 2.5, 5, 10)  # round distances between ticks, times a power of ten


@dataclass(frozen=True)
class Cell:
    """A number of the table and its place on the axis.

    Args:
        text: The rounded value.
        spread: Its interval in words, "" for none.
        mark: "best", "tied" (its interval overlaps that of the best) or "".
        value: The value itself, for sorting.
        start, end: Ends of its bar, in percent of the axis.
        low, high: Ends of its interval, in percent of the axis; None for none.
    """

    text: str
    spread: str
    mark: str
    value: float
    start: float
    end: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Column:
    """One metric of several systems.

    Args:
        label: Title of the column.
        unit: Unit of the values, "" for none.
        better: "higher", "lower" or None.
        is_cut: Whether the axis does not begin at 0.
        cells: Cells by the name of the system; systems without the metric are missing.
        ticks: Position in percent and text of each tick; the text may be "".
    """

    label: str
    unit: str
    better: str | None
    is_cut: bool
    cells: Mapping[str, Cell]
    ticks: Sequence[tuple[float, str]]


def make_column(label: str, metrics: Mapping[str, MetricValue], competing: Sequence[str]) -> Column:
    """Lay out one metric, given by the names of its systems. Only the `competing` ones may be marked as best."""
    values = list(metrics.values())
    digits = decimals(values)
    known = [bound for one in values for bound in (one.value, one.low, one.high) if bound is not None]
    is_cut = min(known) > 0 and 0 < max(known) - min(known) < CUT_BELOW * max(known)
    ticks = _ticks(*(known if is_cut else [0.0, *known]))
    marks = _marks({name: metrics[name] for name in competing if name in metrics})

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - ticks[0]) / (ticks[-1] - ticks[0]), 3)

    cells = {}
    for name, one in metrics.items():
        ends = sorted((place(one.value), place(ticks[0] if is_cut else 0.0)))
        has_spread = one.low is not None and one.high is not None
        spread = f"{number(one.low, digits)} to {number(one.high, digits)}" if has_spread else ""
        low, high = (place(one.low), place(one.high)) if has_spread else (None, None)
        cells[name] = Cell(number(one.value, digits), spread, marks.get(name, ""), one.value, *ends, low, high)
    tick_digits = _digits_of_step(ticks[1] - ticks[0])
    # Every second tick has a number where all of them would overlap on a phone.
    texts = [number(tick, tick_digits) if len(ticks) < 5 or i % 2 == 0 else "" for i, tick in enumerate(ticks)]
    return Column(
        label, values[0].unit, values[0].better, is_cut, cells, list(zip(map(place, ticks), texts, strict=True))
    )


def decimals(metrics: Sequence[MetricValue]) -> int:
    """Decimals that show two digits of the median interval, or of the differences where there are no intervals."""
    widths = sorted(
        metric.high - metric.low
        for metric in metrics
        if metric.low is not None and metric.high is not None and metric.high > metric.low
    )
    values = [metric.value for metric in metrics]
    scale = widths[len(widths) // 2] if widths else max(values) - min(values) or max(map(abs, values))
    return min(max(1 - math.floor(math.log10(scale)), 0), MAX_DECIMALS) if scale else 0


def number(value: float, digits: int) -> str:
    """Format with a typographic minus sign, and without one on zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def _marks(metrics: Mapping[str, MetricValue]) -> dict[str, str]:
    """The best system, and those whose intervals overlap with its own; none where neither direction is better."""
    better = next((metric.better for metric in metrics.values()), None)
    if better is None or len(metrics) < 2:
        return {}
    best = (max if better == "higher" else min)(metrics.values(), key=lambda metric: metric.value)
    marks = {}
    for name, metric in metrics.items():
        if metric.value == best.value:
            marks[name] = "best"
        elif None not in (metric.low, metric.high, best.low, best.high):
            if metric.low <= best.high and best.low <= metric.high:
                marks[name] = "tied"
    return marks


def _ticks(*values: float) -> list[float]:
    """Three to six round numbers that enclose all values."""
    low, high = min(values), max(values)
    high = low + 1 if high == low else high
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(multiple * power for multiple in STEPS if multiple * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _digits_of_step(step: float) -> int:
    exponent = math.floor(math.log10(step) + 1e-9)
    is_quarter = round(step / 10.0**exponent, 6) == 2.5
    return max(0, is_quarter - exponent)
