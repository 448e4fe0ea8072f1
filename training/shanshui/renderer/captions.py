"""Captions of rendered landscapes, in English and Chinese, and the way back from a caption to its scene.

A caption tells everything that a `Scene` holds but its seed, and nothing more: palette, number of mountain layers and
camera always, a motif only where there is one. Generator and parser read the same tables (`caption_words`), so that
they cannot drift apart.
"""

import re
from collections.abc import Collection, Iterator
from functools import cache
from itertools import chain, count
from typing import TypeVar

import numpy as np

from shanshui.renderer.caption_words import FORMS, PHRASEBOOKS, Language
from shanshui.renderer.scene import ATTRIBUTES, MOVING, Scene


# Free wording, of nothing but words that captions are made of: what a user may be shown first.
EXAMPLE_PROMPTS = {
    "en": (
        "mist drifting left over three ranges of mountains, a lone boat sailing to the right on a calm lake, in ink",
        "a rosy dawn: white mist flowing to the right below five mountain ridges, cranes flying left, "
        "the camera slowly pulls back",
        "a snowy winter landscape, an old pavilion among the rocks, a full moon hangs high, the camera pushes in",
        "four folds of hills in autumn ochre, wild geese flying left, a broad river winding below a small pavilion",
        "a blue-green scroll: a tall white waterfall plunges down, old pines sway in the wind, panning to the right",
        "a boat lying at anchor on a quiet lake, a red sun above two layers of hills, in pale ink, a still camera",
    ),
    "zh": (
        "水墨山水，三重远山，云雾向左飘，江上一叶孤舟向右行，镜头缓缓推近",
        "青绿山水，一道飞瀑直下，古松随风摇曳，一轮红日高悬，镜头慢慢左移",
        "雪后，四重群山，平湖如镜，小船静泊，一轮明月，镜头静静不动",
        "秋意正浓，一行大雁向左飞去，半山小亭静立，江水悠悠，镜头渐远",
    ),
}

_Meaning = tuple[str, object]
_Option = TypeVar("_Option")

_ALWAYS = ("palette", "layers", "camera")
_CLAUSE_ENDS = ("and", "while", "with")

_GROUP = re.compile(r"\(([^()]*)\)")
_VERB = re.compile(r"\[(\w+)/(\w+)\]")
_FIELD = re.compile(r"\{\w+\}")
_TOKEN = re.compile(r"[a-z0-9]+|[\u4e00-\u9fff]|[^\sa-z0-9\u4e00-\u9fff-]")  # hyphens part words as spaces do


def caption(scene: Scene, rng: np.random.Generator, language: str = "en", unsaid: Collection[str] = ()) -> str:
    """Tell what `scene` shows and what moves in it, in one of very many ways.

    Args:
        scene: what to tell. Its seed plays no part.
        rng: chooses words, their order and the shape of the sentences.
        language: "en" (at most 45 words) or "zh" (at most 70 characters).
        unsaid: attributes to pass over in silence. People's prompts are seldom complete: a text encoder that is to
            understand them should meet incomplete captions, too. `parse_caption` cannot read those back,
            `find_attributes` can.

    Raises:
        ValueError: `language` or a name in `unsaid` is unknown.
    """
    words = _language(language)
    unknown = [name for name in unsaid if name not in ATTRIBUTES]
    if unknown:
        raise ValueError(f"`unsaid` holds {unknown}, but can only hold names among {ATTRIBUTES}.")
    said = [name for name in ATTRIBUTES if name not in unsaid and getattr(scene, name) not in ("none", False)]
    for attempt in count():  # a crowded scene needs terser words
        text = _compose(scene, said, rng, words, terseness=attempt // 4)
        if len(words_of(text, language)) <= words.limit:
            return text


def parse_caption(text: str) -> Scene:
    """Read a caption of either language back; case and punctuation do not matter.

    Returns:
        The scene, with seed 0.

    Raises:
        ValueError: the text leaves palette, layers or camera open, says two things of one attribute, puts a boat on
            dry land, or holds words that no caption would use.
    """
    found: dict[str, dict[object, str]] = {}
    strangers = []
    for phrase, meaning in _scan(list(filter(_is_word, _tokens(text))), _lexicon()):
        if meaning is not None:
            found.setdefault(meaning[0], {}).setdefault(meaning[1], phrase)
        elif phrase not in _glue():
            strangers.append(phrase)
    for attribute, said in found.items():
        if len(said) > 1:
            quoted = " and ".join(repr(phrase) for phrase in said.values())
            raise ValueError(f"The caption contradicts itself about `{attribute}`: it says {quoted}.")
    missing = [name for name in _ALWAYS if name not in found]
    if missing:
        raise ValueError(f"The caption does not tell {', '.join(f'`{name}`' for name in missing)}: {text!r}.")
    if strangers:
        raise ValueError(f"The caption has words that no caption has: {' '.join(strangers)!r}.")
    return Scene(**{attribute: value for attribute, said in found.items() for value in said})


def find_attributes(text: str) -> dict[str, object]:
    """Find what a prompt mentions, in captions' phrases or in looser words.

    Returns:
        Attribute names of `Scene` with the values that the prompt asks for, in the order of the fields; None where a
        thing is named but its direction is open ("a boat on a lake"). Attributes that the prompt leaves out are left
        out here. Of two values for one attribute the first counts; "no boat" names a boat all the same. Never raises.
    """
    found: dict[str, object] = {}
    mover, side = None, None  # the last named thing that can move, and a side named before any such thing
    for phrase, meaning in _scan(_tokens(text), _loose_lexicon()):
        if meaning is None:
            if not _is_word(phrase) or phrase in _CLAUSE_ENDS:
                mover, side = None, None
            continue
        attribute, value = meaning
        if attribute == "side":
            if mover is None:
                side = value
            elif found[mover] is None:
                found[mover] = value
            continue
        if attribute in MOVING:
            mover = attribute
            value = side if value is None else value
            side = None
        if found.get(attribute) is None:
            found[attribute] = value
    return {name: found[name] for name in ATTRIBUTES if name in found}


def vocabulary(language: str) -> frozenset[str]:
    """All that captions are spelled with: lower-case English words, or Chinese characters; no punctuation."""
    words = _language(language)
    texts = chain(_phrases(words), _joints(words))
    return frozenset(token for text in texts for token in words_of(text, language) if _is_word(token))


def words_of(text: str, language: str) -> list[str]:
    """What a caption's length is counted in: its words in English, its characters in Chinese."""
    _language(language)
    tokens = _tokens(text)
    return [token for token in tokens if _is_word(token)] if language == "en" else tokens


def _compose(scene: Scene, said: list[str], rng: np.random.Generator, words: Language, terseness: int) -> str:
    """One draw of a caption, however long; the greater `terseness`, the shorter on average."""
    shape = _pick(("list", "having", "sentences"), rng)

    def say(name: str) -> str:
        templates = words.phrases[name][getattr(scene, FORMS.get(name, name))]
        draws = [_say(templates, rng, finite=shape == "sentences") for _ in range(1 + terseness)]
        return min(draws, key=len)

    head = _pick(_heads(words, frozenset(said) & {"palette", "layers"}), rng)
    head = head.format(**{name: say(name) for name in _fields(head)})
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
    """The heads that tell just these attributes."""
    return tuple(head for head in words.heads if {FORMS.get(name, name) for name in _fields(head)} == told)


def _fields(text: str) -> list[str]:
    """Names of the fields of a format string."""
    return [field[1:-1] for field in _FIELD.findall(text)]


def _clauses(phrases: list[str], rng: np.random.Generator, words: Language) -> Iterator[str]:
    """Join finite phrases to sentences."""
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
    """One phrase: with its finite verb, where the language has such phrases and `finite` asks for them."""
    verbal = [template for template in templates if _VERB.search(template)]
    template = _pick(verbal if finite and verbal else templates, rng)
    return _VERB.sub(r"\2" if finite else r"\1", _pick(_expand(template), rng))


def _pick(options: tuple[_Option, ...], rng: np.random.Generator) -> _Option:
    return options[rng.integers(len(options))]


@cache
def _expand(template: str) -> tuple[str, ...]:
    """All choices of the alternatives in a template."""
    group = _GROUP.search(template)
    if group is None:
        return (" ".join(template.split()),)
    filled = (template[: group.start()] + option + template[group.end() :] for option in group[1].split("|"))
    return tuple(dict.fromkeys(chain.from_iterable(map(_expand, filled))))


def _phrases(words: Language) -> dict[str, _Meaning]:
    """Every phrase of a language, with what it means."""
    return {
        _VERB.sub(form, phrase): (FORMS.get(name, name), value)
        for name, values in words.phrases.items()
        for value, templates in values.items()
        for template in templates
        for phrase in _expand(template)
        for form in (r"\1", r"\2")
    }


def _joints(words: Language) -> Iterator[str]:
    """The text between phrases, from the formats and joiners of a language."""
    formats = chain(words.heads, (words.place, words.comma, words.stop), words.last, words.links, words.having)
    return (joint for text in formats for joint in _FIELD.split(text))


@cache
def _lexicon() -> dict[tuple[str, ...], _Meaning]:
    """The phrases of all languages, cut to tokens."""
    phrases = chain.from_iterable(_phrases(words).items() for words in PHRASEBOOKS.values())
    return {tuple(_tokens(phrase)): meaning for phrase, meaning in phrases}


@cache
def _loose_lexicon() -> dict[tuple[str, ...], _Meaning]:
    """`_lexicon` and the keywords; where both have an entry, captions' phrases are the more exact."""
    keywords = {
        tuple(_tokens(keyword)): meaning
        for words in PHRASEBOOKS.values()
        for meaning, template in words.keywords.items()
        for keyword in _expand(template)
    }
    return keywords | _lexicon()


@cache
def _glue() -> frozenset[str]:
    """The words between phrases."""
    return frozenset(token for words in PHRASEBOOKS.values() for joint in _joints(words) for token in _tokens(joint))


def _scan(tokens: list[str], lexicon: dict[tuple[str, ...], _Meaning]) -> Iterator[tuple[str, _Meaning | None]]:
    """Walk through a text; at each place the longest phrase of the lexicon is taken, or else one token."""
    longest = max(map(len, lexicon))
    start = 0
    while start < len(tokens):
        ends = range(min(start + longest, len(tokens)), start, -1)
        end = next((end for end in ends if tuple(tokens[start:end]) in lexicon), start + 1)
        piece = tokens[start:end]
        yield " ".join(piece), lexicon.get(tuple(piece))
        start = end


def _tokens(text: str) -> list[str]:
    """Lower-case English words, single Chinese characters and single other signs."""
    return _TOKEN.findall(text.lower())


def _is_word(token: str) -> bool:
    return token[0].isalnum()


def _language(language: str) -> Language:
    if language not in PHRASEBOOKS:
        raise ValueError(f"`language` is {language!r}, but has to be one of {tuple(PHRASEBOOKS)}.")
    return PHRASEBOOKS[language]
