"""A strict reader of captions: the opposite of `caption`, by the same tables of phrases."""

import re
from collections.abc import Iterator
from itertools import chain

from shanshui.renderer import captions
from shanshui.renderer.caption_words import FORMS, PHRASEBOOKS, Language
from shanshui.renderer.scene import ATTRIBUTES, Scene


def tokens_of(text: str) -> list[str]:
    """Words of English, characters of Chinese, and other signs."""
    return captions.words_of(text, "zh")


def phrases_of(words: Language) -> dict[str, tuple[str, object]]:
    """Every phrase of a language, with the attribute and the value that it states."""
    return {
        captions._VERB.sub(form, phrase): (FORMS.get(name, name), value)
        for name, values in words.phrases.items()
        for value, templates in values.items()
        for template in templates
        for phrase in captions._expand(template)
        for form in (r"\1", r"\2")
    }


MEANINGS = {
    tuple(tokens_of(text)): meaning for words in PHRASEBOOKS.values() for text, meaning in phrases_of(words).items()
}
LONGEST = max(map(len, MEANINGS))


def scan(tokens: list[str]) -> Iterator[tuple[str, tuple[str, object] | None]]:
    """Walk through a text and take the longest known phrase at each place, or else one token."""
    start = 0
    while start < len(tokens):
        ends = range(min(start + LONGEST, len(tokens)), start, -1)
        end = next((end for end in ends if tuple(tokens[start:end]) in MEANINGS), start + 1)
        yield " ".join(tokens[start:end]), MEANINGS.get(tuple(tokens[start:end]))
        start = end


def find_attributes(text: str) -> dict[str, object]:
    """Return the attributes that phrases of captions in a text name, in the order of the attributes."""
    found = dict(meaning for _, meaning in scan(tokens_of(text)) if meaning)
    return {name: found[name] for name in ATTRIBUTES if name in found}


def parse_caption(text: str) -> Scene:
    """Read a caption of either language back, with seed 0; case and punctuation do not matter.

    Raises:
        ValueError: The text omits palette, layers or camera, states two values of an attribute, or has words that no
            caption has.
    """
    words = [token for token in tokens_of(text) if token[0].isalnum()]
    between = {token for book in PHRASEBOOKS.values() for joint in joints(book) for token in tokens_of(joint)}
    found: dict[str, set] = {}
    for phrase, meaning in scan(words):
        if meaning is not None:
            found.setdefault(meaning[0], set()).add(meaning[1])
        elif phrase not in between:
            raise ValueError(f"no caption has: {phrase!r}")
    twice = [name for name, values in found.items() if len(values) > 1]
    missing = [name for name in ("palette", "layers", "camera") if name not in found]
    if twice or missing:
        raise ValueError(f"contradictions about {twice}, nothing about {missing}")
    return Scene(**{name: value for name, (value,) in found.items()})


def vocabulary(language: str) -> set[str]:
    """All words, or characters, of the captions of a language."""
    texts = chain(phrases_of(PHRASEBOOKS[language]), joints(PHRASEBOOKS[language]))
    return {token for text in texts for token in tokens_of(text) if token[0].isalnum()}


def joints(words: Language) -> list[str]:
    """Texts between the fields of a language's formats, and its joiners."""
    formats = (*words.heads, words.place, words.comma, words.stop, *words.last, *words.links, *words.having)
    return [joint for text in formats for joint in re.split(r"\{\w+\}", text)]
