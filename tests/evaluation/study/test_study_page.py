"""The page of a study, run as JavaScript: sessions, answers, going back, resuming, saving."""

import json
from pathlib import Path

import pytest
from py_mini_racer import MiniRacer

from landscape_video.evaluation.study import build as study_module
from landscape_video.evaluation.study.build import QUESTIONS, build_study
from landscape_video.evaluation.study.study_count import count_answers
from measured_systems import write_measured
from study_pages import page_data


LOGIC = (Path(study_module.__file__).parents[1] / "pages" / "study_logic.js").read_text(encoding="utf-8")


class Browser:
    """`StudyLogic` with the data of a page; `random` gives the same numbers every time."""

    def __init__(self, data: dict):
        self.context = MiniRacer()
        self.context.eval(LOGIC)
        self.context.eval(f"const study = {json.dumps(data)}; let state = null; let turn = 0;")
        self.context.eval("const random = () => (turn = (turn + 0.37) % 1);")

    def run(self, code: str):
        return json.loads(self.context.eval(f"JSON.stringify({code} ?? null)"))

    def start(self, wanted: int | None = None, stored: str | None = None):
        return self.run(f"(state = StudyLogic.start(study, {json.dumps(stored)}, {json.dumps(wanted)}, random))")

    @property
    def current(self):
        return self.run("StudyLogic.current(study, state)")

    def choose(self, question: str, side: str):
        return self.run(f"(state = StudyLogic.choose(study, state, {json.dumps(question)}, {json.dumps(side)}))")

    def next(self, seconds: float = 1.0):
        return self.run(f"(state = StudyLogic.next(study, state, {seconds}))")

    def back(self):
        return self.run("(state = StudyLogic.back(state))")

    def save(self) -> dict:
        return self.run("StudyLogic.answersFile(study, state, 'zh')")

    def answer_all(self, side: str = "left") -> None:
        for question in QUESTIONS:
            self.choose(question, side)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    write_measured(folder / "measured", systems=("ours & more", "rival"), num_frames=2)
    build_study([folder / "measured"], folder / "page", folder / "key.json", num_raters=4, pairs_per_rater=3, seed=1)
    return folder


@pytest.fixture
def browser(built) -> Browser:
    return Browser(page_data(built / "page"))


def test_every_rater_sees_the_session_that_was_drawn(built, browser):
    data = page_data(built / "page")
    for rater, session in enumerate(data["sessions"], start=1):
        browser.start(rater)
        for index, is_swapped in session:
            clips = data["pairs"][index]["clips"]
            now = browser.current
            assert now["pair"] == data["pairs"][index]["id"] and now["prompt"] == data["pairs"][index]["prompt"]
            assert [now["left"], now["right"]] == (clips[::-1] if is_swapped else clips)
            assert now["total"] == 3 and now["choices"] == {}
            browser.answer_all()
            browser.next()
        assert browser.current is None


def test_nobody_goes_on_before_all_is_answered(browser):
    browser.start(1)
    first = browser.current["pair"]
    for question in QUESTIONS[:-1]:
        browser.choose(question, "right")
        browser.next()
        assert browser.current["pair"] == first
    browser.choose("color", "left")
    browser.choose(QUESTIONS[-1], "middle")
    browser.next()
    assert browser.current["pair"] == first and len(browser.current["choices"]) == 3
    browser.choose(QUESTIONS[-1], "left")
    browser.next()
    assert browser.current["pair"] != first


def test_answers_can_be_changed_and_time_adds_up(browser):
    browser.start(1)
    browser.back()  # nothing before the first
    browser.answer_all("left")
    browser.next(2.04)
    browser.answer_all("right")
    browser.back()
    assert browser.current["choices"] == dict.fromkeys(QUESTIONS, "left")
    browser.choose("style", "right")
    browser.next(1.5)
    assert browser.current["choices"] == dict.fromkeys(QUESTIONS, "right")  # what was chosen there is still there
    first, second = json.loads(browser.save()["text"])["answers"]
    assert first["choices"]["style"] == "right" and first["choices"]["text"] == "left" and first["seconds"] == 3.5
    assert second["seconds"] == 0


def test_a_reload_goes_on_where_it_was(browser):
    browser.start(2)
    browser.answer_all()
    browser.next()
    state = browser.choose("text", "right")
    assert browser.start(2, json.dumps(state)) == state
    assert browser.start(None, json.dumps(state)) == state
    assert browser.start(3, json.dumps(state))["rater"] == 3  # somebody else on this machine
    assert browser.start(3, json.dumps(state))["answers"] == []


@pytest.mark.parametrize("stored", ["", "{", "null", "[]", '{"study": "another", "rater": 1, "answers": []}'])
def test_what_is_not_ours_in_the_storage_is_passed_over(browser, stored):
    state = browser.start(None, stored)
    assert state["answers"] == [] and 1 <= state["rater"] <= 4 and len(state["person"]) == 16


@pytest.mark.parametrize("wanted", [0, 5, -1, 1.5])
def test_a_session_that_was_not_drawn_is_none(browser, wanted):
    assert browser.start(wanted) is None


def test_two_people_have_different_names(browser):
    assert browser.start()["person"] != browser.start()["person"]


def test_what_is_saved_is_what_is_counted(built, browser, tmp_path):
    """Four raters who always prefer ours, whatever side it stands on; one of them stops after the first pair."""
    clips = json.loads((built / "key.json").read_text())["clips"]
    for rater in range(1, 5):
        browser.start(rater)
        while browser.current is not None:
            browser.answer_all("left" if clips[browser.current["left"]]["system"] == "ours & more" else "right")
            browser.next()
            if rater == 4:
                browser.choose("text", "left")  # not complete, so not saved
                break
        file = browser.save()
        assert file["name"].startswith(f"answers-{page_data(built / 'page')['study']}-{rater}-")
        content = json.loads(file["text"])
        assert content["finished"] == (rater != 4) and content["language"] == "zh"
        (tmp_path / file["name"]).write_text(file["text"], encoding="utf-8")
    counts = count_answers([tmp_path], built / "key.json")
    assert (counts.num_raters, counts.num_pairs) == (4, 10)
    assert [(item.question, item.system, item.other) for item in counts.preferences] == [
        (question, "ours & more", "rival") for question in QUESTIONS
    ]
    assert all(item.share.value == 1 and 0.3 < item.share.low < 1 for item in counts.preferences)
