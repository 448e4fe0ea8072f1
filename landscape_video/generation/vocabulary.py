"""Find the words of a prompt that a small model was not trained on: those missing in its `words.json`."""

import json
import re
from pathlib import Path


WORDS = "words.json"
# A run of letters is a word; in Chinese, every character is one.
_WORD = re.compile(r"[\u3400-\u9fff]|[^\W\d_\u3400-\u9fff]+")


def unknown_words(prompt: str, model: Path | None) -> list[str]:
    """The words of a prompt that the model in a folder was not trained on, in their order, each once.

    Empty for a model without a list of words: large text encoders have seen them all.
    """
    if model is None or not (path := model / WORDS).is_file():
        return []
    known = set(json.loads(path.read_text(encoding="utf-8")))
    found = _WORD.findall(re.sub(r"['’]s\b", "", prompt.lower()))
    return [word for word in dict.fromkeys(found) if word not in known]
