"""SHA-256 of files, texts and settings, as 64 hexadecimal digits."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO


def hash_file(file: str | Path) -> str:
    """Hash the content of a file; `sha256sum` prints the same digits."""
    with open(file, "rb") as stream:
        return hash_stream(stream)


def hash_stream(stream: BinaryIO) -> str:
    """Hash what is left to read of a binary stream."""
    return hashlib.file_digest(stream, "sha256").hexdigest()


def hash_chunks(chunks: Iterable[Any]) -> str:
    """Hash bytes, or arrays of them, as if they were one after the other in a file."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def hash_text(text: str) -> str:
    """Hash a text in UTF-8."""
    return hash_chunks([text.encode()])


def hash_json(value: Any) -> str:
    """Hash anything that JSON can hold; the order of keys makes no difference."""
    return hash_text(json.dumps(value, sort_keys=True))
