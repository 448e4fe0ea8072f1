"""Read, write and hash files: everything above `motion_adapter` imports these functions from here.

Files and folders are written whole or not at all, see `pipeline_landscape_video/atomic_writing.py`.
"""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from motion_adapter.hashes import hash_chunks, hash_file, hash_json, hash_stream, hash_text
from pipeline_landscape_video.atomic_writing import check_replaceable, write_directory, write_file


__all__ = [
    "check_replaceable",
    "hash_chunks",
    "hash_file",
    "hash_json",
    "hash_stream",
    "hash_text",
    "read_json_lines",
    "write_directory",
    "write_file",
    "write_json",
    "write_text",
]


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as readable JSON that ends with a newline. Raises a `TypeError` for what JSON cannot hold."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    with write_file(path) as unfinished:
        # A file name that is not UTF-8 reaches us as lone surrogates; replaced so, they are JSON's own escapes.
        unfinished.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_text(path: str | Path, text: str) -> None:
    """Write `text` in UTF-8."""
    with write_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def read_json_lines(path: Path) -> list[dict[str, Any]]:
    """Read the JSON objects of a file's lines; others, such as a line that was cut off, are left out.

    A missing file gives an empty list.
    """
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if path.is_file() else ():
        with suppress(ValueError):
            rows.append(json.loads(line))
    return [row for row in rows if isinstance(row, dict)]
