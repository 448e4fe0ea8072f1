"""Build the user study of NADM (Liu et al., appendix) as static files: pairs of clips and four questions.

The page knows clips by random names only. The key, which says whose clips they are, is a separate file that raters do
not get. `study_count.py` combines answers and key. All clips are brought to one size, frame rate and length, without
metadata.
"""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from random import Random

import cv2
import numpy as np

from landscape_video.evaluation.pages import PAGES, render_page
from landscape_video.evaluation.report.report_gallery import read_source, unique_systems
from landscape_video.files import check_replaceable, hash_chunks, hash_file, write_directory, write_json
from pipeline_landscape_video.video_io import iterate_video, open_mp4


CRF = 18  # of x264: visually lossless, and the same for the clips of all systems
WRITTEN = 946684800  # 2000-01-01, the time stamp of every clip; ZIP archives allow none before 1980
# The four questions of the paper by short names; `pages/study_words.json` has their words in both languages.
QUESTIONS = ("text", "consistency", "style", "overall")
KEY_FORMAT = "landscape-video study key 1"
PAGE = "index.html"


@dataclass(frozen=True)
class Shown:
    """One place in a session: a pair, and whether its second clip is on the left."""

    pair: int
    is_swapped: bool


def design_sessions(
    pairs: Sequence[tuple[str, str]], num_sessions: int, pairs_per_session: int, random: Random
) -> list[list[Shown]]:
    """Draw the session of every rater.

    Every pair is shown equally often, give or take one, and equally often on either side. A session shows no pair
    twice, and pairs of systems and prompts as evenly as that allows.

    Args:
        pairs: For each pair, the systems that it compares (one name for both) and its prompt.
        num_sessions: Number of sessions.
        pairs_per_session: Pairs in a session; all of them if there are fewer.
        random: Source of randomness; the same one gives the same sessions.
    """
    times_shown, times_swapped = [0] * len(pairs), [0] * len(pairs)
    sessions = []
    for _ in range(num_sessions):
        systems_here, prompts_here = Counter(), Counter()
        left = list(range(len(pairs)))
        random.shuffle(left)  # the first of equals is chosen
        session = []
        for _ in range(min(pairs_per_session, len(pairs))):
            pair = min(
                left,
                key=lambda index: (times_shown[index], systems_here[pairs[index][0]], prompts_here[pairs[index][1]]),
            )
            left.remove(pair)
            balance = times_shown[pair] - 2 * times_swapped[pair]  # positive if it was swapped less often than not
            is_swapped = balance > 0 or (balance == 0 and random.random() < 0.5)
            times_shown[pair] += 1
            times_swapped[pair] += is_swapped
            systems_here[pairs[pair][0]] += 1
            prompts_here[pairs[pair][1]] += 1
            session.append(Shown(pair, is_swapped))
        random.shuffle(session)
        sessions.append(session)
    return sessions


@dataclass(frozen=True)
class ClipForm:
    """Size in pixels, frames per second, and length in seconds."""

    width: int
    height: int
    fps: Fraction
    seconds: Fraction

    @property
    def num_frames(self) -> int:
        """Number of frames, at least one."""
        return max(1, round(self.seconds * self.fps))


def measure(path: Path) -> ClipForm:
    """Measure the form of a clip, with its mean frame rate. Raises `VideoError` or `FileNotFoundError`."""
    count, start, end = 0, Fraction(0), Fraction(0)
    for count, frame in enumerate(iterate_video(path), start=1):  # noqa: B007
        start = frame.timestamp if count == 1 else start
        end = frame.timestamp + frame.duration
    height, width, _ = frame.pixels.shape
    return ClipForm(width, height, Fraction(count) / (end - start), end - start)


def common_form(forms: Iterable[ClipForm]) -> ClipForm:
    """The smallest size, the shortest length and the highest frame rate: no clip is enlarged or extended, and none
    loses frames."""
    forms = list(forms)
    smallest = min(forms, key=lambda form: (form.width * form.height, form.width))
    return ClipForm(
        width=max(2, smallest.width - smallest.width % 2),
        height=max(2, smallest.height - smallest.height % 2),
        fps=max(form.fps for form in forms).limit_denominator(1001),
        seconds=min(form.seconds for form in forms),
    )


def write_alike(path: Path, output: Path, form: ClipForm) -> None:
    """Write a clip in that form: scaled to cover the size, cropped at the center, with each frame at its own time."""
    with open_mp4(output, form.width, form.height, form.fps, crf=CRF) as writer:
        written, start, shown = 0, None, None
        for frame in iterate_video(path):
            start = frame.timestamp if start is None else start
            # The frame before stays until this one begins, with half a frame of tolerance for rates such as 7.99.
            while shown is not None and written < form.num_frames:
                if (written + Fraction(1, 2)) / form.fps >= frame.timestamp - start:
                    break
                writer.write(shown)
                written += 1
            shown = cover(frame.pixels, form.width, form.height)
        for _ in range(form.num_frames - written):
            writer.write(shown)
    os.utime(output, (WRITTEN, WRITTEN))  # the order of writing must not tell systems apart


def cover(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale an image to cover (height, width, 3) uint8, and crop the rest at the center."""
    scale = max(width / pixels.shape[1], height / pixels.shape[0])
    size = (max(width, round(pixels.shape[1] * scale)), max(height, round(pixels.shape[0] * scale)))
    if size != (pixels.shape[1], pixels.shape[0]):
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


@dataclass(frozen=True)
class StudyClip:
    """A clip of a system: the `number`-th of a prompt, from 0 on."""

    system: str
    prompt: str
    number: int
    path: Path


@dataclass(frozen=True)
class Study:
    """The study that was built.

    Args:
        num_pairs: Number of pairs.
        num_raters: Number of sessions.
        pairs_per_rater: Pairs in a session.
        form: Form of all clips.
        differed: Properties in which the clips differed: "size", "frame rate", "length".
    """

    num_pairs: int
    num_raters: int
    pairs_per_rater: int
    form: ClipForm
    differed: tuple[str, ...]


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
        paths: Results files of `landscape-video evaluate`, or the folders they are in.
        output: New folder for raters.
        key: New file that says whose clips are whose.
        systems: Systems to compare; all but still baselines and references by default.
        ours: Compare this system with each of the others, as the paper does, instead of each with each.
        num_raters: Number of different sessions; further raters share one.
        pairs_per_rater: Pairs in a session.
        seed: Seed of sessions, sides and names; the same input and seed give the same study.
        contact: Instruction on the last page for sending the answers ("mail them to ...").
        progress: Wraps the list of clips, for a progress bar.

    Raises:
        FileNotFoundError: A results file or a clip is missing.
        FileExistsError: `output` contains files, or `key` exists and may belong to a study in progress.
        ValueError: An unknown system, fewer than two, no common prompt, a broken clip, or a key inside `output`.
    """
    # 1. Choose the pairs, and draw sides, names and sessions
    output, key = Path(output), Path(key)
    _check_targets(output, key)
    clips = comparable_clips(paths, systems, ours)
    names = list(dict.fromkeys(clip.system for clip in clips))
    pairs = _pairs(clips, names, ours)
    used = list(dict.fromkeys(clip for pair in pairs for clip in pair))
    random = Random(f"{seed} {_digest(used)}")  # only those who have the clips can repeat the draws
    random.shuffle(pairs)
    pairs = [pair if random.random() < 0.5 else pair[::-1] for pair in pairs]
    random.shuffle(used)
    tokens = dict(zip(used, _tokens(len(used), random), strict=True))
    study_id = f"{random.getrandbits(48):012x}"
    about = [(" ".join(sorted((first.system, second.system))), first.prompt) for first, second in pairs]
    sessions = design_sessions(about, num_raters, pairs_per_rater, random)

    # 2. Describe the study to the page and to the key
    forms = [measure(clip.path) for clip in used]
    form = common_form(forms)
    words = json.loads((PAGES / "study_words.json").read_text(encoding="utf-8"))
    ids = [f"pair-{index:04d}" for index in range(len(pairs))]
    shown = [[tokens[first], tokens[second]] for first, second in pairs]
    page_data = {
        "study": study_id,
        "questions": QUESTIONS,
        "contact": contact,
        "words": words,
        "size": [form.width, form.height],
        "pairs": [{"id": ids[i], "prompt": pairs[i][0].prompt, "clips": shown[i]} for i in range(len(pairs))],
        "sessions": [[[place.pair, int(place.is_swapped)] for place in session] for session in sessions],
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
        "pairs": dict(zip(ids, shown, strict=True)),
    }

    # 3. Write the clips, the page and the key
    with write_directory(output, overwrite=False) as folder:
        (folder / "clips").mkdir()
        for clip in progress(used):
            write_alike(clip.path, folder / "clips" / f"{tokens[clip]}.mp4", form)
        # "</script>" in a prompt must not end the <script> that holds the data.
        data = json.dumps(page_data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
        (folder / PAGE).write_text(render_page("study.html", data=data), encoding="utf-8")
        write_json(key, key_data)  # inside the block: without its key the folder is worthless
    sizes = {"size": lambda f: (f.width, f.height), "frame rate": lambda f: f.fps, "length": lambda f: f.seconds}
    differed = tuple(name for name, of in sizes.items() if len(set(map(of, forms))) > 1)
    return Study(len(pairs), num_raters, min(pairs_per_rater, len(pairs)), form, differed)


def comparable_clips(
    paths: Sequence[str | Path], chosen: Sequence[str] = (), ours: str | None = None
) -> list[StudyClip]:
    """All clips with a prompt of the systems to compare. Raises as `build_study`."""
    systems = unique_systems([read_source(path) for path in paths])
    known = [system.name for system, _ in systems if system.clips]
    for name in (*chosen, *([ours] if ours else [])):
        if name not in known:
            raise ValueError(f"a system must be one of {', '.join(known) or '(none with clips)'}, got {name!r}.")
    clips = []
    for system, source in systems:
        is_ours = system.name == ours
        if not (is_ours or (system.name in chosen if chosen else system.competes)):
            continue
        numbers: dict[str, int] = {}
        for clip in (clip for clip in system.clips if clip.prompt):  # the first question is about the prompt
            numbers[clip.prompt] = number = numbers.get(clip.prompt, -1) + 1
            clips.append(StudyClip(system.name, clip.prompt, number, source.folder / clip.file))
    for clip in clips:
        if not clip.path.is_file():
            raise FileNotFoundError(f"{clip.path}: no such file, but the results list it as a clip of {clip.system}.")
    return clips


def _check_targets(output: Path, key: Path) -> None:
    check_replaceable(output)
    for path in (output, key):
        if not path.absolute().parent.is_dir():
            raise ValueError(f"{path}: no such folder {path.parent}.")
    if key.exists():
        raise FileExistsError(f"{key} already exists and may be the key of a study in progress; choose another name.")
    if output.resolve() in key.resolve().parents:
        raise ValueError(f"`key` must be outside of {output}, which raters get, got {key}.")


def _pairs(clips: Sequence[StudyClip], names: Sequence[str], ours: str | None) -> list[tuple[StudyClip, StudyClip]]:
    """Pair the clips of two systems for the same prompt: the first with the first, the second with the second, ..."""
    if len(names) < 2:
        raise ValueError(f"a study needs two systems with clips of prompts, got {', '.join(names) or 'none'}.")
    by_place = {(clip.system, clip.prompt, clip.number): clip for clip in clips}
    pairs = []
    for one, other in combinations(names, 2):
        if ours in (None, one, other):
            own = [clip for clip in clips if clip.system == one]
            partners = [by_place.get((other, clip.prompt, clip.number)) for clip in own]
            pairs += [pair for pair in zip(own, partners, strict=True) if pair[1]]
    if not pairs:
        raise ValueError(f"systems must have clips of the same prompt; {', '.join(names)} have none in common.")
    return pairs


def _digest(clips: Sequence[StudyClip]) -> str:
    names = (json.dumps([clip.system, clip.prompt, clip.number]).encode() for clip in clips)
    contents = (bytes.fromhex(hash_file(clip.path)) for clip in clips)
    return hash_chunks(chunk for pair in zip(names, contents, strict=True) for chunk in pair)


def _tokens(number: int, random: Random) -> list[str]:
    tokens: set[str] = set()
    while len(tokens) < number:
        tokens.add(f"{random.getrandbits(64):016x}")
    return sorted(tokens)  # a set has no reliable order; the clips are shuffled already
