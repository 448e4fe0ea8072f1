"""Copy the tracks of one video file to another: sound, text subtitles, chapters, cover images and their tags."""

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import typer
from av.stream import Discard, Disposition, Stream
from av.subtitles.stream import SubtitleStream

from landscape_video.cli.audio import AudioEncoder, aac_format
from pipeline_landscape_video.image_sequences import is_image_sequence
from pipeline_landscape_video.video_decoding import frame_rate, naming, open_container, start_offset, video_stream


# Sound that players expect in an .mp4. FFmpeg also writes PCM, Vorbis, TrueHD and ALS, which most of them do not play.
MP4_AUDIO = frozenset(("aac", "mp3", "mp2", "ac3", "eac3", "dts", "alac", "flac", "opus"))
TEXT_SUBTITLES = frozenset(("mov_text", "subrip", "ass", "ssa", "webvtt", "text"))
KEPT_TAGS = ("language", "title", "handler_name")
NUM_TRIAL_PACKETS = 8


@dataclass
class _Scan:
    """What only reading a file to its end tells.

    Attributes:
        first_packets: First packets of each stream, by its index; none for an empty stream.
        adts_headers: Rate and channels in the headers of AAC packets that have one, for each stream.
        shifts: Seconds that are added to times after each jump of the video's clock, so that they continue.
    """

    first_packets: dict[int, list[av.Packet]] = field(default_factory=dict)
    adts_headers: dict[int, set[bytes]] = field(default_factory=dict)
    shifts: list[Fraction] = field(default_factory=list)


class TrackCopy:
    """Copies all tracks but the video of a file into an open container, in step with its video.

    Sound is copied unchanged where players expect its codec in the container, else encoded as AAC. Text subtitles
    become those of mp4. What is encoded or left out is printed in one line each.

    Args:
        path: Video whose tracks are copied; it may have none.

    Attributes:
        has_cover: Whether it has cover images.

    Raises:
        VideoError: The file cannot be read to its end.
    """

    def __init__(self, path: str | Path):
        self._path, self._source, self._tracks, self._held = Path(path), None, {}, None
        self.has_cover = False
        if is_image_sequence(path):
            return
        with naming(path):
            self._scan = _scan(self._path)
            self._source = open_container(path)
        self._video = video_stream(self._source, path)
        self.has_cover = any(_is_cover(stream) for stream in self._source.streams.video)

    def start(self, target: av.container.OutputContainer) -> None:
        """Add the tracks to a container in which nothing but the video stream has been added or written."""
        self._target = target
        if self._source is None:
            return
        _copy_tags(self._video, target.streams.video[0])
        encoded, left_out = [], []
        for stream in self._source.streams:
            if stream.index == self._video.index or stream.discard == Discard.all:  # titles of chapters
                continue
            track = self._track_for(stream)
            if track is None:
                left_out.append(_describe(stream))
                continue
            language = stream.metadata.get("language")
            if language is not None and not re.fullmatch("[a-z]{3}", language):
                left_out.append(f"language {language!r} of {_describe(stream)}, which must have three letters")
            self._tracks[stream.index] = track
            _copy_tags(stream, track.stream)
            if isinstance(track, AudioEncoder):
                encoded.append(f"{_describe(stream)} as {track.describe()}")
        self._copy_chapters()
        if encoded:
            typer.echo(
                f"{self._path.name}: sound that players do not expect in mp4 is encoded: {', '.join(encoded)}",
                err=True,
            )
        if left_out:
            self._say(f"left out: {', '.join(left_out)}")
        self._packets = self._demux()

    def close(self) -> None:
        """Close the file that was read."""
        if self._source is not None:
            self._source.close()

    def advance(self, seconds: float | Fraction | None = None) -> None:
        """Write everything up to a time of the video, or all that is left if it is `None`.

        The container holds back packets until every stream has reached their time, so streams must advance together.
        """
        if self._source is None:
            return
        while True:
            packet = self._held or next(self._packets, None)
            self._held = None
            if packet is None:
                break
            if seconds is not None and packet.dts * packet.time_base > seconds:
                self._held = packet
                return
            self._target.mux(self._tracks[packet.stream.index].encode(packet))
        if seconds is None:
            for index, track in self._tracks.items():
                self._target.mux(track.encode(None))
                if isinstance(track, AudioEncoder) and (damage := track.describe_damage()):
                    self._say(f"{_describe(self._source.streams[index])} {damage}")

    def _track_for(self, stream: Stream) -> "AudioEncoder | _PacketCopy | _SubtitleEncoder | None":
        """Add a stream to the target; return None if it does not hold this kind of stream."""
        if stream.codec_context is None or not self._scan.first_packets.get(stream.index):
            return None
        codec = stream.codec_context.codec.canonical_name
        if _is_cover(stream) or codec == "mov_text":
            return _PacketCopy(stream, self._target)
        if stream.type == "subtitle" and codec in TEXT_SUBTITLES:
            return _SubtitleEncoder(stream, self._target)
        if stream.type != "audio":
            return None
        # An .mp4 declares the rate and the channels of AAC once, so joined files that differ in them are encoded.
        is_uniform = len(self._scan.adts_headers.get(stream.index, ())) <= 1
        if codec in MP4_AUDIO and is_uniform and _can_be_copied(stream, self._scan.first_packets[stream.index]):
            return _PacketCopy(stream, self._target)
        audio = aac_format(stream)
        return audio and AudioEncoder(stream, self._target, audio)

    def _say(self, message: str) -> None:
        typer.echo(f"{self._path.name}: {message}", err=True)

    def _copy_chapters(self) -> None:
        chapters = self._source.chapters()
        for chapter in chapters:
            shift = round(start_offset(self._source) / chapter["time_base"])
            chapter["start"] -= shift
            chapter["end"] -= shift
        self._target.set_chapters(chapters)

    def _demux(self) -> Iterator[av.Packet]:
        """Packets of all tracks on the clock of the video as it is read."""
        offset = start_offset(self._source)
        streams = [self._source.streams[index] for index in self._tracks]
        clocks = {index: _Clock(offset, self._scan.shifts) for index in self._tracks}
        with naming(self._path):
            for packet in self._source.demux(streams) if streams else ():
                if packet.size:  # an empty packet marks the end of a stream
                    clocks[packet.stream.index].set_times(packet)
                    yield packet


class _Clock:
    """Moves packets of a stream to the clock of the video, whose first frame may be later, and which may jump back."""

    def __init__(self, offset: Fraction, shifts: list[Fraction]):
        self._offset, self._shifts, self._shift = offset, iter(shifts), Fraction(0)
        self._previous: int | None = None  # time of the last packet, before it was moved
        self._end = Fraction(0)  # of the last packet, in seconds, after it was moved

    def set_times(self, packet: av.Packet) -> None:
        base = packet.time_base
        dts = packet.dts if packet.dts is not None else packet.pts or 0  # cover images have none
        if self._previous is not None and dts <= self._previous:
            # As where files were joined. The video's clock is continued, else that of this stream.
            self._shift = next(self._shifts, self._end + self._offset - dts * base)
        self._previous = dts
        moved = round((self._shift - self._offset) / base)
        packet.pts = (dts if packet.pts is None else packet.pts) + moved
        packet.dts = dts + moved
        self._end = (packet.dts + (packet.duration or 1)) * base


class _PacketCopy:
    """Copies packets as they are."""

    def __init__(self, stream: Stream, target: av.container.OutputContainer):
        self.stream = target.add_stream_from_template(stream, opaque=True)
        self._next = None  # earliest time of the next packet

    def encode(self, packet: av.Packet | None) -> list[av.Packet]:
        """Return the packet, or nothing if more than half of it is covered by the one before."""
        if packet is None:
            return []
        duration = packet.duration or 1
        if self._next is not None and packet.dts < self._next:
            return []
        self._next = packet.dts + (duration + 1) // 2
        packet.stream = self.stream
        return [packet]


class _SubtitleEncoder:
    """Converts text subtitles to those of mp4."""

    def __init__(self, stream: SubtitleStream, target: av.container.OutputContainer):
        self._decoder = stream.codec_context
        self._decoder.open(strict=False)  # sets the header
        self.stream = target.add_stream("mov_text")
        self.stream.codec_context.subtitle_header = self._decoder.subtitle_header
        self.stream.time_base = self.stream.codec_context.time_base = stream.time_base

    def encode(self, packet: av.Packet | None) -> list[av.Packet]:
        """Return the packet of a text."""
        try:
            decoded = None if packet is None else self._decoder.decode2(packet)
        except av.FFmpegError:  # a damaged text is left out
            return []
        if not decoded:
            return []
        text = self.stream.codec_context.encode_subtitle(decoded)
        text.pts, text.dts, text.duration, text.time_base = packet.pts, packet.dts, packet.duration, packet.time_base
        text.stream = self.stream
        return [text]


def _scan(path: Path) -> _Scan:
    """Read a file to its end without decoding it."""
    scan, times = _Scan(), []
    with open_container(path) as container:
        video = video_stream(container, path)
        for packet in container.demux():
            if not packet.size:
                continue
            first = scan.first_packets.setdefault(packet.stream.index, [])
            if len(first) < NUM_TRIAL_PACKETS and packet.stream.index != video.index:
                first.append(packet)
            if header := _adts_header(packet):
                scan.adts_headers.setdefault(packet.stream.index, set()).add(header)
            if packet.stream.index == video.index and None not in (packet.pts, packet.dts):
                times.append((packet.pts * packet.time_base, packet.dts * packet.time_base))
        scan.shifts = _shifts_at_jumps(times, 1 / frame_rate(video))
    return scan


def _adts_header(packet: av.Packet) -> bytes | None:
    """The bits of an AAC packet's header that declare rate and channels; None if it has no header."""
    context = packet.stream.codec_context
    if packet.stream.type != "audio" or context is None or context.codec.canonical_name != "aac":
        return None
    data = bytes(packet)[:4]
    is_header = len(data) == 4 and data[0] == 0xFF and data[1] & 0xF6 == 0xF0
    return bytes((data[2] & 0x3D, data[3] & 0xC0)) if is_header else None


def _shifts_at_jumps(times: list[tuple[Fraction, Fraction]], interval: Fraction) -> list[Fraction]:
    """What is added to times after each jump of the clock, from the pts and dts of all packets of a video."""
    shifts, shift, previous, end = [], Fraction(0), None, Fraction(0)
    for (pts, dts), (_, following) in pairwise([*times, (None, None)]):
        if previous is not None and dts <= previous:
            if following is not None and following > previous:
                continue  # one wrong time among right ones
            shift = end - pts
            shifts.append(shift)
        previous, end = dts, max(end, pts + shift + interval)
    return shifts


def _can_be_copied(stream: av.AudioStream, packets: list[av.Packet]) -> bool:
    """Whether FFmpeg writes a stream into an .mp4, which it tells only when it writes."""
    try:
        with av.open(io.BytesIO(), "w", format="mp4") as trial:
            copy = _PacketCopy(stream, trial)
            clock = _Clock(Fraction(0), [])
            for packet in packets:
                clock.set_times(packet)
                trial.mux(copy.encode(packet))
    except (ValueError, av.FFmpegError):
        return False
    return True


def _is_cover(stream: Stream) -> bool:
    return stream.type == "video" and bool(stream.disposition & Disposition.attached_pic)


def _copy_tags(source: Stream, target: Stream) -> None:
    target.metadata.update({name: source.metadata[name] for name in KEPT_TAGS if name in source.metadata})
    if "name" in source.metadata:  # as FFmpeg calls the title that it has written into an .mp4
        target.metadata.setdefault("title", source.metadata["name"])
    target.disposition = source.disposition


def _describe(stream: Stream) -> str:
    """Name of a stream for messages, such as audio 2 (vorbis)."""
    of_its_type = [other for other in stream.container.streams if other.type == stream.type]
    number = 1 + [other.index for other in of_its_type].index(stream.index)
    codec = stream.codec_context.codec.canonical_name if stream.codec_context is not None else None
    name = codec or stream.metadata.get("filename") or stream.metadata.get("handler_name") or "unknown"
    return f"{stream.type} {number} ({name})"
