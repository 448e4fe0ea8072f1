"""The file of results: what is written is read back, and what is no such file is refused by name."""

import json

import pytest

from landscape_video.evaluation.results import ClipResult, Metric, Results, System, read_results, write_results


RESULTS = Results(
    {"CLIP": "shanshui-tiny, sha256 00", "clips": "1 a system"},
    (
        System(
            "ours",
            "generated",
            {"CLIP-temp": Metric(0.9, 0.8, 0.95, "higher"), "dynamic degree": Metric(2.0, unit="pixels a frame")},
            (ClipResult("远山薄雾", "ours/0001.mp4", 7, {"CLIP-temp": 0.9}),),
            seconds_per_clip=1.5,
        ),
        System("still", "still", {"FVD16": Metric(100.0, None, None, "lower")}, ()),
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
        (lambda content: content.pop("protocol"), "there is no 'protocol'"),
        (lambda content: content["systems"][0].pop("clips"), "there is no 'clips'"),
        (lambda content: content["systems"][0].update(kind="film"), "its kind is 'film'"),
        (lambda content: content["systems"][0].update(name="still"), "the same name"),
        (lambda content: content["systems"][0].update(seconds_per_clip="fast"), "'fast' stands where a finite number"),
        (lambda content: content["systems"][0]["clips"][0].update(seed=True), "seed of a clip is True"),
        (lambda content: content["systems"][0]["clips"][0].update(file=3), "3 stands where text belongs"),
        (lambda content: content["systems"][1]["metrics"]["FVD16"].update(better="up"), "`better` is 'up'"),
        (lambda content: content["systems"][1]["metrics"]["FVD16"].update(value=float("nan")), "finite numbers"),
        (lambda content: content["systems"][1]["metrics"]["FVD16"].update(value=None), "finite numbers"),
        (lambda content: content["systems"][1]["metrics"]["FVD16"].update(colour="red"), "colour"),
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
    with pytest.raises(FileNotFoundError, match="there is no such file"):
        read_results(tmp_path)
    for text in ("mist", "[1]", '{"protocol": 3, "systems": []}'):
        (tmp_path / "results.json").write_text(text)
        with pytest.raises(ValueError, match="no results of"):
            read_results(tmp_path)


def test_a_number_that_is_not_finite_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="finite"):
        Metric(float("inf"))
    clip = ClipResult("mist", "a.mp4", None, {"CLIP-temp": float("nan")})
    with pytest.raises(ValueError):
        write_results(Results({}, (System("a", "folder", {}, (clip,)),)), tmp_path / "results.json")
    assert list(tmp_path.iterdir()) == []
