"""WebDataset shards: `.tar` files in which files of one name (`0001.mp4`, `0001.txt`) make up one sample.

Nothing is ever unpacked: members are read where they lie, so an archive cannot write anywhere. What an archive could
do besides (links, devices, paths that lead out, sparse members of terabytes) is refused member by member.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from landscape_video.training.data.caption_tables import Refusal


MAX_MEMBER = 2**30  # bytes; a member is read into memory
BLOCK = 512


class Member(NamedTuple):
    """A file in a shard: its name there, and where its bytes lie."""

    name: str
    offset: int
    size: int


def read_samples(shard: str | Path, refused: list[Refusal]) -> Iterator[tuple[str, dict[str, Member]]]:
    """Each sample of a shard: its key, the path up to the first dot of the name, and its members by extension.

    Args:
        refused: takes the members that are not used, and the shard itself where it is damaged or compressed.
    """
    samples: dict[str, dict[str, Member]] = {}
    for member in _read_members(Path(shard), refused):
        path = PurePosixPath(member.name)
        stem, dot, extension = path.name.partition(".")
        key, extension = str(path.with_name(stem)) if stem else "", extension.lower()
        if not key or not dot:
            refused.append(Refusal(f"{shard}: {member.name}", "has no name with an extension."))
        elif extension in samples.setdefault(key, {}):
            refused.append(Refusal(f"{shard}: {member.name}", "is in the archive twice; the first one counts."))
        else:
            samples[key][extension] = member
    yield from samples.items()


def read_member(shard: str | Path, member: Member) -> bytes:
    """The bytes of a member."""
    with open(shard, "rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def _read_members(shard: Path, refused: list[Refusal]) -> Iterator[Member]:
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                if reason := _why_not(info):
                    refused.append(Refusal(f"{shard}: {info.name!r}", reason))
                elif info.isfile():
                    yield Member(info.name, info.offset_data, info.size)
            # tarfile takes a damaged header for the end, and asks for no end mark
            archive.fileobj.seek(archive.offset)
            mark = archive.fileobj.read(BLOCK)
        if mark != bytes(BLOCK):
            refused.append(Refusal(str(shard), f"is damaged or cut short at byte {archive.offset}."))
    except (tarfile.TarError, OSError, ValueError) as error:
        reason = f"cannot be read to its end as an uncompressed tar file ({str(error).splitlines()[0]})."
        refused.append(Refusal(str(shard), reason))


def _why_not(info: tarfile.TarInfo) -> str | None:
    """Why a member is refused; None for folders, too, which are just left out."""
    path = PurePosixPath(info.name)
    if path.is_absolute() or ".." in path.parts or "\\" in info.name or "\0" in info.name:
        return "its path leads out of the archive."
    if info.isdir():
        return None
    if info.issparse():
        return f"is sparse: {info.size} bytes that are not in the archive."
    if not info.isfile():
        return "is a link or a device, not a file."
    if info.size > MAX_MEMBER:
        return f"has {info.size} bytes, but at most {MAX_MEMBER} are read."
    return None
