"""List the clips of a dataset with their captions: a table of files, a WebVid table, or WebDataset shards.

Nothing is decoded here; `video_dataset.py` does that. A bad entry does not stop the reading: a row or member that
cannot be used becomes a `RejectedClip`.

Shards are `.tar` files in which files of one name (`0001.mp4`, `0001.txt`) form one sample. Nothing is unpacked:
members are read inside the archive, so it cannot write anywhere. Links, devices, paths that lead out of the archive
and sparse members of terabytes are rejected one by one.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from landscape_video.training.data.caption_tables import (
    MAX_CAPTION_FILE,
    RejectedClip,
    captions_of,
    decode_caption_file,
    parse_json,
    read_table,
    reject_errors,
)
from pipeline_landscape_video.video_io import VIDEO_EXTENSIONS, VideoFrame, iterate_video


MAX_MEMBER = 2**30  # bytes; a member is read into memory
BLOCK = 512  # bytes of a tar header, and of the end mark

METADATA = ("metadata.jsonl", "metadata.csv")
PLACES = (".", "train", "data", "data/train")  # where datasets on the Hub keep their tables and shards
SHARD_EXTENSIONS = VIDEO_EXTENSIONS - {"webp", "avif"}  # in shards, these are the still images of other datasets
LAYOUTS = (
    "a metadata.jsonl or metadata.csv (file_name, text), a CSV file with WebVid's columns (videoid, name), or "
    "WebDataset shards (*.tar)"
)


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


@dataclass(frozen=True)
class VideoSource:
    """Location of a clip's bytes: a file, or a member of a tar shard."""

    path: Path
    member: Member | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}: {self.member.name}"

    def open(self) -> BinaryIO:
        """Open the clip's bytes as a file."""
        return self.path.open("rb") if self.member is None else io.BytesIO(read_member(self.path, self.member))

    def frames(self) -> Iterator[VideoFrame]:
        """Decode the frames; raises as `iterate_video` does."""
        yield from iterate_video(str(self), None if self.member is None else self.open())


class ListedClip(NamedTuple):
    """A clip named by a dataset: its location, its captions, and its declared duration in seconds, if any."""

    source: VideoSource
    captions: list[str]
    declared_seconds: float | None = None


def list_clips(
    location: str | Path, rejected: list[RejectedClip], caption_column: str = "text", root: Path | None = None
) -> list[ListedClip]:
    """List the clips of a dataset.

    Args:
        location: A CSV file, or a folder with one of the `LAYOUTS` in it or in one of the `PLACES` below it.
        rejected: Receives rows and members that cannot be used.
        caption_column: Column of a table, or key of a shard's JSON, that holds the caption. WebVid's is always `name`.
        root: Folder that must contain the files after symbolic links are resolved; the table's own folder by default.

    Raises:
        FileNotFoundError: No dataset at `location`.
        ValueError: Two tables in one folder.
    """
    location = Path(location)
    if location.is_file():
        return _list_table(location, rejected, caption_column, root)
    if not location.is_dir():
        raise FileNotFoundError(f"{location}: no such folder.")
    for folder in (location / place for place in PLACES):
        tables = [folder / name for name in METADATA if (folder / name).is_file()]
        if len(tables) > 1:
            raise ValueError(f"{folder} holds both {' and '.join(METADATA)}: remove one of them.")
        tables = tables or sorted(path for path in folder.glob("*.csv") if _is_webvid(path))
        shards = sorted(folder.glob("*.tar"))
        if tables:
            return [clip for table in tables for clip in _list_table(table, rejected, caption_column, root)]
        if shards:
            return [clip for shard in shards for clip in _list_shard(shard, rejected, caption_column)]
    raise FileNotFoundError(f"{location} holds neither {LAYOUTS} nor a latent cache.")


def _list_table(path: Path, rejected: list[RejectedClip], caption_column: str, root: Path | None) -> list[ListedClip]:
    if _is_webvid(path):
        return read_table(path, partial(_webvid_clip, path.parent, root), rejected)

    def clip_of(row: dict[str, Any]) -> ListedClip:
        source = VideoSource(_inside(path.parent, row.get("file_name"), root))
        return ListedClip(source, captions_of(row, caption_column))

    return read_table(path, clip_of, rejected)


def _is_webvid(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        columns = file.readline(10_000).strip().split(",")
    return path.suffix.lower() == ".csv" and {"videoid", "name"} <= set(columns)


def _webvid_clip(folder: Path, root: Path | None, row: dict[str, str]) -> ListedClip:
    """WebVid stores a clip as `videos/<page_dir>/<videoid>.mp4`; many copies leave out one or both folders."""
    folder = folder / "videos" if (folder / "videos").is_dir() else folder
    flat = _inside(folder, f"{row['videoid']}.mp4", root)
    nested = _inside(folder, f"{row['page_dir']}/{row['videoid']}.mp4", root) if row.get("page_dir") else flat
    source = VideoSource(nested if nested.is_file() else flat)
    return ListedClip(source, captions_of(row, "name"), _seconds(row.get("duration")))


def _seconds(duration: str | None) -> float | None:
    """Seconds of a duration as WebVid writes it, PT00H00M15S."""
    if not duration:
        return None
    match = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", duration)
    if match is None:
        raise ValueError(f"`duration` must be like PT00H00M15S, got {duration!r}.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _inside(folder: Path, name: Any, root: Path | None) -> Path:
    """Path of a file that a row names. Raises a `ValueError` if it leads out of the folder, also through links."""
    if not isinstance(name, str) or not name:
        raise ValueError("`file_name` is missing or not a text.")
    if "\0" in name or name != name.encode(errors="replace").decode():
        raise ValueError(f"{name!r} is not a file name.")
    path, allowed = folder / name, (root or folder).resolve()
    if Path(name).is_absolute() or ".." in Path(name).parts or not path.resolve().is_relative_to(allowed):
        raise ValueError(f"{name!r} is outside the folder.")
    return path


def _list_shard(shard: Path, rejected: list[RejectedClip], caption_column: str) -> list[ListedClip]:
    clips = []
    for key, members in read_samples(shard, rejected):
        with reject_errors(f"{shard}: {key}", rejected):
            videos = [member for extension, member in members.items() if extension in SHARD_EXTENSIONS]
            if len(videos) != 1:
                raise ValueError(f"a sample must have one video, got {len(videos)} in {', '.join(sorted(members))}.")
            captions = captions_of(_shard_row(shard, members, caption_column), caption_column)
            clips.append(ListedClip(VideoSource(shard, videos[0]), captions))
    return clips


def _shard_row(shard: Path, members: dict[str, Member], caption_column: str) -> dict[str, Any]:
    """A sample's `.json`, or its `.txt` as the caption."""
    member = members.get("json") or members.get("txt")
    if member is None:
        raise ValueError("has neither a .txt nor a .json with its caption.")
    member = member._replace(size=min(member.size, MAX_CAPTION_FILE + 1))  # one byte more shows that it is too large
    text = decode_caption_file(member.name, read_member(shard, member))
    if "json" not in members:
        return {caption_column: text}
    try:
        return parse_json(text)
    except ValueError as error:
        raise ValueError(f"{member.name}: {error}") from None
