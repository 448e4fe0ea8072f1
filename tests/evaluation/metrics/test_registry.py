"""The list of metrics: every entry can be read, is found by its labels, and can be chosen by name."""

import pytest

from landscape_video.evaluation.metrics.registry import (
    METRICS,
    NEEDS,
    explain,
    find_metric,
    metric_value,
    select_metrics,
)


@pytest.mark.parametrize("metric", METRICS, ids=lambda metric: metric.name)
def test_every_metric_is_described(metric):
    assert metric.better in ("higher", "lower", None)
    assert set(metric.needs) <= set(NEEDS)
    assert len(metric.note) > 40 and metric.note.endswith(".")
    assert metric.note not in [other.note for other in METRICS if other is not metric]
    for label in (metric.name, f"{metric.name}16[I3D stylegan-v]", f"{metric.name}, even"):
        assert find_metric(label) is metric
        assert list(explain([label]).values())[0] == metric.note


def test_a_value_gets_direction_and_unit_from_its_metric():
    value = metric_value("flicker beyond flow", 2.0, 1.5, 2.5)
    assert (value.low, value.high, value.better, value.unit) == (1.5, 2.5, "lower", "of 255")
    assert metric_value("FVD16[x]", 3.0).better == "lower"
    assert metric_value("charm", 3.0).better is None and explain(["charm"]) == {}


def test_brackets_are_explained_once():
    notes = explain(["FVD16[shanshui-clip]", "KVD16[shanshui-clip]", "FVD16[i3d]", "CLIP-text[ViT-L/14]"])
    assert list(notes) == ["FVD16", "KVD16", "CLIP-text", "[…]", "[shanshui-clip]"]
    assert "nothing that was published" in notes["[shanshui-clip]"]
    assert list(explain(["FVD16[i3d]"])) == ["FVD16", "[…]"]


def test_metrics_are_chosen_by_the_beginnings_of_their_names():
    assert [metric.name for metric in select_metrics(["fvd", "Camera"])] == [
        "FVD", "camera accuracy", "camera pan", "camera zoom",
    ]  # fmt: skip
    assert [metric.name for metric in select_metrics(["dynamic-degree"])] == ["dynamic degree"]
    default = select_metrics()
    assert all(metric.is_default and metric.of_clip for metric in default) and len(default) == 12
    assert len(select_metrics(["default", "palette"])) == 13
    for name in ("charm", "", "PSNR"):  # PSNR is measured by the benchmark of interpolation
        with pytest.raises(
            ValueError, match=f"`metrics` must be names of metrics, got '{name}'. Choose from default, C"
        ):
            select_metrics([name])
