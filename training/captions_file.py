"""JSON lines with captions: `metadata.jsonl` of a folder of videos, `captions.jsonl` of a latent cache."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def read_rows(path: str | Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each line of a UTF-8 file as (where it stands, for messages; what it says). Empty lines at the end are left out.

    Raises:
        FileNotFoundError, ValueError: naming the file, the line and what is wrong with it.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().split("\n")  # a byte-order mark is no part of it
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: has to be UTF-8: {error}.") from None
    for number, line in enumerate(lines, start=1):
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{where}: not JSON: {error}.") from None
        if not isinstance(row, dict):
            raise ValueError(f'{where}: has to be an object like {{"text": ...}}.')
        yield where, row


def captions_of(row: dict[str, Any], where: str) -> list[str]:
    """A clip's captions, each once: its `text`, then what the list `texts` adds in other words or languages.

    Raises:
        ValueError: naming `where` and what is wrong.
    """
    texts = row.get("texts", [])
    if "text" not in row or not isinstance(texts, list):
        raise ValueError(f"{where}: `text` is missing, or `texts` is no list.")
    texts = [row["text"], *texts]
    if not all(isinstance(text, str) and text.strip() for text in texts):
        raise ValueError(f"{where}: every caption has to be a text that is not empty.")
    return list(dict.fromkeys(texts))
