"""`landscape-video study count`: answers and key give percentages with intervals, and nothing is guessed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from landscape_video.cli.main import app
from landscape_video.evaluation.study.study_count import count_answers, markdown, preference


QUESTIONS = ("text", "consistency", "style", "overall")
# Two systems "a" and "b" with five prompts: the clips a0, b0 are of the first, ...
KEY = {
    "format": "landscape-video study key 1",
    "study": "5eed",
    "systems": ["a", "b"],
    "questions": dict.fromkeys(QUESTIONS, "?"),
    "clips": {f"{name}{index}": {"system": name, "prompt": str(index)} for name in "ab" for index in range(5)},
    "pairs": {f"pair-{index}": [f"b{index}", f"a{index}"] for index in range(5)},
}


def answers_of(person: str, preferred: str, pairs: int = 5, **changes) -> dict:
    """A file of somebody who prefers one system, and in the question of style the clip on the left."""
    answers = []
    for index in range(pairs):
        left, right = ("ab", "ba")[index % 2]
        choices = dict.fromkeys(QUESTIONS, "left" if left == preferred else "right") | {"style": "left"}
        answers.append(
            {
                "pair": f"pair-{index}",
                "left": f"{left}{index}",
                "right": f"{right}{index}",
                "seconds": 3,
                "choices": choices,
            }
        )
    content = {"format": "landscape-video study answers 1", "study": "5eed", "rater": 1, "person": person}
    return content | {"language": "en", "finished": pairs == 5, "answers": answers} | changes


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("key.json").write_text(json.dumps(KEY))
    Path("answers").mkdir()
    return Path("answers")


def put(folder: Path, name: str, content: dict) -> Path:
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / f"{name}.json"


def run(*arguments: object):
    return CliRunner().invoke(app, ["study", "count", *map(str, arguments)])


def test_percentages_are_those_of_the_answers(folder):
    for index in range(4):
        put(folder, f"rater-{index}", answers_of(f"{index}", "b" if index == 0 else "a"))
    counts = count_answers([folder], "key.json")
    shares = {item.question: item.share for item in counts.preferences}
    assert {(item.system, item.other) for item in counts.preferences} == {("a", "b")}
    assert list(shares) == list(QUESTIONS)
    assert shares["text"] == preference([(0, 5), (5, 5), (5, 5), (5, 5)]) and shares["text"].value == 0.75
    assert shares["style"].value == 3 / 5  # a stands on the left in three of five
    assert counts.num_raters == 4 and counts.num_pairs == 20
    assert counts.left.answers == 80
    text = markdown(counts)
    assert "| text | a | b | 75.0 % | " in text and "design effect of raters" in text
    result = run(folder, "--key", "key.json", "--output", "counts.json")
    assert result.exit_code == 0 and result.stdout == text + "\n"
    saved = json.loads(Path("counts.json").read_text())
    assert saved["preferences"][0]["share"]["value"] == 0.75 and "Wilson" in saved["method"]


def test_somebody_who_saved_twice_counts_once_with_most_answers(folder):
    put(folder, "1-early", answers_of("x", "b", pairs=2))
    put(folder, "2-whole", answers_of("x", "a"))
    put(folder, "3-early", answers_of("x", "b", pairs=3))
    put(folder, "other", answers_of("y", "a", pairs=1))
    counts = count_answers([folder, folder / "other.json"], "key.json")
    assert counts.num_raters == 2 and counts.num_pairs == 6
    assert counts.preferences[0].share.value == 1
    result = run(folder, "--key", "key.json")
    assert "1-early.json: rater 1 (x) has sent more, 2-whole.json is counted." in result.stderr
    assert "3-early.json: rater 1 (x) has sent more, 2-whole.json is counted." in result.stderr


def test_always_the_same_side_is_remarked(folder):
    content = answers_of("x", "a")
    for answer in content["answers"]:
        answer["choices"] = dict.fromkeys(QUESTIONS, "right")
    put(folder, "x", content)
    counts = count_answers([folder], "key.json")
    assert counts.left.value == 0 and "rater 1 (x) chose the same side every time (5 pairs)" in counts.remarks[0]


def test_several_systems_stand_in_the_order_of_the_key(folder):
    key = json.loads(json.dumps(KEY))
    key["systems"] = ["z", "b", "a"]
    for index in range(5):
        key["clips"][f"z{index}"] = {"system": "z"}
        key["pairs"][f"extra-{index}"] = [f"a{index}", f"z{index}"]
    Path("key.json").write_text(json.dumps(key))
    content = answers_of("x", "a", pairs=1)
    choices = dict.fromkeys(QUESTIONS, "left")
    content["answers"].append({"pair": "extra-3", "left": "a3", "right": "z3", "choices": choices})
    put(folder, "x", content)
    counts = count_answers([folder], "key.json")
    assert [(item.system, item.other) for item in counts.preferences] == [("z", "a")] * 4 + [("b", "a")] * 4
    assert counts.preferences[0].share.value == 0 and counts.preferences[4].share.value == 0


def damage(**changes):
    content = answers_of("x", "a")
    content["answers"][1] |= changes
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (damage(pair="pair-9"), "answer 2 does not fit the key"),
        (damage(left="b4"), "answer 2 does not fit the key"),
        (damage(left="b1", right="b1"), "answer 2 does not fit the key"),
        (damage(left=None), "answer 2 does not fit the key"),
        (damage(choices={"text": "left"}), "answer 2 does not fit the key"),
        (damage(choices=dict.fromkeys(QUESTIONS, "middle")), "answer 2 does not fit the key"),
        (damage(choices=["left"]), "answer 2 does not fit the key"),
        (damage(pair="pair-0", left="a0", right="b0"), "answers a pair twice"),
        (answers_of("x", "a", study="0ther"), "must belong to study 5eed, as the key does, got 0ther"),
        (answers_of("x", "a", format="x"), "not a file of the format 'landscape-video study answers 1'"),
        (answers_of("x", "a") | {"person": None}, "damaged"),
        (answers_of("x", "a", answers="none"), "damaged"),
        (answers_of("x", "a", pairs=0), "nobody answered all questions of a pair"),
        (["x"], "not a file of the format 'landscape-video study answers 1'"),
    ],
)
def test_answers_that_do_not_fit_are_one_line_and_nothing_is_written(folder, content, message):
    put(folder, "x", content)
    result = run(folder, "--key", "key.json", "--output", "counts.json")
    assert result.exit_code == 2 and result.stdout == "" and not Path("counts.json").exists()
    (line,) = result.stderr.splitlines()
    assert line.startswith("landscape-video: ") and message in line
    assert "x.json" in line or "nobody" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.json", "--key", "key.json"], "none.json: no such file"),
        (["empty", "--key", "key.json"], "empty: no answers (.json files)"),
        (["answers", "--key", "none.json"], "none.json: no such file"),
        (
            ["answers", "--key", "answers/good.json"],
            "good.json: not a file of the format 'landscape-video study key 1'",
        ),
        (["broken.json", "--key", "key.json"], "broken.json: not a JSON file"),
        (["answers", "--key", "broken.json"], "broken.json: not a JSON file"),
        (["answers", "--key", "key.json", "--output", "none/counts.json"], "no such folder none"),
        (["answers"], "--key"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_wrong_input_is_one_line(folder, arguments, message):
    put(folder, "good", answers_of("x", "a"))
    Path("broken.json").write_bytes(b"\xff{")
    Path("empty").mkdir()
    before = sorted(Path().rglob("*"))
    result = run(*arguments)
    assert result.exit_code == 2 and result.stdout == "" and message in result.stderr
    assert len(result.stderr.splitlines()) == 1 and sorted(Path().rglob("*")) == before
