"""Write captions of rendered landscapes in English and Chinese.

A caption states everything that a `Scene` holds except its seed: palette, number of mountain layers and camera always,
a motif only where there is one.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from functools import cache
from itertools import chain, count
from typing import TypeVar

import numpy as np

from shanshui.renderer.caption_words import FORMS, PHRASEBOOKS, Language
from shanshui.renderer.scene import ATTRIBUTES, Scene


_Option = TypeVar("_Option")

_ALWAYS = ("palette", "layers", "camera")

_GROUP = re.compile(r"\(([^()]*)\)")
_VERB = re.compile(r"\[(\w+)/(\w+)\]")
_FIELD = re.compile(r"\{(\w+)\}")
_TOKEN = re.compile(r"[a-z0-9]+|[\u4e00-\u9fff]|[^\sa-z0-9\u4e00-\u9fff-]")  # hyphens separate words as spaces do


def caption(scene: Scene, rng: np.random.Generator, language: str = "en", unsaid: Collection[str] = ()) -> str:
    """Describe what `scene` shows and what moves in it, in one of very many ways.

    Args:
        scene: Scene to describe. Its seed does not matter.
        rng: Chooses words, their order and the shape of the sentences.
        language: "en" (at most 45 words) or "zh" (at most 70 characters).
        unsaid: Attributes to omit. Prompts of users are seldom complete, so a text encoder should learn from
            incomplete captions too.

    Raises:
        ValueError: `language` or a name in `unsaid` is unknown.
    """
    if language not in PHRASEBOOKS:
        raise ValueError(f"`language` must be one of {tuple(PHRASEBOOKS)}, got {language!r}.")
    if unknown := [name for name in unsaid if name not in ATTRIBUTES]:
        raise ValueError(f"`unsaid` must hold names among {ATTRIBUTES}, got {unknown}.")
    words = PHRASEBOOKS[language]
    said = [name for name in shown(scene) if name not in unsaid]
    for attempt in count():  # a crowded scene needs terser words
        text = _compose(scene, said, rng, words, terseness=attempt // 4)
        if len(words_of(text, language)) <= words.limit:
            return text


def shown(scene: Scene) -> list[str]:
    """Return the attributes that a complete caption of the scene states."""
    return [name for name in ATTRIBUTES if getattr(scene, name) not in ("none", False)]


def words_of(text: str, language: str) -> list[str]:
    """Return what the length of a caption is counted in: words in English, characters in Chinese."""
    return [token for token in _TOKEN.findall(text.lower()) if language != "en" or token[0].isalnum()]


def _compose(scene: Scene, said: list[str], rng: np.random.Generator, words: Language, terseness: int) -> str:
    """Draw a caption of any length; the greater `terseness`, the shorter on average."""
    shape = _pick(("list", "having", "sentences"), rng)

    def say(name: str) -> str:
        templates = words.phrases[name][getattr(scene, FORMS.get(name, name))]
        draws = [_say(templates, rng, finite=shape == "sentences") for _ in range(1 + terseness)]
        return min(draws, key=len)

    head = _pick(_heads(words, frozenset(said) & {"palette", "layers"}), rng)
    head = head.format(**{name: say(name) for name in _FIELD.findall(head)})
    motifs = {name: say(name) for name in said if name not in _ALWAYS}
    if "boat" in motifs and "water" in motifs and rng.random() < 0.7:
        motifs["boat"] = words.place.format(boat=motifs["boat"], water=say("water_place"))
        del motifs["water"]
    phrases = [motifs[name] for name in rng.permutation(list(motifs))]
    camera = [say("camera")] if "camera" in said else []
    if shape == "having" and head and phrases:
        held = head + _pick(words.having, rng) + _enumerate(phrases, words.last, rng, words)
        return _sentence(words.comma.join([held, *camera]), words).strip()
    at = _pick((0, len(phrases), int(rng.integers(len(phrases) + 1))), rng)  # first, last or anywhere
    phrases[at:at] = camera
    if shape == "sentences":
        parts = [head] if head else []
        return "".join(_sentence(text, words) for text in [*parts, *_clauses(phrases, rng, words)]).strip()
    for part in rng.permutation(head.split(words.comma) if head else []):  # palette and mountains together or apart
        phrases.insert(0 if rng.random() < 0.7 else len(phrases), str(part))
    return words.comma.join(phrases)


@cache
def _heads(words: Language, told: frozenset[str]) -> tuple[str, ...]:
    """Return the heads that state exactly these attributes."""
    return tuple(head for head in words.heads if {FORMS.get(name, name) for name in _FIELD.findall(head)} == told)


def _clauses(phrases: list[str], rng: np.random.Generator, words: Language) -> Iterator[str]:
    """Join phrases with finite verbs into sentences."""
    while phrases:
        size = int(rng.choice(words.group_sizes))
        yield _enumerate(phrases[:size], words.links, rng, words)
        phrases = phrases[size:]


def _enumerate(phrases: list[str], last: tuple[str, ...], rng: np.random.Generator, words: Language) -> str:
    """Join phrases as in "a, b and c"."""
    if len(phrases) == 1:
        return phrases[0]
    return words.comma.join(phrases[:-1]) + _pick(last, rng) + phrases[-1]


def _sentence(text: str, words: Language) -> str:
    return text[0].upper() + text[1:] + words.stop


def _say(templates: tuple[str, ...], rng: np.random.Generator, finite: bool) -> str:
    """Draw a phrase, with its finite verb if `finite` asks for it and the language has such phrases."""
    verbal = [template for template in templates if _VERB.search(template)]
    template = _pick(verbal if finite and verbal else templates, rng)
    return _VERB.sub(r"\2" if finite else r"\1", _pick(_expand(template), rng))


def _pick(options: Sequence[_Option], rng: np.random.Generator) -> _Option:
    return options[rng.integers(len(options))]


@cache
def _expand(template: str) -> tuple[str, ...]:
    """Return all choices of the alternatives in a template."""
    group = _GROUP.search(template)
    if group is None:
        return (" ".join(template.split()),)
    filled = (template[: group.start()] + option + template[group.end() :] for option in group[1].split("|"))
    return tuple(dict.fromkeys(chain.from_iterable(map(_expand, filled))))
