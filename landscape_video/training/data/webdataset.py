"""Read WebDataset shards: `.tar` files in which files of one name (`0001.mp4`, `0001.txt`) form one sample.

Nothing is unpacked: members are read inside the archive, so it cannot write anywhere. Links, devices, paths that lead
out of the archive and sparse members of terabytes are rejected one by one.
"""

import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from landscape_video.training.data.caption_tables import RejectedClip


MAX_MEMBER = 2**30  # bytes; a member is read into memory
BLOCK = 512  # bytes of a tar header, and of the end mark


class Member(NamedTuple):
    """A file in a shard: its name, and the offset and size of its bytes."""

    name: str
    offset: int
    size: int


def read_samples(shard: str | Path, rejected: list[RejectedClip]) -> Iterator[tuple[str, dict[str, Member]]]:
    """Read the index of a shard.

    Args:
        shard: An uncompressed tar file.
        rejected: Receives unusable members, and the shard itself if it is damaged or compressed.

    Yields:
        Key of each sample (its path up to the first dot of the name) and its members by extension.
    """
    samples: dict[str, dict[str, Member]] = {}
    for member in _read_members(Path(shard), rejected):
        path = PurePosixPath(member.name)
        stem, dot, extension = path.name.partition(".")
        key, extension = str(path.with_name(stem)) if stem else "", extension.lower()
        if not key or not dot:
            rejected.append(RejectedClip(f"{shard}: {member.name}", "has no name with an extension."))
        elif extension in samples.setdefault(key, {}):
            rejected.append(RejectedClip(f"{shard}: {member.name}", "is in the archive twice; the first one is used."))
        else:
            samples[key][extension] = member
    yield from samples.items()


def read_member(shard: str | Path, member: Member) -> bytes:
    """Read the bytes of a member."""
    with open(shard, "rb") as file:
        file.seek(member.offset)
        return file.read(member.size)


def _read_members(shard: Path, rejected: list[RejectedClip]) -> Iterator[Member]:
    try:
        with tarfile.open(shard, "r:") as archive:
            for info in archive:
                if reason := _why_rejected(info):
                    rejected.append(RejectedClip(f"{shard}: {info.name!r}", reason))
                elif info.isfile():
                    yield Member(info.name, info.offset_data, info.size)
            # tarfile takes a damaged header for the end of the archive and does not ask for an end mark.
            archive.fileobj.seek(archive.offset)
            mark = archive.fileobj.read(BLOCK)
        if mark != bytes(BLOCK):
            rejected.append(RejectedClip(str(shard), f"is damaged or cut short at byte {archive.offset}."))
    except (tarfile.TarError, OSError, ValueError) as error:
        reason = f"cannot be read to its end as an uncompressed tar file ({str(error).splitlines()[0]})."
        rejected.append(RejectedClip(str(shard), reason))


def _why_rejected(info: tarfile.TarInfo) -> str | None:
    """Reason to reject a member; None for usable ones, and for folders, which are skipped silently."""
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
        return f"must have at most {MAX_MEMBER} bytes, got {info.size}."
    return None
