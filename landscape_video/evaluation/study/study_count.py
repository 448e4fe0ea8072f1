"""Count the answers of a user study: preferences with 95 % intervals."""

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

from landscape_video.evaluation.study.build import KEY_FORMAT
from landscape_video.files import write_json
from motion_adapter.markdown import markdown_table


LEVEL = 0.95
METHOD = (
    "95 % intervals: Wilson's score interval for the number of independent answers that the answers are worth, which "
    "is their number divided by the design effect of raters (Korn and Graubard, 1998), at most the number of answers."
)

ANSWERS_FORMAT = "landscape-video study answers 1"
SIDES = ("left", "right")
SUSPICIOUS_PAIRS = 4  # as many pairs with the same side throughout get a remark


@dataclass(frozen=True)
class Share:
    """A share in [0, 1] with its interval, the number of answers and the number of raters."""

    value: float
    low: float
    high: float
    answers: int
    raters: int


def preference(votes: Iterable[Sequence[int]]) -> Share:
    """Share of chosen among asked, from (chosen, asked) of every rater.

    The variance of the share is that of a ratio of sums over raters, R / (R - 1) sum (x_r - p n_r)^2 / n^2. Wilson's
    interval is taken for an effective number of answers, p (1 - p) / variance, reduced for few raters by the quantiles
    of Student's t with R - 1 degrees of freedom. Where the variance over raters is unknown (one rater, or all agree),
    each rater counts as one answer.

    Raises:
        ValueError: There are no answers.
    """
    votes = [(chosen, asked) for chosen, asked in votes if asked]
    if not votes:
        raise ValueError("the study has no answers yet.")
    raters, answers = len(votes), sum(asked for _, asked in votes)
    share = sum(chosen for chosen, _ in votes) / answers
    effective = float(raters)
    if answers > raters > 1 and 0 < share < 1:
        squares = sum((chosen - share * asked) ** 2 for chosen, asked in votes)
        variance = raters / (raters - 1) * squares / answers**2
        effective = min(answers, share * (1 - share) / variance) if variance else answers
        z = NormalDist().inv_cdf((1 + LEVEL) / 2)
        effective *= (z / student_quantile((1 + LEVEL) / 2, raters - 1)) ** 2
    low, high = wilson(share, effective)
    return Share(share, low, high, answers, raters)


def wilson(share: float, answers: float) -> tuple[float, float]:
    """Wilson's score interval (1927) of a share of independent answers; their number need not be an integer."""
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    scale = 1 + z * z / answers
    center = (share + z * z / (2 * answers)) / scale
    half = z / scale * math.sqrt(share * (1 - share) / answers + z * z / (4 * answers * answers))
    return max(0.0, center - half), min(1.0, center + half)


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t: exact for 1 and 2 degrees of freedom, else by Abramowitz and Stegun 26.7.5.

    At the level used here, that expansion is within 0.2 % from 3 degrees of freedom on.
    """
    if freedom == 1:
        return math.tan(math.pi * (probability - 0.5))
    if freedom == 2:
        a = 2 * probability - 1
        return a * math.sqrt(2 / (1 - a * a))
    z = NormalDist().inv_cdf(probability)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
        + (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / (92160 * freedom**4)
    )


@dataclass(frozen=True)
class Preference:
    """How often `system` was preferred to `other` in one question."""

    question: str
    system: str
    other: str
    share: Share


@dataclass(frozen=True)
class Counts:
    """The result of a study.

    Args:
        study: Its number.
        num_raters: Raters who answered.
        num_pairs: Pairs that they answered.
        preferences: One for each question and pair of systems.
        left: How often the left side was chosen; half, if sides do not matter.
        method: How intervals are computed.
        remarks: What the person who counts should know.
    """

    study: str
    num_raters: int
    num_pairs: int
    preferences: tuple[Preference, ...]
    left: Share
    method: str
    remarks: tuple[str, ...]


def count_answers(paths: Sequence[str | Path], key: str | Path) -> Counts:
    """Count answers with the key. Of several files of one person, the one with the most answers counts.

    Args:
        paths: Files of answers, or folders whose .json files are answers.
        key: The key of the study.

    Raises:
        FileNotFoundError: A file is missing, or a folder has no answers.
        ValueError: A file is not a file of answers, or belongs to another study; the message names it.
    """
    key_data = _read_json(Path(key), KEY_FORMAT, "`landscape-video study build`")
    people, remarks = _people([_read_answers(path, key_data) for path in _files(paths)])
    systems, questions = key_data["systems"], list(key_data["questions"])
    # (question, system, other) -> person -> (chosen, asked); the system that the key names first comes first.
    votes: dict[tuple[str, str, str], dict[str, tuple[int, int]]] = {}
    lefts: dict[str, tuple[int, int]] = {}
    for person, answers in people.items():
        for answer in answers:
            owners = {side: key_data["clips"][answer[side]]["system"] for side in SIDES}
            system, other = sorted(owners.values(), key=systems.index)
            for question in questions:
                side = answer["choices"][question]
                _vote(votes.setdefault((question, system, other), {}), person, owners[side] == system)
                _vote(lefts, person, side == "left")
    if not votes:
        raise ValueError("these files have no complete answers: nobody answered all questions of a pair.")
    order = sorted(votes, key=lambda cell: (systems.index(cell[1]), systems.index(cell[2]), questions.index(cell[0])))
    remarks += [
        f"{person} chose the same side every time ({len(people[person])} pairs); counted nevertheless."
        for person, (chosen, asked) in lefts.items()
        if chosen in (0, asked) and asked >= SUSPICIOUS_PAIRS * len(questions)
    ]
    preferences = tuple(Preference(*cell, preference(votes[cell].values())) for cell in order)
    num_pairs = sum(map(len, people.values()))
    left = preference(lefts.values())
    return Counts(key_data["study"], len(lefts), num_pairs, preferences, left, METHOD, tuple(remarks))


def markdown(counts: Counts) -> str:
    """Format a table of all preferences, and how they were computed."""
    header = ("question", "system", "other", "prefer system", "95 % interval", "answers", "raters")
    rows = []
    for item in counts.preferences:
        share = item.share
        percent = f"{100 * share.value:.1f} %"
        rows.append((item.question, item.system, item.other, percent, _interval(share), share.answers, share.raters))
    left = f"{100 * counts.left.value:.1f} % ({_interval(counts.left)})"
    return (
        f"{markdown_table(header, rows)}\n\nStudy {counts.study}; raters: {counts.num_raters}, pairs they answered: "
        f"{counts.num_pairs}. The left side was chosen in {left}.\n{counts.method}"
    )


def write_counts(counts: Counts, path: str | Path) -> None:
    """Write all numbers as JSON."""
    if not Path(path).absolute().parent.is_dir():
        raise ValueError(f"{path}: no such folder {Path(path).parent}.")
    write_json(path, asdict(counts))


def _vote(votes: dict[str, tuple[int, int]], person: str, is_chosen: bool) -> None:
    chosen, asked = votes.get(person, (0, 0))
    votes[person] = (chosen + is_chosen, asked + 1)


def _interval(share: Share) -> str:
    return f"{100 * share.low:.1f} to {100 * share.high:.1f} %"


def _files(paths: Sequence[str | Path]) -> list[Path]:
    files = []
    for path in map(Path, paths):
        found = sorted(path.glob("*.json")) if path.is_dir() else [path]
        if not found:
            raise FileNotFoundError(f"{path}: no answers (.json files) in this folder.")
        files += found
    return list(dict.fromkeys(file.resolve() for file in files))


def _read_json(path: Path, expected: str, written_by: str) -> dict[str, Any]:
    """The content of a JSON file whose entry "format" is `expected`."""
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {written_by} writes it.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not a JSON file ({error}).") from error
    if not isinstance(content, dict) or content.get("format") != expected:
        raise ValueError(f"{path}: not a file of the format {expected!r}; {written_by} writes it.")
    return content


def _read_answers(path: Path, key: dict[str, Any]) -> tuple[Path, str, list[dict[str, Any]]]:
    """(file, person, answers), with every answer checked against the key."""
    content = _read_json(path, ANSWERS_FORMAT, "the page of the study")
    if content.get("study") != key["study"]:
        raise ValueError(f"{path}: must belong to study {key['study']}, as the key does, got {content.get('study')}.")
    answers = content.get("answers")
    if not isinstance(content.get("person"), str) or not isinstance(answers, list):
        raise ValueError(f"{path}: damaged: the person or the answers are missing.")
    for number, answer in enumerate(answers, start=1):
        if not _fits(answer, key):
            raise ValueError(f"{path}: answer {number} does not fit the key.")
    if len({answer["pair"] for answer in answers}) < len(answers):
        raise ValueError(f"{path}: answers a pair twice.")
    return path, f"rater {content.get('rater')} ({content['person']})", answers


def _fits(answer: Any, key: dict[str, Any]) -> bool:
    try:
        shows_pair = sorted(answer[side] for side in SIDES) == sorted(key["pairs"][answer["pair"]])
        choices = answer["choices"]
        return shows_pair and set(choices) == set(key["questions"]) and set(choices.values()) <= set(SIDES)
    except (KeyError, TypeError, AttributeError):
        return False


def _people(files: Sequence[tuple[Path, str, list]]) -> tuple[dict[str, list], list[str]]:
    """Answers by person, and a remark for every file that does not count."""
    people: dict[str, tuple[Path, list]] = {}
    remarks = []
    for path, person, answers in files:
        # The earlier file counts only if it has more answers.
        dropped, kept = sorted([people.get(person, (path, answers)), (path, answers)], key=lambda file: len(file[1]))
        if person in people:
            remarks.append(f"{dropped[0].name}: {person} has sent more, {kept[0].name} is counted.")
        people[person] = kept
    return {person: answers for person, (_, answers) in people.items()}, remarks
