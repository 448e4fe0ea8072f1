"""The user study of NADM (Liu et al., appendix) as static files: pairs of clips, four questions, no server.

The page knows clips by random names only; the key, which says whose they are, is a file of its own and stays at home.
`study_count.py` brings answers and key together.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from random import Random

from jinja2 import Environment, PackageLoader, StrictUndefined

from landscape_video.evaluation.report.report_gallery import read_source, unique_systems
from landscape_video.evaluation.study.study_clips import ClipForm, common_form, measure, write_alike
from landscape_video.evaluation.study.study_design import design_sessions
from landscape_video.files import check_replaceable, hash_chunks, hash_file, write_directory, write_json


# The four questions of the paper, by short names; their words in both languages are in `pages/study_words.json`.
QUESTIONS = ("text", "consistency", "style", "overall")
KEY_FORMAT = "landscape-video study key 1"
PAGE = "index.html"


@dataclass(frozen=True)
class StudyClip:
    """A clip of a system: the `number`-th that it made for a prompt."""

    system: str
    prompt: str
    number: int
    path: Path


@dataclass(frozen=True)
class Study:
    """What was made: how many pairs, raters and pairs for each rater, and the form of all clips."""

    num_pairs: int
    num_raters: int
    pairs_per_rater: int
    form: ClipForm
    differed: tuple[str, ...]  # in what the clips were not alike before: "size", "frame rate", "length"


def build_study(
    paths: Sequence[str | Path],
    output: str | Path,
    key: str | Path,
    systems: Sequence[str] = (),
    ours: str | None = None,
    num_raters: int = 100,
    pairs_per_rater: int = 20,
    seed: int = 0,
    contact: str = "",
    progress: Callable[[Sequence], Iterator] = iter,
) -> Study:
    """Write the page with its clips to `output`, a new folder, and the key to `key`, a new file outside of it.

    Args:
        paths: results files of `landscape-video evaluate`, or the folders they are in.
        systems: which ones to compare; all but still baselines and references by default.
        ours: compare this system with each of the others, as the paper does, and not each with each.
        num_raters: how many different sessions to draw; raters beyond this share one with somebody.
        seed: draws sessions, sides and names; the same input and seed give the same study.
        contact: where answers go, for the last page ("mail them to ...").

    Raises:
        FileNotFoundError: a results file or a clip is not there.
        FileExistsError: `output` has files in it, or `key` exists: it may belong to a study that is under way.
        ValueError: an unknown system, fewer than two, no prompt in common, a broken clip, or a key inside `output`.
    """
    output, key = Path(output), Path(key)
    _check_targets(output, key)
    clips = comparable_clips(paths, systems, ours)
    names = list(dict.fromkeys(clip.system for clip in clips))
    pairs = _pairs(clips, names, ours)
    used = list(dict.fromkeys(clip for pair in pairs for clip in pair))
    random = Random(f"{seed} {_digest(used)}")  # nobody can draw it again who does not have the clips
    random.shuffle(pairs)
    pairs = [pair if random.random() < 0.5 else pair[::-1] for pair in pairs]
    random.shuffle(used)
    tokens = dict(zip(used, _tokens(len(used), random), strict=True))
    forms = [measure(clip.path) for clip in used]
    form = common_form(forms)
    study_id = f"{random.getrandbits(48):012x}"
    about = [(" ".join(sorted((first.system, second.system))), first.prompt) for first, second in pairs]
    sessions = design_sessions(about, num_raters, pairs_per_rater, random)
    words = json.loads(_read_page_file("study_words.json"))
    page_data = {
        "study": study_id,
        "questions": QUESTIONS,
        "contact": contact,
        "words": words,
        "size": [form.width, form.height],
        "pairs": [
            {"id": f"pair-{index:04d}", "prompt": first.prompt, "clips": [tokens[first], tokens[second]]}
            for index, (first, second) in enumerate(pairs)
        ],
        "sessions": [[[shown.pair, int(shown.is_swapped)] for shown in session] for session in sessions],
    }
    key_data = {
        "format": KEY_FORMAT,
        "study": study_id,
        "seed": seed,
        "systems": names,
        "questions": {name: words["en"]["questions"][name] for name in QUESTIONS},
        "clips": {
            tokens[clip]: {"system": clip.system, "prompt": clip.prompt, "file": str(clip.path)} for clip in used
        },
        "pairs": {pair["id"]: pair["clips"] for pair in page_data["pairs"]},
    }
    with write_directory(output) as folder:
        (folder / "clips").mkdir()
        for clip in progress(used):
            write_alike(clip.path, folder / "clips" / f"{tokens[clip]}.mp4", form)
        (folder / PAGE).write_text(_render(page_data), encoding="utf-8")
        write_json(key, key_data)  # inside the block: without its key the folder is worthless
    sizes = {"size": lambda f: (f.width, f.height), "frame rate": lambda f: f.fps, "length": lambda f: f.seconds}
    differed = tuple(name for name, of in sizes.items() if len(set(map(of, forms))) > 1)
    return Study(len(pairs), num_raters, min(pairs_per_rater, len(pairs)), form, differed)


def comparable_clips(
    paths: Sequence[str | Path], chosen: Sequence[str] = (), ours: str | None = None
) -> list[StudyClip]:
    """All clips of the systems that are compared. Raises as `build_study`."""
    systems = unique_systems([read_source(path) for path in paths])
    known = [system.name for system, _ in systems if system.clips]
    for name in (*chosen, *([ours] if ours else [])):
        if name not in known:
            raise ValueError(
                f"there are no clips of a system {name!r}; there are those of {', '.join(known) or 'none'}."
            )
    wanted = set(chosen) | {ours} if chosen else None
    clips = []
    for system, source in systems:
        competes = system.kind in ("generated", "folder") or system.name == ours
        if system.name in wanted if wanted else competes:
            numbers: dict[str, int] = {}
            for clip in (clip for clip in system.clips if clip.prompt):  # without one there is no first question
                numbers[clip.prompt] = number = numbers.get(clip.prompt, -1) + 1
                clips.append(StudyClip(system.name, clip.prompt, number, source.folder / clip.file))
    for clip in clips:
        if not clip.path.is_file():
            raise FileNotFoundError(f"{clip.path}: there is no such file, but it is to be a clip of {clip.system}.")
    return clips


def _check_targets(output: Path, key: Path) -> None:
    check_replaceable(output)
    for path in (output, key):
        if not path.absolute().parent.is_dir():
            raise ValueError(f"{path}: there is no folder {path.parent}.")
    if key.exists():
        raise FileExistsError(f"{key} exists already, and may be the key of a study under way; choose another name.")
    if output.resolve() in key.resolve().parents:
        raise ValueError(f"{key}: the key has to stay outside of {output}, which raters are given.")


def _pairs(clips: Sequence[StudyClip], names: Sequence[str], ours: str | None) -> list[tuple[StudyClip, StudyClip]]:
    """Clips of two systems for the same prompt, the first with the first, the second with the second, ..."""
    if len(names) < 2:
        raise ValueError(
            f"a study needs at least two systems with clips of prompts, but there is {', '.join(names) or 'none'}."
        )
    by_place = {(clip.system, clip.prompt, clip.number): clip for clip in clips}
    pairs = []
    for one, other in combinations(names, 2):
        if ours in (None, one, other):
            for clip in (clip for clip in clips if clip.system == one):
                partner = by_place.get((other, clip.prompt, clip.number))
                if partner is not None:
                    pairs.append((clip, partner))
    if not pairs:
        raise ValueError(f"{', '.join(names)}: no two of these systems have clips of the same prompt.")
    return pairs


def _digest(clips: Sequence[StudyClip]) -> str:
    chunks: list[bytes] = []
    for clip in clips:
        names = json.dumps([clip.system, clip.prompt, clip.number])
        chunks += [names.encode(), bytes.fromhex(hash_file(clip.path))]
    return hash_chunks(chunks)


def _tokens(number: int, random: Random) -> list[str]:
    tokens: set[str] = set()
    while len(tokens) < number:
        tokens.add(f"{random.getrandbits(64):016x}")
    return sorted(tokens)  # the clips are shuffled, and a set has no order that can be relied on


def _read_page_file(name: str) -> str:
    return (Path(__file__).parents[1] / "pages" / name).read_text(encoding="utf-8")


def _render(page_data: dict) -> str:
    environment = Environment(
        loader=PackageLoader("landscape_video.evaluation", "pages"), autoescape=True, undefined=StrictUndefined
    )
    # JSON inside <script>: "</script>" in a prompt would end it.
    data = json.dumps(page_data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    return environment.get_template("study.html").render(data=data)
