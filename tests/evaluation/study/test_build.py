"""`landscape-video study build`: a page that reveals nothing, clips that are alike, sessions that are balanced."""

import json
import re
from collections import Counter
from fractions import Fraction
from pathlib import Path
from random import Random

import numpy as np
import pytest
from typer.testing import CliRunner

from landscape_video.cli.main import app
from landscape_video.evaluation.study.build import (
    QUESTIONS,
    ClipForm,
    build_study,
    common_form,
    cover,
    design_sessions,
    measure,
    write_alike,
)
from measured_systems import PROMPTS, write_measured
from pipeline_landscape_video.video_io import probe_video, read_metadata, read_video, write_video
from study_pages import page_data


def run(*arguments: object):
    return CliRunner().invoke(app, ["study", "build", *map(str, arguments)])


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> Path:
    return write_measured(tmp_path_factory.mktemp("measured"), systems=("ours & more", "rival", "still frame"))


@pytest.fixture(scope="module")
def study(measured, tmp_path_factory) -> Path:
    """A folder with page/ and key.json."""
    folder = tmp_path_factory.mktemp("study")
    made = build_study([measured], folder / "page", folder / "key.json", num_raters=10, pairs_per_rater=2, seed=3)
    assert (made.num_pairs, made.pairs_per_rater) == (3, 2)
    assert set(made.differed) == {"frame rate", "length"}
    return folder


def test_the_key_says_what_the_page_does_not(study, measured):
    key, data = json.loads((study / "key.json").read_text()), page_data(study / "page")
    assert key["study"] == data["study"] and key["systems"] == ["ours & more", "rival"]
    assert {pair["id"]: pair["clips"] for pair in data["pairs"]} == key["pairs"]
    for pair in data["pairs"]:
        clips = [key["clips"][token] for token in pair["clips"]]
        assert {clip["system"] for clip in clips} == {"ours & more", "rival"}
        assert {clip["prompt"] for clip in clips} == {pair["prompt"]}
        assert all(Path(clip["file"]).is_file() for clip in clips)
    assert {pair["prompt"] for pair in data["pairs"]} == set(PROMPTS)
    files = {path.stem for path in (study / "page" / "clips").iterdir()}
    assert files == set(key["clips"])


def test_nothing_in_the_folder_reveals_a_system(study):
    html = (study / "page" / "index.html").read_text(encoding="utf-8")
    for secret in ("ours", "rival", "system-0", "0000.mp4", str(study.parent), '"seed"', "results.json"):
        assert secret not in html
    clips = sorted((study / "page" / "clips").iterdir())
    assert all(re.fullmatch(r"[0-9a-f]{16}\.mp4", clip.name) for clip in clips)
    assert len({clip.stat().st_mtime for clip in clips}) == 1
    tags = set()
    for clip in clips:
        assert read_metadata(clip) == {}
        info = probe_video(clip)
        tags.add((tuple(sorted(info.tags.items())), info.width, info.height, info.fps, info.num_frames))
        for word in (b"ours", b"rival", b"hills", "江上".encode()):
            assert word not in clip.read_bytes()
    assert len(tags) == 1


def test_the_page_runs_without_a_server_and_calls_nobody(study):
    html = (study / "page" / "index.html").read_text(encoding="utf-8")
    assert "default-src 'none'; media-src 'self' file:;" in html
    assert not re.search(r"https?:|fetch\(|XMLHttpRequest|sendBeacon|WebSocket|cookie", html)
    assert sorted(path.name for path in (study / "page").iterdir()) == ["clips", "index.html"]
    # A prompt with "</script>" or "<b>" in it stays data.
    assert html.count("</script>") == 2 and "<b>" not in html


def test_both_languages_say_the_same_things(study):
    words = page_data(study / "page")["words"]
    assert set(words["en"]) == set(words["zh"])
    for language in words.values():
        assert set(language["questions"]) == set(language["names"]) == set(QUESTIONS)
    for name, text in words["en"].items():
        if isinstance(text, str):
            assert set(re.findall(r"\{\w+\}", text)) == set(re.findall(r"\{\w+\}", words["zh"][name]))
    used = set(re.findall(r'data-word="(\w+)"', (study / "page" / "index.html").read_text(encoding="utf-8")))
    assert used <= set(words["en"])
    assert words["en"]["questions"]["overall"] == (
        "Which video gives you the best overall impression? Please consider all aspects."  # the paper's words
    )


def test_the_same_seed_makes_the_same_study_and_another_another(measured, study, tmp_path):
    for name, seed in (("again", 3), ("other", 4)):
        build_study(
            [measured], tmp_path / name, tmp_path / f"{name}.json", num_raters=10, pairs_per_rater=2, seed=seed
        )
    original = (study / "page" / "index.html").read_bytes()
    assert (tmp_path / "again" / "index.html").read_bytes() == original
    assert (tmp_path / "again.json").read_bytes() == (study / "key.json").read_bytes()
    assert page_data(tmp_path / "other")["study"] != page_data(study / "page")["study"]
    assert not {path.name for path in (tmp_path / "other" / "clips").iterdir()} & {
        path.name for path in (study / "page" / "clips").iterdir()
    }


def test_ours_is_compared_with_each_and_others_are_not_with_each_other(tmp_path):
    systems = ("ours & more", "rival", "still frame", "reference")
    write_measured(tmp_path / "m", PROMPTS[:1], systems=systems, num_frames=2, samples=2)
    chosen = [argument for name in systems[1:] for argument in ("--system", name)]
    result = run(
        tmp_path / "m", "--output", tmp_path / "page", "--ours", "ours & more", *chosen, "--contact", "to <me>"
    )
    assert result.exit_code == 0, result.stderr
    key, data = json.loads((tmp_path / "page-key.json").read_text()), page_data(tmp_path / "page")
    compared = Counter(frozenset(key["clips"][token]["system"] for token in pair["clips"]) for pair in data["pairs"])
    assert compared == {frozenset(("ours & more", other)): 2 for other in systems[1:]}
    assert data["contact"] == "to <me>"
    assert "6 pairs, 6 for each of 100 raters; clips of 64 x 48, 0.12 s at 16 frames a second" in result.stdout
    assert "The clips differed in frame rate, length; they were converted to one format." in result.stderr


def test_sessions_are_balanced_between_pairs_sides_systems_and_prompts():
    pairs = [(systems, prompt) for systems in ("a b", "a c", "b c") for prompt in "123456"]
    sessions = design_sessions(pairs, 60, 9, Random(0))
    shown = Counter(place.pair for session in sessions for place in session)
    swapped = Counter(place.pair for session in sessions for place in session if place.is_swapped)
    assert set(shown.values()) == {30} and set(swapped.values()) == {15}
    for session in sessions:
        assert len({place.pair for place in session}) == 9
    by_systems = [Counter(pairs[place.pair][0] for place in session) for session in sessions]
    assert all(max(count.values()) - min(count.values()) <= 1 and len(count) == 3 for count in by_systems)
    assert len({tuple(place.pair for place in session) for session in sessions}) == 60
    assert sessions == design_sessions(pairs, 60, 9, Random(0)) != design_sessions(pairs, 60, 9, Random(1))


def test_few_pairs_are_all_shown_and_uneven_numbers_differ_by_one():
    assert all(len(session) == 2 for session in design_sessions([("a b", "1"), ("a b", "2")], 3, 20, Random(0)))
    shown = Counter(
        place.pair for s in design_sessions([("a b", str(i)) for i in range(7)], 5, 3, Random(0)) for place in s
    )
    assert max(shown.values()) - min(shown.values()) <= 1 and len(shown) == 7


def solid(values, height=32, width=32):
    return [np.full((height, width, 3), value, np.uint8) for value in values]


def test_clips_become_alike_without_losing_what_they_show(tmp_path):
    slow, fast = tmp_path / "slow.mp4", tmp_path / "fast.mp4"
    write_video(slow, solid(range(20, 240, 40)), 4)  # 6 frames, 1.5 s
    write_video(fast, solid(range(20, 230, 20), 40, 64), 8)  # 11 frames, 1.375 s
    assert measure(slow) == ClipForm(32, 32, Fraction(4), Fraction(3, 2))
    form = common_form([measure(slow), measure(fast)])
    assert form == ClipForm(32, 32, Fraction(8), Fraction(11, 8))
    for path in (slow, fast):
        write_alike(path, tmp_path / f"alike-{path.name}", form)
    levels = {
        path.name: read_video(tmp_path / f"alike-{path.name}").frames.mean(axis=(1, 2, 3)).round(-1)
        for path in (slow, fast)
    }
    assert levels["fast.mp4"].tolist() == list(range(20, 230, 20))
    assert levels["slow.mp4"].tolist() == [20, 20, 60, 60, 100, 100, 140, 140, 180, 180, 220]  # each instant as it was
    assert read_video(tmp_path / "alike-fast.mp4").frames.shape == (11, 32, 32, 3)


def test_images_cover_the_size_and_are_cropped_at_the_center():
    picture = np.zeros((30, 90, 3), np.uint8)
    picture[:, 30:60] = 200
    assert (cover(picture, 30, 30) == 200).all()
    assert (cover(picture, 16, 16) == 200).all()
    assert (cover(picture, 90, 30) == picture).all()
    assert cover(picture, 200, 50).shape == (50, 200, 3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none"], "none: no such file"),
        (["good", "--output", "full"], "full exists already"),
        (["good", "--output", "none/page"], "no such folder none"),
        (["good", "--key", "old.json"], "old.json already exists and may be the key of a study in progress"),
        (["good", "--key", "study/key.json"], "no such folder study"),
        (["good", "--output", "empty", "--key", "empty/key.json"], "--key must be outside of empty"),
        (["good", "--system", "theirs"], "a system must be one of ours & more, rival, got 'theirs'"),
        (["good", "--ours", "theirs"], "a system must be one of ours & more, rival, got 'theirs'"),
        (["good", "--system", "rival"], "a study needs two systems with clips of prompts, got rival"),
        (["apart/a", "apart/b"], "ours & more, rival have none in common"),
        (["unnamed"], "a study needs two systems with clips"),
        (["incomplete"], "0000.mp4: no such file"),
        (["damaged"], "0000.mp4: not a video"),
        (["good", "--pairs", "0"], "--pairs"),
        (["good", "--raters", "0"], "--raters"),
        (["good", "--seed", "-1"], "--seed"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    both = ("ours & more", "rival")
    for name in ("good", "incomplete", "damaged"):
        write_measured(Path(name), PROMPTS[:1], systems=both, num_frames=2)
    Path("incomplete/system-1/0000.mp4").unlink()
    Path("damaged/system-1/0000.mp4").write_bytes(b"no video")
    write_measured(Path("unnamed"), ("",), systems=both, num_frames=2)
    write_measured(Path("apart/a"), ("one",), systems=both[:1], num_frames=2)
    write_measured(Path("apart/b"), ("two",), systems=both[1:], num_frames=2)
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("years of work")
    Path("empty").mkdir()
    Path("old.json").write_text("{}")
    before = sorted(Path().rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("landscape-video: ")]
    assert len(errors) == 1 and message in errors[0] and "Traceback" not in result.stderr
    assert result.stdout == "" and sorted(Path().rglob("*")) == before
