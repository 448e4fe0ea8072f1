"""Tracks that people have, carried over with what they declare, or named as left out."""

import io
import re
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.stream import Disposition
from PIL import Image
from test_sound import copy
from typer.testing import CliRunner, Result

from landscape_video.cli.interpolate import warn_about_losses
from landscape_video.cli.main import app
from media_files import encode, moving_texture
from pipeline_landscape_video.video_io import probe_video, read_metadata, read_video
from sound_files import Sound, make_clip


TEXTS = [(0.2, 0.6, "mist"), (0.8, 1.4, "山水 <b>and</b> rain")]


def declared(path: Path) -> list[tuple[str, str | None, str | None, Disposition]]:
    """Type, language, title and disposition of each track but the video."""
    with av.open(str(path)) as container:
        return [
            (
                stream.type,
                stream.metadata.get("language"),
                stream.metadata.get("title") or stream.metadata.get("name"),  # the latter in an .mp4
                stream.disposition,
            )
            for stream in container.streams
            if stream.type in ("audio", "subtitle")
        ]


def chapters_of(path: Path) -> list[tuple[float, float, str]]:
    with av.open(str(path)) as container:
        return [
            (float(one["start"] * one["time_base"]), float(one["end"] * one["time_base"]), one["metadata"]["title"])
            for one in container.chapters()
        ]


def texts_of(path: Path) -> list[tuple[float, float, str]]:
    """Times and plain text of the subtitles."""
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(subtitles=0):
            if text := packet.size and b"\n".join(one.dialogue for one in packet.decode()).decode():
                start = float(packet.pts * packet.time_base)
                found.append((start, start + float(packet.duration * packet.time_base), text))
    return found


def add_chapters(container: av.container.OutputContainer) -> None:
    base = Fraction(1, 1000)
    titles = [(0, 500, "one"), (500, 2000, "two")]
    container.set_chapters(
        [
            {"id": number, "start": start, "end": end, "time_base": base, "metadata": {"title": title}}
            for number, (start, end, title) in enumerate(titles, start=1)
        ]
    )


def png() -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((16, 16, 3), 200, np.uint8)).save(file, "png")
    return file.getvalue()


def add_attachments(container: av.container.OutputContainer) -> None:
    container.add_attachment("cover.png", "image/png", png())
    container.add_attachment("brush.ttf", "font/ttf", b"not really a font")


def with_subtitles(folder: Path, suffix: str, codec: str) -> Path:
    """A clip to which `TEXTS` were added, in French and forced."""
    clip = make_clip(folder / f"clip.{suffix}", [Sound("libopus")])
    path = folder / f"in.{suffix}"
    lines = "".join(
        f"{number}\n00:00:0{start:.3f} --> 00:00:0{end:.3f}\n{text}\n\n".replace(".", ",")
        for number, (start, end, text) in enumerate(TEXTS)
    )
    (folder / "texts.srt").write_text(lines, encoding="utf-8")
    with av.open(str(clip)) as source, av.open(str(folder / "texts.srt")) as texts, av.open(str(path), "w") as target:
        copies = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        decoder = texts.streams.subtitles[0].codec_context
        decoder.open(strict=False)
        subtitles = target.add_stream(codec)
        subtitles.codec_context.subtitle_header = decoder.subtitle_header
        subtitles.time_base = subtitles.codec_context.time_base = Fraction(1, 1000)
        subtitles.metadata["language"], subtitles.disposition = "fre", Disposition.forced
        for packet in texts.demux():
            if packet.size:
                text = subtitles.codec_context.encode_subtitle(decoder.decode2(packet))
                text.pts, text.dts, text.duration = packet.pts, packet.pts, packet.duration
                text.time_base, text.stream = packet.time_base, subtitles
                target.mux(text)
        for packet in source.demux():
            if packet.size:
                packet.stream = copies[packet.stream.index]
                target.mux(packet)
    return path


def interpolate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["interpolate", *map(str, arguments), "--flow", "dis"])


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "aac"), ("mkv", "aac"), ("mkv", "pcm_s16le"), ("mov", "alac"), ("webm", "libopus")]
)
def test_languages_titles_default_tracks_and_chapters_stay(tmp_path, suffix, codec):
    sounds = [
        Sound(codec, tags={"language": "eng"}, disposition=0),
        Sound(codec, tags={"language": "ger", "title": "Kommentar"}, disposition=Disposition.default),
    ]
    source = make_clip(tmp_path / f"in.{suffix}", sounds, prepare=add_chapters)
    output = copy(source)
    assert declared(output) == declared(source)
    _, language, title, disposition = declared(output)[1]
    assert (language, title, bool(disposition)) == ("ger", "Kommentar", True)
    assert chapters_of(output) == chapters_of(source) == [(0, 0.5, "one"), (0.5, 2, "two")]


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mkv", "srt"), ("mkv", "ass"), ("mp4", "mov_text"), ("webm", "webvtt")]
)
def test_text_subtitles_stay(tmp_path, capsys, suffix, codec):
    source = with_subtitles(tmp_path, suffix, codec)
    output = copy(source)
    with av.open(str(output)) as container:
        (subtitles,) = container.streams.subtitles
        assert subtitles.codec_context.name == "mov_text" and subtitles.metadata["language"] == "fre"
        assert subtitles.disposition & Disposition.forced or codec == "mov_text"
    texts = [re.sub(r"\{.*?\}", "", text) for *_, text in texts_of(output)]
    assert texts == [re.sub("<.*?>", "", text) for *_, text in TEXTS]
    np.testing.assert_allclose([times for *times, _ in texts_of(output)], [times for *times, _ in TEXTS], atol=2e-3)
    assert "left out" not in capsys.readouterr().err


def test_a_cover_stays_and_an_attachment_is_named(tmp_path, capsys):
    source = make_clip(tmp_path / "in.mkv", [Sound("flac")], prepare=add_attachments)
    output = copy(source)
    assert capsys.readouterr().err == "in.mkv: left out: attachment 1 (brush.ttf)\n"
    with av.open(str(output)) as container:
        cover = container.streams.video[1]
        assert cover.disposition & Disposition.attached_pic
        assert [bytes(packet) for packet in container.demux(cover) if packet.size] == [png()]
    assert len(read_video(output).frames) == 50


@pytest.mark.parametrize("name", ["other.webm", "other.mkv", "none.mp4", "language.mkv"])
def test_what_mp4_does_not_hold_is_named(tmp_path, capsys, name):
    """A second video, an unknown codec, an empty track, and a language that is not of ISO 639-2."""
    if name == "other.webm":
        source = make_clip(tmp_path / name, prepare=add_second_video)
        expected = "video 2 (vp9)"
    elif name == "other.mkv":
        source = make_clip(tmp_path / name, [Sound("libopus")])
        source.write_bytes(source.read_bytes().replace(b"A_OPUS", b"A_XPUS"))
        expected = "audio 1 (unknown)"
    elif name == "language.mkv":
        source = make_clip(tmp_path / name, [Sound("aac", tags={"language": "pt-BR"})])
        expected = "language 'pt-BR' of audio 1 (aac), which must have three letters"
    else:
        source = make_clip(tmp_path / name, [Sound("aac", seconds=0)])
        expected = None
    copy(source)
    said = f"{name}: left out: {expected}\n"
    assert capsys.readouterr().err == (said if expected else "")


def add_second_video(container: av.container.OutputContainer) -> None:
    stream = container.add_stream("libvpx-vp9", rate=25)
    stream.width = stream.height = 32
    image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8), format="rgb24")
    image.pts, image.time_base = 0, Fraction(1, 25)
    container.mux([*stream.encode(image), *stream.encode()])


def sei(kind: int, payload: bytes, hevc: bool) -> bytes:
    """A NAL unit with supplemental information for H.264 or HEVC, with emulation prevention."""
    data = bytes([kind, len(payload)]) + payload + b"\x80"
    escaped, zeros = bytearray(), 0
    for byte in data:
        if zeros == 2 and byte <= 3:
            escaped.append(3)
            zeros = 0
        escaped.append(byte)
        zeros = zeros + 1 if byte == 0 else 0
    return b"\x00\x00\x00\x01" + (b"\x4e\x01" if hevc else b"\x06") + bytes(escaped)


def bits(*fields: tuple[int, int]) -> bytes:
    """Pack (value, width) into bytes, filled with zeros."""
    text = "".join(f"{value:0{width}b}" for value, width in fields)
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


# ITU-T T.35 headers and the least content of HDR10+ (SMPTE ST 2094-40) and of closed captions (ATSC A/53).
HDR10_PLUS = b"\xb5\x00\x3c\x00\x01\x04\x01" + bits(
    (1, 2), (0, 27), (0, 1), (100, 17), (100, 17), (100, 17), (50, 17), (0, 4), (0, 10), (0, 1), (0, 1), (0, 1)
)
CAPTIONS = b"\xb5\x00\x31GA94\x03\x41\xff\xfc\x80\x80\xff"


@pytest.mark.parametrize(
    ("codec", "pixel_format", "payload", "lost"),
    [
        ("libx265", "yuv420p10le", HDR10_PLUS, "HDR10+ metadata not kept"),
        ("libx264", "yuv420p", CAPTIONS, "closed captions not kept"),
        ("libx265", "yuv420p12le", None, "12 bits become 10"),
        ("libx264", "yuv420p10le", None, ""),
    ],
)
def test_what_frames_carry_beside_pixels_is_named(tmp_path, capsys, codec, pixel_format, payload, lost):
    is_hevc = codec == "libx265"
    options = {"x265-params": "log-level=none"} if is_hevc else {}
    source = encode(
        tmp_path / ("in.hevc" if is_hevc else "in.h264"), moving_texture(4), codec, pixel_format, options=options
    )
    if payload is not None:
        data = source.read_bytes()
        first = data.index(b"\x00\x00\x01" + (b"\x28\x01" if is_hevc else b"\x65"))  # the first coded picture
        first -= data[first - 1] == 0
        source.write_bytes(data[:first] + sei(4, payload, is_hevc) + data[first:])
    warn_about_losses(source, probe_video(source), has_cover=False)
    assert capsys.readouterr().err == (f"{source.name}: {lost}\n" if lost else "")


def test_the_command_keeps_tracks_and_says_the_rest(tmp_path):
    """A file with everything, as ripping programs write it."""
    sounds = [
        Sound("pcm_s16le", tags={"language": "eng"}),
        Sound("flac", tags={"language": "jpn", "title": "Kaze"}, disposition=Disposition.default),
    ]

    def prepare(container: av.container.OutputContainer) -> None:
        add_chapters(container)
        add_attachments(container)
        container.metadata.update({"title": "Rain", "studio": "none"})

    source = make_clip(tmp_path / "in.mkv", sounds, seconds=1, prepare=prepare)
    result = interpolate(source, tmp_path / "out.mp4")
    assert result.exit_code == 0, result.stderr
    assert declared(tmp_path / "out.mp4") == declared(source)
    assert interpolate(tmp_path / "out.mp4", tmp_path / "again.mp4").exit_code == 0
    assert declared(tmp_path / "again.mp4") == declared(source)
    assert len(chapters_of(tmp_path / "out.mp4")) == 2
    assert "in.mkv: tags not kept beside a cover image: STUDIO\n" in result.stderr
    assert "in.mkv: left out: attachment 1 (brush.ttf)\n" in result.stderr
    assert read_metadata(tmp_path / "out.mp4")["interpolation"]["source"] == "in.mkv"
    assert probe_video(tmp_path / "out.mp4").tags["title"] == "Rain"
