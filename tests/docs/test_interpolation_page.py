"""The documentation shows the figures that were measured."""

import json
import re

import sofp_table
from markdown_pages import ROOT


RESULTS = json.loads((ROOT / "benchmarks" / "results" / "sofp.json").read_text(encoding="utf-8"))


def test_the_page_shows_the_table():
    page = (ROOT / "docs" / "interpolation.md").read_text(encoding="utf-8")
    assert sofp_table.summary(RESULTS) in page


def test_the_page_shows_the_table_of_held_pictures():
    measured = (ROOT / "benchmarks" / "results" / "held_pictures.md").read_text(encoding="utf-8")
    table = "\n".join(line for line in measured.splitlines() if line.startswith("|"))
    assert table in (ROOT / "docs" / "interpolation.md").read_text(encoding="utf-8")


def test_the_page_tells_where_averaging_is_better():
    page = " ".join((ROOT / "docs" / "interpolation.md").read_text(encoding="utf-8").split())
    margins = [
        clip["scores"]["average"]["psnr"] - clip["scores"]["sofp_quadratic"]["psnr"] for clip in RESULTS["clips"]
    ]
    lost = [margin for margin in margins if margin > 0]
    assert f"{len(lost)} of {len(margins)} classes, by at most {max(lost):.2f} dB" in page


def test_the_readme_shows_three_of_these_figures():
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    sentence = re.search(r"SOFP reaches ([\d.]+) dB .*? averaging reaches ([\d.]+) dB and RIFE ([\d.]+) dB", readme)
    even = [clip["scores"] for clip in RESULTS["clips"] if clip["speed"] == "even"]
    for shown, method in zip(sentence.groups(), ("sofp_quadratic", "average", "rife"), strict=True):
        assert shown == f"{sum(scores[method]['psnr'] for scores in even) / len(even):.1f}"
