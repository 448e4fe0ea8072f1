"""Which clips a data set names, with their captions: a table of files, WebVid's table, or WebDataset shards.

Nothing is decoded here (`clip_check.py` does), and nothing ends the reading: a row or a member that cannot be used
becomes a `Refusal`.
"""

import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from landscape_video.training.data.caption_tables import Refusal, captions_of, read_rows
from landscape_video.training.data.webdataset import Member, read_member, read_samples
from pipeline_landscape_video.video_io import VideoFrame, iterate_video


METADATA = ("metadata.jsonl", "metadata.csv")
PLACES = (".", "train", "data", "data/train")  # where data sets on the Hub keep them
VIDEO_EXTENSIONS = {"mp4", "m4v", "mov", "mkv", "webm", "avi", "mpg", "mpeg", "ts", "gif"}
LARGEST_CAPTION_FILE = 2**20  # bytes
LAYOUTS = (
    "a metadata.jsonl or metadata.csv (file_name, text), a CSV of WebVid's columns (videoid, name), or WebDataset "
    "shards (*.tar)"
)


@dataclass(frozen=True)
class VideoSource:
    """Where a clip's bytes lie: a file, or a member of a tar shard."""

    path: Path
    member: Member | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}: {self.member.name}"

    def open(self) -> BinaryIO:
        """The bytes, as a file."""
        return self.path.open("rb") if self.member is None else io.BytesIO(read_member(self.path, self.member))

    def frames(self) -> Iterator[VideoFrame]:
        """Its frames; raises as `iterate_video` does."""
        yield from iterate_video(str(self), None if self.member is None else self.open())


class ListedClip(NamedTuple):
    """A clip that a data set names: where it lies, its captions, and its declared duration in seconds, if any."""

    source: VideoSource
    captions: list[str]
    declared_seconds: float | None = None


def list_clips(
    location: str | Path, refused: list[Refusal], caption_column: str = "text", root: Path | None = None
) -> list[ListedClip]:
    """The clips of a data set.

    Args:
        location: a folder in one of the `LAYOUTS`, itself or in its `train` or `data`; or a CSV file.
        refused: takes the rows and members that cannot be used.
        caption_column: the column, or the key of a JSON file in a shard, that holds the caption (WebVid's is `name`).
        root: files may lie in it, through symbolic links as well; the folder of the table.

    Raises:
        FileNotFoundError, ValueError: there is no data set.
    """
    location = Path(location)
    if location.is_file():
        return _list_table(location, refused, caption_column, root)
    if not location.is_dir():
        raise FileNotFoundError(f"{location}: no such folder.")
    for place in PLACES:
        folder = location / place
        tables = [folder / name for name in METADATA if (folder / name).is_file()]
        if len(tables) > 1:
            raise ValueError(f"{folder} holds both {' and '.join(METADATA)}: which one counts?")
        tables = tables or sorted(path for path in folder.glob("*.csv") if _is_webvid(path))
        shards = sorted(folder.glob("*.tar"))
        if tables:
            return [clip for table in tables for clip in _list_table(table, refused, caption_column, root)]
        if shards:
            return [clip for shard in shards for clip in _list_shard(shard, refused, caption_column)]
    raise FileNotFoundError(f"{location} holds neither {LAYOUTS} nor a latent cache.")


def _list_table(path: Path, refused: list[Refusal], caption_column: str, root: Path | None) -> list[ListedClip]:
    webvid = _is_webvid(path)
    clips = []
    for where, row in read_rows(path, refused):
        try:
            if webvid:
                clips.append(_webvid_clip(row, where, path.parent, root))
            else:
                source = VideoSource(_inside(path.parent, row.get("file_name"), root))
                clips.append(ListedClip(source, captions_of(row, where, caption_column)))
        except ValueError as error:
            refused.append(Refusal(where, str(error).removeprefix(f"{where}: ")))
    return clips


def _is_webvid(path: Path) -> bool:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        columns = file.readline(10_000).strip().split(",")
    return path.suffix.lower() == ".csv" and {"videoid", "name"} <= set(columns)


def _webvid_clip(row: dict[str, str], where: str, folder: Path, root: Path | None) -> ListedClip:
    """WebVid keeps a clip as `videos/<page_dir>/<videoid>.mp4`; many copies leave out one or both folders."""
    folder = folder / "videos" if (folder / "videos").is_dir() else folder
    flat = _inside(folder, f"{row['videoid']}.mp4", root)
    nested = _inside(folder, f"{row['page_dir']}/{row['videoid']}.mp4", root) if row.get("page_dir") else flat
    source = VideoSource(nested if nested.is_file() else flat)
    return ListedClip(source, captions_of(row, where, "name"), _seconds(row.get("duration")))


def _seconds(duration: str | None) -> float | None:
    """WebVid's durations, PT00H00M15S."""
    match = re.fullmatch(r"PT(?:(\d+)H)?(?:(\d+)M)?(?:(\d+(?:\.\d+)?)S)?", duration or "")
    if not duration:
        return None
    if match is None:
        raise ValueError(f"`duration` is {duration!r}, but has to be like PT00H00M15S.")
    hours, minutes, seconds = (float(part or 0) for part in match.groups())
    return 3600 * hours + 60 * minutes + seconds


def _inside(folder: Path, name: Any, root: Path | None) -> Path:
    """The path of a file that a row names. Raises a `ValueError` unless it lies in the folder, links followed."""
    if not isinstance(name, str) or not name:
        raise ValueError("`file_name` is missing, or no text.")
    if "\0" in name or name != name.encode(errors="replace").decode():
        raise ValueError(f"{name!r} is no file name.")
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts or not path.resolve().is_relative_to(
        (root or folder).resolve()
    ):  # fmt: skip
        raise ValueError(f"{name!r} lies outside the folder.")
    return path


def _list_shard(shard: Path, refused: list[Refusal], caption_column: str) -> list[ListedClip]:
    clips = []
    for key, members in read_samples(shard, refused):
        where = f"{shard}: {key}"
        try:
            videos = [member for extension, member in members.items() if extension in VIDEO_EXTENSIONS]
            if len(videos) != 1:
                raise ValueError(f"{len(videos)} videos in a sample of {', '.join(sorted(members))}.")
            row = _shard_row(shard, members, caption_column)
            clips.append(ListedClip(VideoSource(shard, videos[0]), captions_of(row, where, caption_column)))
        except ValueError as error:
            refused.append(Refusal(where, str(error).removeprefix(f"{where}: ")))
    return clips


def _shard_row(shard: Path, members: dict[str, Member], caption_column: str) -> dict[str, Any]:
    """A sample's `.json`, or its `.txt` as the caption."""
    member = members.get("json") or members.get("txt")
    if member is None:
        raise ValueError("has neither a .txt nor a .json with its caption.")
    if member.size > LARGEST_CAPTION_FILE:
        raise ValueError(f"{member.name} has {member.size} bytes, too many for a caption.")
    try:
        text = read_member(shard, member).decode("utf-8-sig")
        row = json.loads(text) if member is members.get("json") else {caption_column: text}
    except UnicodeDecodeError as error:
        raise ValueError(f"{member.name} has to be UTF-8: {error}.") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{member.name} is not JSON: {error}.") from None
    if not isinstance(row, dict):
        raise ValueError(f"{member.name} has to be an object like {{{caption_column!r}: ...}}.")
    return row
