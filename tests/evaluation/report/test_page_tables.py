"""Numbers on a page: the best ones, those that cannot be told apart, and their positions on the axis."""

import pytest

from landscape_video.evaluation.report.page_tables import decimals, make_column, number
from landscape_video.evaluation.results import MetricValue


def column(*values, better="higher", width=None, competing=None):
    metrics = {
        str(index): MetricValue(
            value, None if width is None else value - width, None if width is None else value + width, better
        )
        for index, value in enumerate(values)
    }
    return make_column("x", metrics, list(metrics) if competing is None else competing)


def marks(made):
    return [cell.mark for cell in made.cells.values()]


def test_the_best_is_marked_by_its_direction_and_only_among_those_who_compete():
    assert marks(column(1, 3, 2)) == ["", "best", ""]
    assert marks(column(1, 3, 2, better="lower")) == ["best", "", ""]
    assert marks(column(1, 3, 2, better=None)) == ["", "", ""]
    assert marks(column(1, 3, 2, competing=["0", "2"])) == ["", "", "best"]
    assert marks(column(1, 3, competing=["0"])) == ["", ""]  # alone, nobody wins
    assert marks(column(2, 2, 1)) == ["best", "best", ""]


def test_what_overlaps_the_best_is_tied():
    assert marks(column(10, 11.9, 14.1, width=1)) == ["", "", "best"]
    assert marks(column(10, 12.2, 14.1, width=1)) == ["", "tied", "best"]


@pytest.mark.parametrize(
    ("metrics", "digits"),
    [
        ([MetricValue(53.7, 52.9, 54.5), MetricValue(97.1, 93.9, 100.3)], 1),
        ([MetricValue(0.981, 0.978, 0.984)], 4),
        ([MetricValue(30.526, 30.2, 30.8)], 2),
        ([MetricValue(1234.0, 1100.0, 1300.0)], 0),
        ([MetricValue(1.4), MetricValue(1.6)], 2),
        ([MetricValue(0.0), MetricValue(0.0)], 0),
        ([MetricValue(0.5)], 2),
        ([MetricValue(1e-9)], 4),
    ],
)
def test_decimals_show_two_digits_of_the_spread(metrics, digits):
    assert decimals(metrics) == digits


def test_numbers_have_a_proper_minus_and_no_negative_zero():
    assert number(-1.25, 1) == "−1.2"
    assert number(-0.001, 2) == "0.00"
    assert number(3.14159, 0) == "3"


def test_bars_start_at_zero_and_the_axis_holds_every_spread():
    made = column(10, 50, width=5)
    assert not made.is_cut and made.ticks[0] == (0.0, "0")
    low, high = made.cells["0"], made.cells["1"]
    assert low.start == high.start == 0 and high.end == pytest.approx(5 * low.end, rel=1e-4)
    assert low.low < low.end < low.high < high.low < high.high <= 100


def test_values_that_lie_close_together_are_dots_on_a_cut_axis():
    made = column(0.96, 0.98, width=0.003)
    assert made.is_cut and made.ticks[0] == (0.0, "0.95")
    assert 0 <= made.cells["0"].low < made.cells["1"].high <= 100
    assert not column(1.0, 1.0).is_cut  # nothing to tell apart


def test_negative_values_have_bars_to_the_left_of_zero():
    made = column(-2, 4)
    zero = dict((text, position) for position, text in made.ticks)["0"]
    assert made.cells["0"].end == pytest.approx(zero) and made.cells["0"].start < zero
    assert made.cells["1"].start == pytest.approx(zero)


@pytest.mark.parametrize("values", [(0.0,), (0.0, 0.0), (5.0,), (-3.0,), (1e-12, 2e-12), (1e9, 3e9), (-1e-3, 7e5)])
def test_every_axis_is_finite_and_its_numbers_differ(values):
    made = column(*values)
    texts = [text for _, text in made.ticks if text]
    assert len(set(texts)) == len(texts) >= 2
    assert all(0 <= end <= 100 for cell in made.cells.values() for end in (cell.start, cell.end))


def test_quarters_keep_their_digits():
    made = column(6.1, 7.1)
    assert [text for _, text in made.ticks if text] == ["6.00", "6.50", "7.00"]
