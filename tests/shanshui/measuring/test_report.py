"""Targets of measured values, and the tables for the model card."""

import json
import math
from dataclasses import replace

import pytest

from landscape_video.evaluation.metrics.intervals import Interval
from shanshui.measuring.argument_checks import ArgumentCheck
from shanshui.measuring.predictions import HeldOutResults
from shanshui.measuring.report import LanguageResults, Results, markdown, write_results
from shanshui.renderer.scene import CAMERAS


def sharp(value: float) -> Interval:
    return Interval(value, value - 0.01, value + 0.01, 20)


def make_results(**generated: float) -> Results:
    figures = {"palette": 1.0, "camera": 0.95, "motifs, mean": 0.9, "mist": 0.8, "motion, relative to rendered": 1.0}
    figures |= {"flicker, relative to rendered": 1.0}
    rendered = {name: sharp(value) for name, value in figures.items()}
    held_out = {name: sharp(0.95) for name in ("palette", "camera")} | {"mist": sharp(0.85)}
    generated = {name: sharp(value) for name, value in (figures | generated).items()}
    cameras = {asked: {name: 3 * (name == asked) for name in CAMERAS} for asked in CAMERAS}
    checks = [ArgumentCheck("change by another seed", sharp(0.4), ">= 0.5", False)]
    language = LanguageResults(generated, rendered, {"camera": sharp(0.2)}, cameras, checks)
    settings = {"prompts": 20, "seed": 3, "steps": 25, "guidance_scale": 8.0, "eta": 0.0}
    settings |= {"num_frames": 16, "size": 128, "device": "CPU", "dtype": "float32", "versions": {"torch": "2"}}
    return Results(settings, HeldOutResults(held_out, {}, sharp(0.93), sharp(30), sharp(1.2)), {"en": language})


@pytest.mark.parametrize(
    "figure, good, bad",
    [
        ("palette", 0.91, 0.89),
        ("camera", 0.86, 0.85),
        ("motifs, mean", 0.82, 0.80),
        ("motion, relative to rendered", 0.51, 0.49),
        ("motion, relative to rendered", 1.99, 2.01),
        ("flicker, relative to rendered", 1.99, 2.01),
    ],
)
def test_targets(figure, good, bad):
    assert make_results(**{figure: good}).targets("en")[figure].passed
    assert not make_results(**{figure: bad}).targets("en")[figure].passed


def test_table_for_the_card(tmp_path):
    results = make_results(palette=0.5, camera=math.nan)
    text = markdown(results)
    rows = {}
    for line in text.splitlines():
        if line.startswith("|"):
            rows.setdefault(line.split(" | ")[0].strip("| "), line)
    assert rows["palette"] == (
        "| palette | 0.50 [0.49, 0.51] | 1.00 [0.99, 1.01] |  | 0.50 | >= 0.90 (0.9 of rendered) | **no** |"
    )
    assert rows["motifs, mean"].endswith("| 1.00 | >= 0.81 (0.9 of rendered) | yes |")
    assert "- palette, English: 0.500, wanted >= 0.90 (0.9 of rendered): **not met**" in text
    assert "- SSIM of the autoencoder: 0.930, wanted >= 0.92: met" in text
    assert "- change by another seed: 0.400, wanted >= 0.5: **not met**" in text
    assert rows["change by another seed"] == "| change by another seed | 0.40 [0.39, 0.41] | >= 0.5 | **no** |"
    assert "mist (invalid)" in rows and "0.20 [0.19, 0.21]" in rows["camera"]
    assert rows["SSIM"] == "| SSIM | 0.930 [0.920, 0.940] | >= 0.92 | yes |"
    assert rows["closer"] == "| closer | 0 | 0 | 0 | 3 | 0 |" and "| 1.20 [1.19, 1.21] |" in text
    assert "on 20 held-out prompts" in text and "torch 2" in text
    write_results(results, tmp_path / "results.json")
    read = json.loads((tmp_path / "results.json").read_text())
    assert read["languages"]["en"]["generated"]["camera"]["value"] is None
    palette = read["languages"]["en"]["bars"][0]
    assert palette == {"figure": "palette", "wanted": ">= 0.90 (0.9 of rendered)", "value": 0.5, "passed": False}
    assert read["languages"]["en"]["controls"][0]["figure"]["value"] == 0.4
    assert read["measurers"]["valid"] == ["palette", "camera"]


def test_a_measurement_that_is_not_valid_judges_nothing():
    results = make_results()
    held_out = results.held_out.held_out | {"palette": sharp(0.5)}
    results = replace(results, held_out=replace(results.held_out, held_out=held_out))
    assert results.targets("en")["palette"].passed is None
    text = markdown(results)
    assert "- palette, English: 1.000, wanted >= 0.90 (0.9 of rendered): not judged" in text
    assert "| >= 0.90 (0.9 of rendered) | not judged |" in text
