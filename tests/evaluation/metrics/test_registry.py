"""All metrics together: what a clip leaves, what is made of many, and with which spread."""

import shutil

import numpy as np
import pytest

from known_motion import moving_noise
from landscape_video.evaluation.metrics.clip_metrics import ClipScorer, clip_temp
from landscape_video.evaluation.metrics.distribution_metrics import frechet_distance, inception_score, polynomial_mmd
from landscape_video.evaluation.metrics.motion_metrics import measure_flow
from landscape_video.evaluation.metrics.registry import ClipFigures, Measurers, summarize
from landscape_video.evaluation.metrics.video_features import ClipFeatures
from pipeline_landscape_video import SHANSHUI_TINY


@pytest.fixture(scope="module")
def measurers() -> Measurers:
    return Measurers.load()


def figures_of(rows: np.ndarray, values: np.ndarray | None = None) -> list[ClipFigures]:
    """Clips whose features are `rows`, whose CLIP-temp is `values`."""
    values = np.zeros(len(rows)) if values is None else values
    return [ClipFigures({"CLIP-temp[x]": float(v)}, {"features": row}) for row, v in zip(rows, values, strict=True)]


def test_what_a_clip_leaves(measurers, tmp_path):
    clip = moving_noise(2)
    plain = measurers.measure(clip)
    assert list(plain.metrics) == [
        "CLIP-temp[shanshui-clip]",
        "dynamic degree",
        "frame consistency[shanshui-clip]",
        "flicker",
        "flicker beyond flow",
    ]
    assert plain.metrics["CLIP-temp[shanshui-clip]"] == pytest.approx(clip_temp(ClipScorer().frames(clip)))
    assert plain.metrics["dynamic degree"] == measure_flow(clip).dynamic_degree
    np.testing.assert_array_equal(plain.vectors["features"], ClipFeatures(measurers.clip).features(clip))
    full = measurers.measure(clip, "mist", clip[0])
    assert full.metrics.keys() - plain.metrics.keys() == {
        "CLIP-text[shanshui-clip]",
        "FFF-CLIP[shanshui-clip]",
        "FFF-SSIM",
    }
    assert full.metrics["FFF-SSIM"] == pytest.approx(1) == full.metrics["FFF-CLIP[shanshui-clip]"]
    full.save(tmp_path / "clip.npz")
    again = ClipFigures.load(tmp_path / "clip.npz")
    assert again.metrics == full.metrics
    np.testing.assert_array_equal(again.vectors["features"], full.vectors["features"])


def test_too_few_frames(measurers):
    with pytest.raises(ValueError, match="has 1 frames, but shanshui-clip needs 2"):
        measurers.measure(moving_noise(1)[:1])


def test_figures_of_a_system_are_those_of_its_features(measurers):
    random = np.random.default_rng(0)
    ours, truth = random.normal(size=(12, 6)) + 1, random.normal(size=(15, 6))
    values = random.random(12)
    metrics = summarize(figures_of(ours, values), measurers, 16, reference=figures_of(truth))
    assert list(metrics) == ["CLIP-temp[x]", "FVD16[shanshui-clip]", "KVD16[shanshui-clip]"]
    fvd, kvd, temp = metrics["FVD16[shanshui-clip]"], metrics["KVD16[shanshui-clip]"], metrics["CLIP-temp[x]"]
    assert fvd.value == pytest.approx(frechet_distance(ours, truth)) and fvd.better == "lower"
    assert kvd.value == pytest.approx(polynomial_mmd(ours, truth))
    assert 0 <= fvd.low < fvd.value < fvd.high and kvd.low < kvd.value < kvd.high
    assert temp.value == pytest.approx(values.mean()) and temp.better == "higher"
    assert temp.high - temp.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(12), rel=0.2)
    assert metrics == summarize(figures_of(ours, values), measurers, 16, reference=figures_of(truth))
    other = summarize(figures_of(ours, values), measurers, 16, reference=figures_of(truth), seed=1)
    assert other["FVD16[shanshui-clip]"].value == fvd.value and other["FVD16[shanshui-clip]"].low != fvd.low


def test_clips_of_one_prompt_are_drawn_together(measurers):
    values = np.repeat([0.0, 1.0], 20)  # two prompts, twenty clips each: two facts, not forty
    rows = np.random.default_rng(0).normal(size=(40, 3))
    alone = summarize(figures_of(rows, values), measurers, 16)["CLIP-temp[x]"]
    together = summarize(figures_of(rows, values), measurers, 16, groups=values.astype(int))["CLIP-temp[x]"]
    assert alone.value == together.value == 0.5
    assert (together.low, together.high) == (0, 1) and alone.low > 0.3


def test_the_spread_of_a_distance_covers_other_samples(measurers):
    """About 95 of 100 intervals hold the distance that many more clips lead to; a few draws suffice to see it."""
    random = np.random.default_rng(0)
    inside = 0
    for seed in range(20):
        ours, truth = random.normal(size=(60, 2)) + 1, random.normal(size=(60, 2))
        fvd = summarize(figures_of(ours), measurers, 16, reference=figures_of(truth), seed=seed)
        inside += fvd["FVD16[shanshui-clip]"].low <= 2 <= fvd["FVD16[shanshui-clip]"].high
    assert inside >= 16


def test_one_clip_has_neither_spread_nor_distance(measurers):
    one = figures_of(np.ones((1, 3)), np.array([0.5]))
    metrics = summarize(one, measurers, 16, reference=figures_of(np.ones((5, 3))))
    assert list(metrics) == ["CLIP-temp[x]"]
    assert (metrics["CLIP-temp[x]"].low, metrics["CLIP-temp[x]"].high) == (None, None)


def test_labels_that_some_clips_lack_are_left_out(measurers):
    with_prompt = ClipFigures({"flicker": 1.0, "CLIP-text[x]": 20.0}, {"features": np.ones(3)})
    without = ClipFigures({"flicker": 3.0}, {"features": np.zeros(3)})
    metrics = summarize([with_prompt, without], measurers, 8)
    assert {label: metric.value for label, metric in metrics.items()} == {"flicker": 2.0}
    assert metrics["flicker"].unit == "of 255"


def test_the_inception_score_and_another_clip(tiny_classifier, tmp_path):
    shutil.copytree(SHANSHUI_TINY / "clip", tmp_path / "my-clip")
    measurers = Measurers.load(clip_sim=tmp_path / "my-clip", classifier=tiny_classifier)
    clips = [moving_noise(speed)[:, :64, :64] for speed in (0, 1, 2, 3, 4, 0, 1, 2, 3, 4)]
    figures = [measurers.measure(clip, "mist") for clip in clips]
    assert "CLIP-SIM[my-clip]" in figures[0].metrics
    assert (
        figures[0].metrics["CLIP-SIM[my-clip]"] == figures[0].metrics["CLIP-text[shanshui-clip]"]
    )  # the same weights
    metrics = summarize(figures, measurers, 6)
    score = metrics["IS[videomae-tiny]"]
    assert score.value == pytest.approx(inception_score(np.stack([one.vectors["logits"] for one in figures])))
    assert score.low >= 1 and "IS[videomae-tiny]" not in summarize(figures[:9], measurers, 6)
    protocol = measurers.protocol()
    assert "10 splits" in protocol["IS"] and "my-clip" in protocol["CLIP-SIM"]
    assert Measurers.load().protocol()["IS"] == "not measured: needs a video classifier"
