"""Read tables of captions: `metadata.jsonl` or `.csv` beside videos, `captions.jsonl` of a latent cache.

Tables may have errors, so each row is checked separately: a bad row is rejected with its line number, and the rest of
the table is read.
"""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar


Parsed = TypeVar("Parsed")

MAX_CAPTION = 10_000  # characters; text encoders read about 300 of them, so a longer caption is a mistake
MAX_CAPTION_FILE = 2**20  # bytes
MAX_FIELD = 2**24  # characters of a CSV field; with Python's limit, a caption of 200 kB would end the whole file


class RejectedClip(NamedTuple):
    """A clip, or a row that should have named one, that cannot be used, and the reason."""

    clip: str
    reason: str


@contextmanager
def reject_errors(clip: str, rejected: list[RejectedClip]) -> Iterator[None]:
    """Record a `ValueError` of the block as the reason to reject `clip`, instead of raising it."""
    try:
        yield
    except ValueError as error:
        rejected.append(RejectedClip(clip, str(error)))


def raise_rejected(rejected: Iterable[RejectedClip]) -> None:
    """Raise a `ValueError` with one line for each rejected clip, if there is any."""
    if lines := [f"{clip}: {reason}" for clip, reason in rejected]:
        raise ValueError("\n".join(lines))


def read_table(
    path: str | Path, parse: Callable[[dict[str, Any]], Parsed], rejected: list[RejectedClip]
) -> list[Parsed]:
    """Read a UTF-8 table, JSON lines or CSV with a header.

    Args:
        path: A `.csv` file; every other name is read as JSON lines. A byte-order mark and empty lines at the end are
            ignored.
        parse: Turns a row into what the caller needs, or raises a `ValueError`.
        rejected: Receives the rows that cannot be read or parsed.

    Returns:
        The parsed rows in the order of the file.

    Raises:
        FileNotFoundError: The file does not exist.
    """
    path = Path(path)
    parsed = []
    # Bytes that are not UTF-8 become lone surrogates, which `check_encoding` finds: they spoil a row, not the file.
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        rows = _csv_rows(file) if path.suffix.lower() == ".csv" else enumerate(file.read().rstrip().split("\n"), 1)
        for line, row in rows:
            with reject_errors(f"{path}, line {line}", rejected):
                parsed.append(parse(parse_json(row) if isinstance(row, str) else _check_row(row)))
    return parsed


def parse_json(text: str) -> dict[str, Any]:
    """A row or sidecar file in JSON. Raises a `ValueError` unless it is an object."""
    check_encoding(text)
    try:
        row = json.loads(text)
    except RecursionError:
        raise ValueError("not JSON: nested too deeply.") from None
    except ValueError as error:
        raise ValueError(f"not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise ValueError('must be an object like {"text": ...}.')
    return row


def captions_of(row: dict[str, Any], column: str = "text") -> list[str]:
    """Captions of a clip without repetitions: the `column`, then other wordings or languages from the list `texts`.

    Raises:
        ValueError: A caption is missing or unusable, see `clean_caption`.
    """
    texts = row.get("texts") or []
    if column not in row or not isinstance(texts, list):
        raise ValueError(f"`{column}` is missing, or `texts` is not a list.")
    return list(dict.fromkeys(clean_caption(text) for text in [row[column], *texts]))


def clean_caption(text: Any) -> str:
    """A caption without byte-order mark and surrounding white space.

    Raises:
        ValueError: Not a string, empty, longer than `MAX_CAPTION`, not UTF-8, or with control characters.
    """
    if not isinstance(text, str) or not text.strip("\ufeff \t\r\n"):
        raise ValueError(f"every caption must be a non-empty text, got {text!r}.")
    text = text.strip("\ufeff \t\r\n")
    check_encoding(text)
    if len(text) > MAX_CAPTION:
        raise ValueError(f"a caption must have at most {MAX_CAPTION} characters, got {len(text)}.")
    controls = [letter for letter in text if (ord(letter) < 32 and letter not in "\t\r\n") or letter == "\x7f"]
    if controls:
        raise ValueError(f"a caption contains the control character {controls[0]!r}.")
    return text


def add_trigger_word(captions: Iterable[Iterable[str]], word: str) -> list[list[str]]:
    """Captions of all clips with `word` in front, which prompts then use to recall what was learned."""
    return [[text if text.startswith(word) else f"{word}, {text}" for text in texts] for texts in captions]


def decode_caption_file(name: str, data: bytes) -> str:
    """Text of a file that holds one caption, or one clip's captions.

    Args:
        name: Name of the file, for messages.
        data: Its bytes; of a larger file, at least `MAX_CAPTION_FILE` + 1 of them.

    Raises:
        ValueError: The file is too large or not UTF-8.
    """
    if len(data) > MAX_CAPTION_FILE:
        raise ValueError(f"{name} must have at most {MAX_CAPTION_FILE} bytes to be a caption.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} must be UTF-8: {error}.") from None


def check_encoding(text: str) -> None:
    """Raise a `ValueError` for text that was decoded from bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        code = ord(text[error.start])
        # `surrogateescape` maps byte 0x80..0xff to U+DC80..U+DCFF.
        found = f"byte 0x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else f"a lone surrogate {code:#x}"
        raise ValueError(f"must be UTF-8, got {found} at character {error.start}.") from None


def _csv_rows(file: Iterable[str]) -> Iterator[tuple[int, dict[str, str] | csv.Error]]:
    """Number of each row's last line, and the row or the error in its place."""
    limit = csv.field_size_limit(MAX_FIELD)  # a setting of the whole process, restored below
    try:
        reader = csv.DictReader(file, strict=True)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                row = error
            if row is None:
                return
            yield reader.reader.line_num, row
    finally:
        csv.field_size_limit(limit)


def _check_row(row: dict[str, str] | csv.Error) -> dict[str, str]:
    if isinstance(row, csv.Error):
        raise ValueError(f"not CSV: {row}.")
    if None in row or None in row.values():  # how `DictReader` marks additional and missing fields
        raise ValueError("must have as many fields as the header.")
    check_encoding("".join(row.values()))
    return row
