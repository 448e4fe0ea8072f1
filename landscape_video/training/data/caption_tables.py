"""Tables with captions: `metadata.jsonl` or `.csv` of a folder of videos, `captions.jsonl` of a latent cache.

They come from anywhere, so each row is judged alone: a hostile one is refused by its line, and the rest is read.
"""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple


MAX_CAPTION = 10_000  # characters; a text encoder reads some 300 of them, so more is a mistake in the table
MAX_FIELD = 2**24  # characters of a CSV field; Python's own limit would end the whole file at a caption of 200 kB


class Refusal(NamedTuple):
    """A clip, or a row that should have named one, that is not used, and the reason."""

    clip: str
    reason: str


def read_rows(path: str | Path, refused: list[Refusal] | None = None) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row of a UTF-8 file (JSON lines, or CSV with a header) as (where it stands, for messages; what it says).

    Args:
        path: ends in `.csv`, or is read as JSON lines. A byte-order mark is no part of it, nor are empty lines at its
            end.
        refused: takes the rows that cannot be read; without it the first of them raises.

    Raises:
        FileNotFoundError, ValueError: naming the file, the line and what is wrong with it.
    """
    path = Path(path)
    # Bytes that are no UTF-8 become lone surrogates, which `_check_encoding` finds: they spoil a row, not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = _csv_rows(file) if path.suffix.lower() == ".csv" else _json_rows(file.read().rstrip().split("\n"))
        for line, row in rows:
            where = f"{path}, line {line}"
            if isinstance(row, dict):
                yield where, row
            elif refused is not None:
                refused.append(Refusal(where, row))
            else:
                raise ValueError(f"{where}: {row}")


def captions_of(row: dict[str, Any], where: str, column: str = "text") -> list[str]:
    """A clip's captions, each once: its `column`, then what the list `texts` adds in other words or languages.

    Raises:
        ValueError: naming `where` and what is wrong.
    """
    texts = row.get("texts") or []
    if column not in row or not isinstance(texts, list):
        raise ValueError(f"{where}: `{column}` is missing, or `texts` is no list.")
    try:
        return list(dict.fromkeys(clean_caption(text) for text in [row[column], *texts]))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def clean_caption(text: Any) -> str:
    """The caption without a byte-order mark or white space around it.

    Raises:
        ValueError: it is no text, empty, longer than `MAX_CAPTION`, not UTF-8, or has control characters.
    """
    if not isinstance(text, str) or not text.strip("\ufeff \t\r\n"):
        raise ValueError("every caption has to be a text that is not empty.")
    text = text.strip("\ufeff \t\r\n")
    _check_encoding(text)
    if len(text) > MAX_CAPTION:
        raise ValueError(f"a caption of {len(text)} characters, but at most {MAX_CAPTION} are read.")
    controls = [letter for letter in text if (ord(letter) < 32 and letter not in "\t\r\n") or letter == "\x7f"]
    if controls:
        raise ValueError(f"a caption with the control character {controls[0]!r}.")
    return text


def with_trigger_word(captions: Iterable[Iterable[str]], word: str) -> list[list[str]]:
    """The captions of all clips, each beginning with `word`, so that a prompt can call what was learned by it."""
    return [[text if text.startswith(word) else f"{word}, {text}" for text in texts] for texts in captions]


def _json_rows(lines: list[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(line number, the row or what is wrong with it)"""
    for number, line in enumerate(lines, start=1):
        try:
            _check_encoding(line)
            row = json.loads(line)
        except RecursionError:
            yield number, "not JSON: nested too deeply."
        except ValueError as error:
            reason = str(error)
            yield number, reason if reason.startswith("has to be") else f"not JSON: {reason}."
        else:
            yield number, row if isinstance(row, dict) else 'has to be an object like {"text": ...}.'


def _csv_rows(file: Iterable[str]) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """(number of its last line, the row or what is wrong with it)"""
    limit = csv.field_size_limit(MAX_FIELD)  # of the process, so put back
    try:
        reader = csv.reader(file, strict=True)
        header = next(reader, [])
        while True:
            try:
                row = next(reader)
                _check_encoding("".join(row))
            except StopIteration:
                return
            except csv.Error as error:
                yield reader.line_num, f"not CSV: {error}."
            except ValueError as error:
                yield reader.line_num, str(error)
            else:
                if len(row) == len(header):
                    yield reader.line_num, dict(zip(header, row, strict=True))
                elif row:
                    yield reader.line_num, f"has {len(row)} fields, but the header has {len(header)}."
    finally:
        csv.field_size_limit(limit)


def _check_encoding(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        byte = ord(text[error.start])
        shown = f"byte 0x{byte - 0xDC00:02x}" if 0xDC80 <= byte <= 0xDCFF else f"a lone surrogate {byte:#x}"
        raise ValueError(f"has to be UTF-8, but has {shown} at character {error.start}.") from None
