"""Clips are measured once, and systems are summarized with intervals."""

import shutil

import numpy as np
import pytest

from known_motion import moving_noise
from landscape_video.evaluation.metrics.clip_metrics import clip_temp
from landscape_video.evaluation.metrics.distribution_metrics import frechet_distance, inception_score, polynomial_mmd
from landscape_video.evaluation.metrics.measurements import (
    ClipMeasurements,
    MeasuredClip,
    MetricModels,
    measure_clip,
    summarize,
)
from landscape_video.evaluation.metrics.motion_metrics import measure_flow
from landscape_video.evaluation.metrics.registry import METRICS, Metric, SetMetric, select_metrics
from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier
from landscape_video.evaluation.metrics.video_features import ClipFeatures, ClipScorer
from pipeline_landscape_video import SHANSHUI_TINY
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import Scene


@pytest.fixture(scope="module")
def models() -> MetricModels:
    return MetricModels.load()


def measurements_of(rows: np.ndarray, values: np.ndarray | None = None) -> list[ClipMeasurements]:
    """Clips whose features are `rows`, whose CLIP-temp is `values`."""
    values = np.zeros(len(rows)) if values is None else values
    return [
        ClipMeasurements({"CLIP-temp[x]": float(v)}, {"features": row}) for row, v in zip(rows, values, strict=True)
    ]


def test_what_is_kept_of_a_clip(models, tmp_path):
    clip = moving_noise(2)
    plain = measure_clip(MeasuredClip(clip, models))
    assert list(plain.metrics) == [
        "CLIP-temp[shanshui-clip]",
        "dynamic degree",
        "frame consistency[shanshui-clip]",
        "flicker",
        "flicker beyond flow",
    ]
    assert plain.metrics["CLIP-temp[shanshui-clip]"] == pytest.approx(clip_temp(ClipScorer().frames(clip)))
    assert plain.metrics["dynamic degree"] == measure_flow(clip).dynamic_degree
    np.testing.assert_array_equal(plain.vectors["features"], ClipFeatures(models.clip).features(clip))
    full = measure_clip(MeasuredClip(clip, models, "mist", clip[0]))
    assert full.metrics.keys() - plain.metrics.keys() == {
        "CLIP-text[shanshui-clip]",
        "FFF-CLIP[shanshui-clip]",
        "FFF-SSIM",
    }
    assert full.metrics["FFF-SSIM"] == pytest.approx(1) == full.metrics["FFF-CLIP[shanshui-clip]"]
    full.save(tmp_path / "clip.npz")
    again = ClipMeasurements.load(tmp_path / "clip.npz")
    assert again.metrics == full.metrics
    np.testing.assert_array_equal(again.vectors["features"], full.vectors["features"])


def test_too_few_frames(models):
    with pytest.raises(ValueError, match="a clip must have at least 2 frames for shanshui-clip, got 1"):
        measure_clip(MeasuredClip(moving_noise(1)[:1], models))


def test_only_chosen_metrics_are_computed(models):
    found = measure_clip(MeasuredClip(moving_noise(2), models, "mist"), select_metrics(["flicker"]))
    assert list(found.metrics) == ["flicker", "flicker beyond flow"] and found.vectors == {}


def test_a_new_metric_is_one_entry(models, monkeypatch):
    """The entry that the docstring of the registry shows."""
    brightness = Metric(
        "brightness", unit="of 255", note="Mean gray level of all frames.", of_clip=lambda clip: clip.frames.mean()
    )
    monkeypatch.setattr("landscape_video.evaluation.metrics.registry.METRICS", (*METRICS, brightness))
    clips = [np.full((2, 16, 16, 3), level, np.uint8) for level in (10, 30)]
    found = [measure_clip(MeasuredClip(clip, models), select_metrics(["bright"])) for clip in clips]
    value = summarize(found, models, 2)["brightness"]
    assert (value.value, value.low, value.high, value.unit) == (20, 10, 30, "of 255")


def test_the_camera_of_a_clip_and_its_label(models):
    clip = render_clip(Scene(camera="left", seed=3), [k / 4 for k in range(6)], 64, 64)
    camera = select_metrics(["camera"])
    found = [measure_clip(MeasuredClip(clip, models, labels={"camera": way}), camera) for way in ("left", "closer")]
    assert [one.metrics["camera accuracy"] for one in found] == [1, 0]
    assert found[0].metrics["camera pan"] > 0.3 and abs(found[0].metrics["camera zoom"]) < 0.3
    assert list(measure_clip(MeasuredClip(clip, models), camera).metrics) == ["camera pan", "camera zoom"]
    with pytest.raises(ValueError, match="a label must be one of still, left, right, closer, away, got 'up'"):
        measure_clip(MeasuredClip(clip, models, labels={"camera": "up"}), camera)


class Told(SceneClassifier):
    """Sees what a clip's first pixel says: the palette by its red, a boat where there is green."""

    name = "told"

    def classify(self, clip: np.ndarray) -> dict[str, np.ndarray]:
        red, green, _ = clip[0, 0, 0] > 0
        return {"palette": np.eye(2)[int(red)], "boat": np.eye(2)[int(green)]}


def test_palette_and_motifs_need_a_classifier_and_labels(models):
    attributes = {"palette": ("ink", "snow"), "boat": ("none", "any")}
    with_classifier = MetricModels(models.clip, scene_classifier=Told(attributes))
    metrics = select_metrics(["palette", "motif"])
    seen = [("ink", False), ("snow", "left"), ("ink", "none"), ("snow", "right")]
    asked = [("ink", False), ("ink", "left"), ("ink", "left"), ("snow", "none")]
    found = []
    for (palette, boat), label in zip(seen, asked, strict=True):
        clip = np.zeros((2, 8, 8, 3), np.uint8)
        clip[..., 0], clip[..., 1] = palette == "snow", boat not in (False, "none")
        labels = dict(zip(attributes, label, strict=True))
        found.append(measure_clip(MeasuredClip(clip, with_classifier, labels=labels), metrics))
        assert measure_clip(MeasuredClip(clip, models, labels=labels), metrics).metrics == {}
    values = summarize(found, with_classifier, 2, metrics=metrics)
    assert values["palette accuracy[told]"].value == 0.75
    # Boats are asked for twice and seen once; in one of the two other clips there is one.
    boats = values["motif accuracy[told]"]
    assert boats.value == 0.5 and 0 <= boats.low < 0.5 < boats.high <= 1
    only_palette = measure_clip(MeasuredClip(clip, with_classifier, labels={"palette": "ink"}), metrics)
    assert only_palette.vectors == {} and "palette accuracy[told]" in only_palette.metrics
    unsure = MetricModels(models.clip, scene_classifier=Told(attributes, valid=("boat",)))
    found = measure_clip(MeasuredClip(clip, unsure, labels=labels), metrics)
    assert found.metrics == {} and found.vectors["motifs"].shape == (1, 2)


def test_figures_of_a_system_are_those_of_its_features(models):
    random = np.random.default_rng(0)
    ours, truth = random.normal(size=(12, 6)) + 1, random.normal(size=(15, 6))
    values = random.random(12)
    metrics = summarize(measurements_of(ours, values), models, 16, reference=measurements_of(truth))
    assert list(metrics) == ["CLIP-temp[x]", "FVD16[shanshui-clip]", "KVD16[shanshui-clip]"]
    fvd, kvd, temp = metrics["FVD16[shanshui-clip]"], metrics["KVD16[shanshui-clip]"], metrics["CLIP-temp[x]"]
    assert fvd.value == pytest.approx(frechet_distance(ours, truth)) and fvd.better == "lower"
    assert kvd.value == pytest.approx(polynomial_mmd(ours, truth))
    assert 0 <= fvd.low < fvd.value < fvd.high and kvd.low < kvd.value < kvd.high
    assert temp.value == pytest.approx(values.mean()) and temp.better == "higher"
    assert temp.high - temp.low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(12), rel=0.2)
    assert metrics == summarize(measurements_of(ours, values), models, 16, reference=measurements_of(truth))
    other = summarize(measurements_of(ours, values), models, 16, reference=measurements_of(truth), seed=1)
    assert other["FVD16[shanshui-clip]"].value == fvd.value and other["FVD16[shanshui-clip]"].low != fvd.low


def test_clips_of_one_prompt_are_drawn_together(models):
    values = np.repeat([0.0, 1.0], 20)  # two prompts, twenty clips each: two facts, not forty
    rows = np.random.default_rng(0).normal(size=(40, 3))
    alone = summarize(measurements_of(rows, values), models, 16)["CLIP-temp[x]"]
    together = summarize(measurements_of(rows, values), models, 16, groups=values.astype(int))["CLIP-temp[x]"]
    assert alone.value == together.value == 0.5
    assert (together.low, together.high) == (0, 1) and alone.low > 0.3


def test_the_interval_of_a_distance_covers_other_samples(models):
    """About 95 of 100 intervals hold the distance that many more clips lead to; a few draws suffice to see it."""
    random = np.random.default_rng(0)
    inside = 0
    for seed in range(20):
        ours, truth = random.normal(size=(60, 2)) + 1, random.normal(size=(60, 2))
        fvd = summarize(measurements_of(ours), models, 16, reference=measurements_of(truth), seed=seed)
        inside += fvd["FVD16[shanshui-clip]"].low <= 2 <= fvd["FVD16[shanshui-clip]"].high
    assert inside >= 16


def test_one_clip_has_neither_interval_nor_distance(models):
    one = measurements_of(np.ones((1, 3)), np.array([0.5]))
    metrics = summarize(one, models, 16, reference=measurements_of(np.ones((5, 3))))
    assert list(metrics) == ["CLIP-temp[x]"]
    assert (metrics["CLIP-temp[x]"].low, metrics["CLIP-temp[x]"].high) == (None, None)


def test_labels_that_some_clips_lack_are_left_out(models):
    with_prompt = ClipMeasurements({"flicker": 1.0, "CLIP-text[x]": 20.0}, {"features": np.ones(3)})
    without = ClipMeasurements({"flicker": 3.0}, {"features": np.zeros(3)})
    metrics = summarize([with_prompt, without], models, 8)
    assert {label: metric.value for label, metric in metrics.items()} == {"flicker": 2.0}
    assert metrics["flicker"].unit == "of 255"


def test_the_inception_score_and_another_clip(tiny_classifier, tmp_path):
    shutil.copytree(SHANSHUI_TINY / "clip", tmp_path / "my-clip")
    models = MetricModels.load(clip_sim=tmp_path / "my-clip", classifier=tiny_classifier)
    clips = [moving_noise(speed)[:, :64, :64] for speed in (0, 1, 2, 3, 4, 0, 1, 2, 3, 4)]
    found = [measure_clip(MeasuredClip(clip, models, "mist")) for clip in clips]
    # The same weights under another name:
    assert found[0].metrics["CLIP-SIM[my-clip]"] == found[0].metrics["CLIP-text[shanshui-clip]"]
    metrics = summarize(found, models, 6)
    score = metrics["IS[videomae-tiny]"]
    assert score.value == pytest.approx(inception_score(np.stack([one.vectors["logits"] for one in found])))
    assert score.low >= 1 and "IS[videomae-tiny]" not in summarize(found[:9], models, 6)
    protocol = models.protocol()
    assert "10 splits" in protocol["IS"] and "my-clip" in protocol["CLIP-SIM"]
    assert "IS" not in MetricModels.load().protocol()


def test_vectors_are_shared_by_metrics_of_a_set():
    shared = [metric.name for metric in METRICS if isinstance(metric, SetMetric) and metric.vector == "features"]
    assert shared == ["FVD", "KVD"]
