"""A strict reader of captions: the opposite of `caption`, by the same tables of phrases."""

import re
from itertools import chain

from shanshui.renderer import captions
from shanshui.renderer.caption_words import PHRASEBOOKS, Language
from shanshui.renderer.scene import Scene


PHRASES = {
    tuple(captions._tokens(phrase)): meaning
    for words in PHRASEBOOKS.values()
    for phrase, meaning in captions._phrases(words).items()
}


def parse_caption(text: str) -> Scene:
    """Read a caption of either language back, with seed 0; case and punctuation do not matter.

    Raises:
        ValueError: The text omits palette, layers or camera, states two values of an attribute, or has words that no
            caption has.
    """
    words = list(filter(captions._is_word, captions._tokens(text)))
    glue = vocabulary(None)
    found: dict[str, set] = {}
    for phrase, meaning in captions._scan(words, PHRASES):
        if meaning is not None:
            found.setdefault(meaning[0], set()).add(meaning[1])
        elif phrase not in glue:
            raise ValueError(f"no caption has: {phrase!r}")
    twice = [name for name, values in found.items() if len(values) > 1]
    missing = [name for name in ("palette", "layers", "camera") if name not in found]
    if twice or missing:
        raise ValueError(f"contradictions about {twice}, nothing about {missing}")
    return Scene(**{name: value for name, (value,) in found.items()})


def vocabulary(language: str | None) -> set[str]:
    """Words of all captions of a language; without one, the words between the phrases of all languages."""
    books = PHRASEBOOKS.values() if language is None else [PHRASEBOOKS[language]]
    texts = chain.from_iterable(joints(words) for words in books)
    if language is not None:
        texts = chain(texts, captions._phrases(PHRASEBOOKS[language]))
    return {token for text in texts for token in captions._tokens(text) if captions._is_word(token)}


def joints(words: Language) -> list[str]:
    """Texts between the fields of a language's formats, and its joiners."""
    formats = (*words.heads, words.place, words.comma, words.stop, *words.last, *words.links, *words.having)
    return [joint for text in formats for joint in re.split(r"\{\w+\}", text)]
