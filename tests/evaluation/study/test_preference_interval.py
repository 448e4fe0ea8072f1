"""Preferences with intervals: Wilson's where answers are independent, wider where raters answer several times."""

import numpy as np
import pytest
from scipy import stats

from landscape_video.evaluation.study.study_count import preference, student_quantile, wilson


@pytest.mark.parametrize(("chosen", "asked"), [(0, 1), (1, 1), (7, 10), (0, 25), (25, 25), (130, 400)])
def test_one_answer_each_is_wilsons_interval_of_scipy(chosen, asked):
    share = preference([(int(index < chosen), 1) for index in range(asked)])
    theirs = stats.binomtest(chosen, asked).proportion_ci(0.95, method="wilson")
    assert (share.low, share.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert (share.value, share.answers, share.raters) == (chosen / asked, asked, asked)


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 20, 99, 499])
def test_the_quantile_is_that_of_student(freedom):
    assert student_quantile(0.975, freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=2e-3)


def test_raters_who_answer_alike_are_worth_one_answer_each():
    divided = preference([(20, 20), (20, 20), (20, 20), (0, 20), (0, 20), (0, 20)])
    assert divided.value == 0.5
    low, high = wilson(0.5, 6)
    assert divided.low < low and divided.high > high
    unanimous = preference([(20, 20)] * 6)
    assert (unanimous.low, unanimous.high) == wilson(1, 6)
    assert preference([(20, 20)]).low == wilson(1, 1)[0]


def test_raters_who_agree_more_than_chance_are_not_worth_more_than_they_answered():
    share = preference([(7, 10)] * 30)
    low, high = wilson(0.7, 300)
    assert share.low <= low and share.high >= high and share.high - share.low < 1.1 * (high - low)


def test_whoever_was_not_asked_does_not_count():
    assert preference([(3, 4), (0, 0), (1, 4)]) == preference([(3, 4), (1, 4)])
    with pytest.raises(ValueError, match="no answers"):
        preference([(0, 0)])


@pytest.mark.parametrize(("raters", "answers"), [(4, 20), (12, 10), (40, 4)])
def test_the_interval_holds_the_truth_where_wilsons_own_does_not(raters, answers):
    """Raters differ: each has a preference of their own, beta-distributed around 0.7 with a correlation of 0.3."""
    random, truth, correlation = np.random.default_rng(0), 0.7, 0.3
    scale = (1 - correlation) / correlation
    held = naive_held = 0
    for _ in range(500):
        chosen = random.binomial(answers, random.beta(truth * scale, (1 - truth) * scale, raters))
        share = preference([(int(number), answers) for number in chosen])
        held += share.low <= truth <= share.high
        low, high = wilson(share.value, raters * answers)
        naive_held += low <= truth <= high
    assert held >= 0.93 * 500
    assert naive_held < 0.88 * 500
