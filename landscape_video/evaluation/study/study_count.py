"""From the answers of a user study to preferences with their uncertainty."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from landscape_video.evaluation.study.build import KEY_FORMAT
from landscape_video.evaluation.study.preference_interval import METHOD, Share, preference
from landscape_video.files import write_json
from motion_adapter.markdown import markdown_table


ANSWERS_FORMAT = "landscape-video study answers 1"
SIDES = ("left", "right")


@dataclass(frozen=True)
class Preference:
    """How often `system` was preferred to `other` in one question."""

    question: str
    system: str
    other: str
    share: Share


@dataclass(frozen=True)
class Counts:
    """All preferences; how often the left side was chosen (half, if sides do not matter), and remarks."""

    study: str
    num_raters: int
    num_pairs: int
    preferences: tuple[Preference, ...]
    left: Share
    method: str
    remarks: tuple[str, ...]


def count_answers(paths: Sequence[str | Path], key: str | Path) -> Counts:
    """Bring answers and key together. Of several files of one person the one with most answers counts.

    Args:
        paths: answers files, or folders, all of whose .json files are answers.

    Raises:
        FileNotFoundError: a file is not there, or a folder holds none.
        ValueError: a file is no answers file, or of another study; the message names it. Nothing is guessed.
    """
    key_data = _read_key(Path(key))
    people, remarks = _people([_read_answers(path, key_data) for path in _files(paths)])
    systems, questions = key_data["systems"], list(key_data["questions"])
    # (question, system, other) -> person -> [chosen, asked]; the system that the key names first comes first.
    votes: dict[tuple[str, str, str], dict[str, list[int]]] = {}
    lefts: dict[str, list[int]] = {}
    for person, answers in people.items():
        for answer in answers:
            owners = {side: key_data["clips"][answer[side]]["system"] for side in SIDES}
            system, other = sorted(owners.values(), key=systems.index)
            for question in questions:
                side = answer["choices"][question]
                vote = votes.setdefault((question, system, other), {}).setdefault(person, [0, 0])
                left = lefts.setdefault(person, [0, 0])
                for tally, chosen in ((vote, owners[side] == system), (left, side == "left")):
                    tally[0] += chosen
                    tally[1] += 1
    if not votes:
        raise ValueError("there are no complete answers in these files: nobody answered all questions of a pair.")
    order = sorted(votes, key=lambda cell: (systems.index(cell[1]), systems.index(cell[2]), questions.index(cell[0])))
    preferences = tuple(Preference(*cell, preference(votes[cell].values())) for cell in order)
    remarks += [
        f"{person} chose the same side every time ({len(people[person])} pairs); counted all the same."
        for person, (chosen, asked) in lefts.items()
        if chosen in (0, asked) and asked >= 4 * len(questions)
    ]
    num_pairs = sum(map(len, people.values()))
    return Counts(
        key_data["study"], len(lefts), num_pairs, preferences, preference(lefts.values()), METHOD, tuple(remarks)
    )


def markdown(counts: Counts) -> str:
    """A table of all preferences, and how they were computed."""
    header = ("question", "system", "other", "prefer system", "95 % interval", "answers", "raters")
    rows = [
        (item.question, item.system, item.other, f"{100 * item.share.value:.1f} %", _interval(item.share))
        + (item.share.answers, item.share.raters)
        for item in counts.preferences
    ]
    return "\n".join(
        [
            markdown_table(header, rows),
            "",
            f"Study {counts.study}; raters: {counts.num_raters}, pairs they answered: {counts.num_pairs}. The left "
            f"side was chosen in {100 * counts.left.value:.1f} % ({_interval(counts.left)}).",
            counts.method,
        ]
    )


def write_counts(counts: Counts, path: str | Path) -> None:
    """Write all figures as JSON."""
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{path}: there is no folder {Path(path).parent}.")
    write_json(path, asdict(counts))


def _interval(share: Share) -> str:
    return f"{100 * share.low:.1f} to {100 * share.high:.1f} %"


def _files(paths: Sequence[str | Path]) -> list[Path]:
    files = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise FileNotFoundError(f"{path}: holds no answers, files ending in .json.")
        if not path.exists():
            raise FileNotFoundError(f"{path}: there is no such file.")
        files += found
    return list(dict.fromkeys(file.resolve() for file in files))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: is no JSON file ({error}).") from error
    return content if isinstance(content, dict) else {}


def _read_key(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file; `landscape-video study build` writes it.")
    content = _read_json(path)
    if content.get("format") != KEY_FORMAT:
        raise ValueError(f"{path}: is no key of a study.")
    return content


def _read_answers(path: Path, key: dict[str, Any]) -> tuple[Path, str, list[dict[str, Any]]]:
    """(file, who, answers), every answer checked against the key."""
    content = _read_json(path)
    if content.get("format") != ANSWERS_FORMAT:
        raise ValueError(f"{path}: holds no answers of a study.")
    if content.get("study") != key["study"]:
        raise ValueError(f"{path}: belongs to study {content.get('study')}, and the key to {key['study']}.")
    answers = content.get("answers")
    if not isinstance(content.get("person"), str) or not isinstance(answers, list):
        raise ValueError(f"{path}: is damaged: it does not say whose answers they are, or has none.")
    for number, answer in enumerate(answers, start=1):
        try:
            shown = sorted(answer[side] for side in SIDES)
            choices = answer["choices"]
            fits = shown == sorted(key["pairs"][answer["pair"]]) and set(choices) == set(key["questions"])
            fits = fits and set(choices.values()) <= set(SIDES)
        except (KeyError, TypeError, AttributeError):
            fits = False
        if not fits:
            raise ValueError(f"{path}: answer {number} does not fit the key.")
    if len({answer["pair"] for answer in answers}) < len(answers):
        raise ValueError(f"{path}: answers a pair twice.")
    return path, f"rater {content.get('rater')} ({content['person']})", answers


def _people(files: Sequence[tuple[Path, str, list]]) -> tuple[dict[str, list], list[str]]:
    """Answers by person, and a remark for every file that was passed over."""
    people: dict[str, tuple[Path, list]] = {}
    remarks = []
    for path, person, answers in files:
        if person in people:
            kept, dropped = (path, answers), people[person]
            if len(dropped[1]) > len(answers):
                kept, dropped = dropped, kept
            remarks.append(f"{dropped[0].name}: {person} has sent more, {kept[0].name} is counted.")
            people[person] = kept
        else:
            people[person] = (path, answers)
    return {person: answers for person, (_, answers) in people.items()}, remarks
