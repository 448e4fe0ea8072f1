"""The rule that turns figures into sentences, on figures whose answer is known."""

import numpy as np
import pytest

from miniature_claims import (
    AGREES,
    CLAIMS,
    DISAGREES,
    KEYS,
    OPEN,
    RESAMPLES,
    ROWS,
    STUDENT,
    Claim,
    Comparison,
    compare,
    difference_sentence,
    runs_of,
    sentence,
    verdict,
)


CLIPS = np.random.default_rng(0).normal(size=40)


def test_what_all_clips_share_cancels_in_the_pairs():
    """Clips differ by much and the rows by 0.1 in every clip, so there is no doubt about prompts at all."""
    full = {seed: CLIPS + 0.01 * seed for seed in range(3)}
    row = {seed: values + 0.1 for seed, values in full.items()}
    comparison = compare(row, full, np.mean)
    assert comparison.difference == pytest.approx(0.1)
    assert comparison.prompt_margin == pytest.approx(0, abs=1e-12) and comparison.seed_margin == pytest.approx(0)


def test_margin_over_prompts_is_that_of_a_mean():
    noise = np.random.default_rng(1).normal(size=400)
    comparison = compare({0: CLIPS.repeat(10) + noise}, {0: CLIPS.repeat(10)}, np.mean)
    expected = 1.96 * noise.std() / 20
    assert comparison.prompt_margin == pytest.approx(expected, rel=4 / np.sqrt(2 * RESAMPLES))


def test_margin_over_seeds_of_repeated_rows_and_of_rows_trained_once():
    full = {0: CLIPS, 1: CLIPS + 1, 2: CLIPS + 2}
    row = {0: CLIPS + 3, 1: CLIPS + 5, 2: CLIPS + 7}  # differences 3, 4, 5
    assert compare(row, full, np.mean).difference == pytest.approx(4)
    assert compare(row, full, np.mean).seed_margin == pytest.approx(4.303 * 1 / np.sqrt(3))
    once = compare({0: CLIPS + 3}, full, np.mean)
    assert once.difference == pytest.approx(3) and once.seed_margin == pytest.approx(4.303 * np.sqrt(2))
    assert compare({0: CLIPS + 3}, {0: CLIPS}, np.mean).seed_margin is None


def test_students_quantiles():
    from scipy.stats import t

    assert STUDENT == {degrees: pytest.approx(t.ppf(0.975, degrees), abs=6e-4) for degrees in STUDENT}


def test_rows_without_a_common_seed_are_refused():
    with pytest.raises(ValueError, match=r"rows must share a training seed, got \[1\] and \[0\]"):
        compare({1: CLIPS}, {0: CLIPS}, np.mean)


def test_a_single_clip_says_nothing_of_prompts():
    assert compare({0: CLIPS[:1] + 1}, {0: CLIPS[:1]}, np.mean).prompt_margin is None


@pytest.mark.parametrize(
    ("comparison", "expected"),
    [
        (Comparison(1.0, 0.5, 0.9), AGREES),
        (Comparison(-1.0, 0.5, 0.9), DISAGREES),
        (Comparison(1.0, 1.1, 0.5), OPEN),
        (Comparison(1.0, 0.5, 1.1), OPEN),
        (Comparison(1.0, 0.5, None), OPEN),
        (Comparison(1.0, None, 0.5), OPEN),
        (Comparison(0.0, 0.0, 0.0), OPEN),
    ],
)
def test_verdict_where_the_papers_row_is_higher(comparison, expected):
    assert verdict(comparison, paper_full=53.7, paper_row=92.8) == expected
    opposite = {AGREES: DISAGREES, DISAGREES: AGREES, OPEN: OPEN}[expected]
    assert verdict(comparison, paper_full=0.981, paper_row=0.973) == opposite


def test_sentence_of_a_claim():
    claim = Claim("row", "II", "attention helps", {"CLIP-text": (30, 28), "FVD16": (53, 92), "KVD16": (10, 28)})
    found = {
        "CLIP-text[shanshui-clip]": Comparison(1.0, 0.1, 0.1),
        "FVD16[shanshui-clip]": Comparison(1.0, 0.1, 0.1),
        "KVD16[shanshui-clip]": Comparison(1.0, 0.1, 3.0),
        "flicker": Comparison(9.0, 0.1, 0.1),  # of which the paper says nothing
    }
    assert sentence(claim, found, 350) == (
        "The paper says that attention helps (Table II). At 350 steps this study agrees in FVD16[shanshui-clip]; "
        "disagrees in CLIP-text[shanshui-clip]; cannot tell the two apart in KVD16[shanshui-clip]."
    )
    assert sentence(claim, {}, 350).endswith("At 350 steps this study measured none of the paper's metrics.")


def test_sentence_of_a_difference():
    assert difference_sentence("without Versatile", "loss", Comparison(0.02, 0.01, 0.01), 0.2, 350) == (
        "without Versatile: its loss is higher than the full model's by 0.02, 10 %."
    )
    assert difference_sentence("without Versatile", "loss", Comparison(0.02, 0.01, 0.03), 0.2, 350) == (
        "without Versatile: its loss cannot be told apart from the full model's at 350 steps."
    )


def test_rows_and_claims_belong_together():
    assert len(set(KEYS)) == len(ROWS) and {claim.row for claim in CLAIMS} < set(KEYS)
    assert [run.name for run in runs_of(["full", "threshold_2"], seeds=2)] == [
        "full-seed0",
        "threshold_2-seed0",
        "full-seed1",
    ]
    assert len(runs_of(KEYS, seeds=3)) == 6 * 3 + 5
