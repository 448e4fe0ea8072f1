"""Numbers as a page shows them: rounded alike in a column, the best marked, and placed on an axis."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from landscape_video.evaluation.results import Metric


CUT_BELOW = 0.25  # values that differ by less than this share of the largest are dots on a cut axis, not bars
MAX_DECIMALS = 4


@dataclass(frozen=True)
class Cell:
    """A number of the table; lengths on the axis in per cent of its width, None where there is no spread."""

    text: str
    spread: str
    mark: str  # "best", "tied" (its spread overlaps that of the best) or ""
    value: float
    start: float
    end: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Column:
    """One metric of several systems. `cells` by system, if it has the metric; `ticks` are (per cent, text or "")."""

    label: str
    unit: str
    better: str | None
    is_cut: bool
    cells: Mapping[str, Cell]
    ticks: Sequence[tuple[float, str]]


def make_column(label: str, metrics: Mapping[str, Metric], competing: Sequence[str]) -> Column:
    """Lay out one metric, given by the names of its systems. Only the `competing` may be marked as best."""
    digits = decimals(list(metrics.values()))
    bounds = [bound for metric in metrics.values() for bound in (metric.value, metric.low, metric.high)]
    known = [bound for bound in bounds if bound is not None]
    is_cut = min(known) > 0 and max(known) - min(known) < CUT_BELOW * max(known) and max(known) > min(known)
    ticks = _ticks(min(known) if is_cut else min(0.0, *known), max(known) if is_cut else max(0.0, *known))
    first, last = ticks[0], ticks[-1]

    def place(value: float | None) -> float | None:
        return None if value is None else round(100 * (value - first) / (last - first), 3)

    marks = _marks({name: metrics[name] for name in competing if name in metrics})
    cells = {}
    for name, metric in metrics.items():
        ends = sorted((place(metric.value), place(first if is_cut else 0.0)))
        spread = "" if metric.low is None or metric.high is None else _range(metric.low, metric.high, digits)
        cells[name] = Cell(
            text=number(metric.value, digits),
            spread=spread,
            mark=marks.get(name, ""),
            value=metric.value,
            start=ends[0],
            end=ends[1],
            low=place(metric.low) if spread else None,
            high=place(metric.high) if spread else None,
        )
    tick_digits = _digits_of_step(ticks[1] - ticks[0])
    any_metric = next(iter(metrics.values()))
    return Column(
        label=label,
        unit=any_metric.unit,
        better=any_metric.better,
        is_cut=is_cut,
        cells=cells,
        # Every second one bears its number where all would run into each other on a phone.
        ticks=[
            (place(tick), number(tick, tick_digits) if len(ticks) < 5 or index % 2 == 0 else "")
            for index, tick in enumerate(ticks)
        ],
    )


def decimals(metrics: Sequence[Metric]) -> int:
    """Decimals that show two digits of the typical spread, or of the differences where there is no spread."""
    widths = sorted(
        metric.high - metric.low
        for metric in metrics
        if metric.low is not None and metric.high is not None and metric.high > metric.low
    )
    values = [metric.value for metric in metrics]
    scale = widths[len(widths) // 2] if widths else max(values) - min(values) or max(map(abs, values))
    return min(max(1 - math.floor(math.log10(scale)), 0), MAX_DECIMALS) if scale else 0


def number(value: float, digits: int) -> str:
    """With a proper minus sign, and without one on zero."""
    text = f"{value:.{digits}f}"
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")


def _range(low: float, high: float, digits: int) -> str:
    return f"{number(low, digits)} to {number(high, digits)}"


def _marks(metrics: Mapping[str, Metric]) -> dict[str, str]:
    """Which system is best, and whose spreads overlap with its own; none where there is nothing to win."""
    better = next((metric.better for metric in metrics.values()), None)
    if better is None or len(metrics) < 2:
        return {}
    choose = max if better == "higher" else min
    winner = choose(metrics, key=lambda name: metrics[name].value)
    best = metrics[winner]
    marks = {}
    for name, metric in metrics.items():
        if metric.value == best.value:
            marks[name] = "best"
        elif None not in (metric.low, metric.high, best.low, best.high):
            if metric.low <= best.high and best.low <= metric.high:
                marks[name] = "tied"
    return marks


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers, three to six, from at most `low` to at least `high`."""
    if high == low:
        high = low + 1
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(multiple * power for multiple in (1, 2, 2.5, 5, 10) if multiple * power >= raw * (1 - 1e-9))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _digits_of_step(step: float) -> int:
    exponent = math.floor(math.log10(step) + 1e-9)
    is_quarter = round(step / 10.0**exponent, 6) == 2.5
    return max(0, is_quarter - exponent)
