"""Which words of a prompt a small model has never met: those that its `words.json` does not list."""

import json
import re
from pathlib import Path


WORDS = "words.json"
# A run of letters is a word, but in Chinese every character counts by itself.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+")


def unknown_words(prompt: str, model: str) -> list[str]:
    """The words of `prompt` that the model in the folder `model` was not trained on, in their order, each once.

    None for a model without a list of words: large text encoders have read everything.
    """
    path = Path(model) / WORDS
    if not path.is_file():
        return []
    known = set(json.loads(path.read_text(encoding="utf-8")))
    found = _WORD.findall(re.sub(r"['’]s\b", "", prompt.lower()))
    return [word for word in dict.fromkeys(found) if word not in known]
