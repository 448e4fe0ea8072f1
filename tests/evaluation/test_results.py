"""The file of results: what is written is read back, and other files are rejected by name."""

import json

import pytest

from landscape_video.evaluation.results import ClipResult, MetricValue, Results, System, read_results, write_results


RESULTS = Results(
    {"CLIP": "shanshui-tiny, sha256 00", "clips": "1 a system"},
    (
        System(
            "ours",
            "generated",
            {
                "CLIP-temp": MetricValue(0.9, 0.8, 0.95, "higher"),
                "dynamic degree": MetricValue(2.0, unit="pixels a frame"),
            },
            (ClipResult("远山薄雾", "ours/0001.mp4", 7, {"CLIP-temp": 0.9}),),
            seconds_per_clip=1.5,
        ),
        System("still", "still", {"FVD16": MetricValue(100.0, None, None, "lower")}, ()),
    ),
)


def test_results_come_back_as_they_were(tmp_path):
    write_results(RESULTS, tmp_path / "results.json")
    assert read_results(tmp_path) == read_results(tmp_path / "results.json") == RESULTS
    assert RESULTS.labels == ("CLIP-temp", "dynamic degree", "FVD16")
    content = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert content["systems"][0]["metrics"]["CLIP-temp"] == {
        "value": 0.9,
        "low": 0.8,
        "high": 0.95,
        "better": "higher",
        "unit": "",
    }
    assert content["systems"][0]["clips"][0]["prompt"] == "远山薄雾"


def changed(path, change) -> None:
    write_results(RESULTS, path)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda content: content.pop("protocol"), "'protocol' is missing"),
        (lambda content: content["systems"][0].pop("clips"), "'clips' is missing"),
        (lambda content: content["systems"][0].update(kind="film"), "`kind` of ours must be one of .*, got 'film'"),
        (lambda content: content["systems"][0].update(name="still"), "names of systems must differ"),
        (
            lambda content: content["systems"][0].update(seconds_per_clip="fast"),
            "`seconds_per_clip` must be a finite number, got 'fast'",
        ),
        (lambda content: content["systems"][0]["clips"][0].update(seed=True), "`seed` must be an integer, got True"),
        (lambda content: content["systems"][0]["clips"][0].update(file=3), "`file` must be a string, got 3"),
        (
            lambda content: content["systems"][1]["metrics"]["FVD16"].update(better="up"),
            "`better` must be one of .*, got 'up'",
        ),
        (
            lambda content: content["systems"][1]["metrics"]["FVD16"].update(value=float("nan")),
            "`value` must be a finite number, got nan",
        ),
        (
            lambda content: content["systems"][1]["metrics"]["FVD16"].update(value=None),
            "`value` must be a finite number, got None",
        ),
        (lambda content: content["systems"][1]["metrics"]["FVD16"].update(color="red"), "color"),
        (lambda content: content.update(systems=3), "not iterable"),
    ],
)
def test_files_that_are_no_results_are_refused(tmp_path, change, problem):
    path = tmp_path / "results.json"
    changed(path, change)
    with pytest.raises(ValueError, match=problem) as error:
        read_results(path)
    assert str(error.value).startswith(f"{path}: ")


def test_text_and_nothing_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_results(tmp_path)
    for text in ("mist", "[1]", '{"protocol": 3, "systems": []}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match="not a results file of"):
            read_results(tmp_path)


def test_a_number_that_is_not_finite_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="finite"):
        MetricValue(float("inf"))
    clip = ClipResult("mist", "a.mp4", None, {"CLIP-temp": float("nan")})
    with pytest.raises(ValueError):
        write_results(Results({}, (System("a", "folder", {}, (clip,)),)), tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []
