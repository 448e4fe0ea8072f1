"""The committed benchmark of the interpolation as rows of a report."""

import json
from pathlib import Path

import pytest

from landscape_video.evaluation.report.page import read_interpolation
from sofp_table import summary


COMMITTED = Path(__file__).parents[3] / "benchmarks" / "results" / "sofp.json"


def test_the_rows_say_what_the_tables_of_the_benchmark_say():
    results = read_interpolation(COMMITTED)
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in summary(json.loads(COMMITTED.read_text(encoding="utf-8"))).splitlines()
    ]
    theirs = {row[0]: row[1:4] for row in table[2:]}
    ours = {
        system.name: [f"{system.metrics[f'PSNR, {speed}'].value:.2f}" for speed in ("even", "rising", "falling")]
        for system in results.systems
    }
    assert ours == theirs and len(ours) == 7
    for system in results.systems:
        for metric in system.metrics.values():
            assert metric.low < metric.value < metric.high and metric.better == "higher" and metric.unit == "dB"
    assert "seed 1000" in results.protocol["rendered clips"] and "71 clips" in results.protocol["samples"]
    assert len(results.protocol["rife.safetensors"]) > 64


def test_few_clips_have_no_spread_and_methods_of_a_part_are_left_out(tmp_path):
    content = json.loads(COMMITTED.read_text(encoding="utf-8"))
    content["clips"] = content["clips"][:2]
    del content["clips"][0]["scores"]["rife"]
    (tmp_path / "few.json").write_text(json.dumps(content))
    results = read_interpolation(tmp_path / "few.json")
    assert "RIFE" not in [system.name for system in results.systems]
    assert all(metric.low is None for system in results.systems for metric in system.metrics.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not a results file of benchmarks/sofp.py"),
        ("[]", "not a results file of benchmarks/sofp.py"),
        ('{"clips": []}', "no method was measured on every clip"),
        ('{"systems": []}', "'clips' is missing"),
        (
            '{"clips": [{"speed": "even", "scores": {"repeat": {"psnr": "high"}}}]}',
            "not a results file of benchmarks/sofp.py",
        ),
        ('{"clips": [{"speed": "even", "scores": {"repeat": {"psnr": NaN}}}], "settings": {}}', "finite"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, text, message):
    path = tmp_path / "sofp.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=message) as error:
        read_interpolation(path)
    assert str(error.value).startswith(f"{path}: ")


def test_a_missing_file_says_what_writes_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="benchmarks/sofp.py"):
        read_interpolation(tmp_path / "none.json")
