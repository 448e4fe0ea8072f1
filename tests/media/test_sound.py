"""Sound that people have, carried over: the same channels, in step within 10 ms, at the same level within 0.2 dB.

The clips are made here with PyAV. Delays are measured by cross-correlation of decoded samples, levels by their RMS.
"""

from contextlib import closing
from pathlib import Path

import av
import numpy as np
import pytest
from typer.testing import CliRunner

from landscape_video.cli.main import app
from landscape_video.cli.tracks import TrackCopy
from pipeline_landscape_video.video_io import iterate_video, open_mp4, probe_video
from sound_files import SECONDS, Sound, at_rate, delays_and_levels, make_clip, sound_of


def copy(source: Path) -> Path:
    """Write the frames of a clip and its other tracks to an .mp4, as `interpolate` does without new frames."""
    info, output = probe_video(source), source.with_name("out.mp4")
    with (
        closing(TrackCopy(source)) as tracks,
        open_mp4(output, info.width, info.height, info.fps, info.time_base, has_cover=tracks.has_cover) as writer,
    ):
        tracks.start(writer.container)
        for frame in iterate_video(source):
            tracks.advance(frame.timestamp)
            writer.write(frame.pixels, frame.timestamp, frame.duration)
        tracks.advance()
    return output


def streams_of(path: Path) -> list[tuple[str, str, int]]:
    """Codec, layout and rate of each track of sound."""
    with av.open(str(path)) as container:
        return [
            (stream.codec_context.codec.canonical_name, stream.layout.name, stream.rate)
            for stream in container.streams.audio
        ]


def packets_of(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def check_sound(source: Path, output: Path, track: int = 0) -> None:
    (before, rate), (after, new_rate) = sound_of(source, track), sound_of(output, track)
    assert len(after) == len(before)
    delays, levels = delays_and_levels(at_rate(before, rate, new_rate), after, new_rate)
    assert np.abs(delays).max() < 0.01 and np.abs(levels).max() < 0.2, (delays, levels)


@pytest.mark.parametrize(
    ("suffix", "sound", "layout", "rate"),
    [
        ("mkv", Sound("pcm_f32le"), "stereo", 48000),
        ("mov", Sound("pcm_s24le", 44100, "mono"), "mono", 44100),
        ("mov", Sound("pcm_s16be", 96000), "stereo", 96000),
        ("avi", Sound("pcm_u8", 8000, "mono"), "mono", 8000),
        ("mkv", Sound("pcm_s32le", layout="5.1"), "5.1", 48000),
        ("mkv", Sound("pcm_s16le", layout="7.1"), "7.1", 48000),
    ],
    ids=lambda value: value.codec if isinstance(value, Sound) else None,
)
def test_pcm_becomes_aac_of_the_same_layout(tmp_path, capsys, suffix, sound, layout, rate):
    source = make_clip(tmp_path / f"in.{suffix}", [sound])
    output = copy(source)
    assert streams_of(output) == [("aac", layout, rate)]
    check_sound(source, output)
    said = f"{source.name}: sound that players do not expect in mp4 is encoded: audio 1 ({sound.codec}) as AAC\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("suffix", "sound", "layout", "rate", "change"),
    [
        ("avi", Sound("adpcm_ima_wav", layout="mono"), "mono", 48000, ""),
        ("avi", Sound("adpcm_ima_wav", 6000, "mono"), "mono", 8000, " of 8000 Hz"),
        ("mkv", Sound("wavpack", 192000, "mono"), "mono", 96000, " of 96000 Hz"),
        ("mkv", Sound("wavpack", layout="5.1(side)"), "5.1", 48000, ""),
        ("asf", Sound("wmav2", 44100), "stereo", 44100, ""),
        ("mkv", Sound("wavpack", layout="quad(side)"), "quad", 48000, ""),
    ],
)
def test_other_codecs_become_aac_once(tmp_path, capsys, suffix, sound, layout, rate, change):
    source = make_clip(tmp_path / f"in.{suffix}", [sound])
    output = copy(source)
    assert streams_of(output) == [("aac", layout, rate)]
    check_sound(source, output)
    assert capsys.readouterr().err.endswith(f"({sound.codec}) as AAC{change}\n")


@pytest.mark.parametrize(
    ("suffix", "sound"),
    [
        ("webm", Sound("libopus")),
        ("mkv", Sound("flac", 96000)),
        ("mov", Sound("alac", 44100, "mono")),
        ("ts", Sound("ac3", layout="5.1")),
        ("ts", Sound("aac", layout="mono")),
        ("avi", Sound("libmp3lame", 44100)),
    ],
    ids=lambda value: value.codec if isinstance(value, Sound) else value,
)
def test_what_players_expect_is_copied(tmp_path, capsys, suffix, sound):
    source = make_clip(tmp_path / f"in.{suffix}", [sound])
    output = copy(source)
    assert [name for name, *_ in streams_of(output)] == [name for name, *_ in streams_of(source)]
    check_sound(source, output)
    if (suffix, sound.codec) != ("ts", "aac"):  # whose packets lose their headers
        assert packets_of(output) == packets_of(source)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("suffix", "sound", "start"),
    [
        ("mkv", Sound("pcm_s16le", start=0.7), 0),
        ("mov", Sound("pcm_s24le", seconds=3), 0.48),  # later video, longer sound
        ("mp4", Sound("aac", start=0.3, seconds=1), 0),
        ("mkv", Sound("pcm_s16le", gap=(0.5, 1.2)), 0),
        ("mkv", Sound("flac", gap=(0.5, 1.2)), 0),
        ("mkv", Sound("wavpack", gap=(0.5, 1.2)), 0),
    ],
)
def test_starts_lengths_and_gaps_stay(tmp_path, suffix, sound, start):
    source = make_clip(tmp_path / f"in.{suffix}", [sound], start)
    output = copy(source)
    check_sound(source, output)
    assert next(iterate_video(output)).timestamp == pytest.approx(start, abs=1e-3)
    (before, rate), (after, new_rate) = sound_of(source), sound_of(output)
    assert after.shape[1] / new_rate == pytest.approx(before.shape[1] / rate, abs=0.04)


@pytest.mark.parametrize("codec", ["aac", "mp2", "ac3"])
def test_the_sound_of_joined_files_stays_in_step_with_their_video(tmp_path, codec):
    # The sound of each part ends 0.1 s before its video.
    part = make_clip(tmp_path / "part.ts", [Sound(codec, seconds=SECONDS - 0.1)])
    (tmp_path / "joined.ts").write_bytes(part.read_bytes() * 3)
    output = copy(tmp_path / "joined.ts")
    times = [float(frame.timestamp) for frame in iterate_video(output)]
    (alone, rate), (sound, _) = sound_of(part), sound_of(output)
    with av.open(str(part)) as container:
        first = next(container.decode(video=0))
        lead = float(first.pts * first.time_base) - container.start_time / av.time_base
    for number in range(3):
        shift = round((times[number * len(times) // 3] - lead) * rate)
        length = min(alone.shape[1], round((SECONDS - 0.2) * rate) + rate)
        expected = alone[:, rate:length]
        heard = sound[:, shift + rate : shift + length]
        delays, levels = delays_and_levels(expected[:, : heard.shape[1]], heard, rate)
        assert np.abs(delays).max() < 0.01 and np.abs(levels).max() < 0.2


def test_joined_aac_of_different_channels_is_encoded(tmp_path, capsys):
    parts = [
        make_clip(tmp_path / f"{layout}.ts", [Sound("aac", rate, layout)])
        for layout, rate in (("stereo", 48000), ("mono", 44100))
    ]
    (tmp_path / "in.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    output = copy(tmp_path / "in.ts")
    assert "audio 1 (aac) as AAC\n" in capsys.readouterr().err
    for number, part in enumerate(parts):
        (before, before_rate), (after, rate) = sound_of(part), sound_of(output)
        before = at_rate(before, before_rate, rate)[:1, rate + rate // 2 : 2 * rate + rate // 2]
        heard = after[:1, SECONDS * number * rate :][:, rate + rate // 2 : 2 * rate + rate // 2]
        delays, levels = delays_and_levels(before, heard, rate)
        # Mono is 3 dB lower in each of two channels. A part may begin up to two frames of video after the one before.
        assert np.abs(delays).max() < 0.09 and np.abs(levels + 3.01 * number).max() < 0.2


def test_several_tracks_are_each_copied_or_encoded(tmp_path, capsys):
    sounds = [Sound("pcm_s16le"), Sound("flac", 44100, "mono"), Sound("libopus", layout="5.1")]
    source = make_clip(tmp_path / "in.mkv", sounds)
    output = copy(source)
    assert [name for name, *_ in streams_of(output)] == ["aac", "flac", "opus"]
    for track in range(3):
        check_sound(source, output, track)
    assert "audio 1 (pcm_s16le) as AAC\n" in capsys.readouterr().err


def test_damaged_sound_is_silent_where_it_is_damaged_and_said(tmp_path, capsys):
    whole = make_clip(tmp_path / "whole.avi", [Sound("adpcm_ms", layout="mono")])
    damaged = packets_of(whole)[20]
    source = tmp_path / "in.avi"
    source.write_bytes(whole.read_bytes().replace(damaged, b"\xff" * len(damaged)))
    output = copy(source)
    assert "in.avi: audio 1 (adpcm_ms) has 1 damaged packets, which are silent\n" in capsys.readouterr().err
    (before, rate), (after, _) = sound_of(whole), sound_of(output)
    last = slice(rate + rate, rate + round(SECONDS * rate) - 2000)  # of the second second, after the damage
    delays, levels = delays_and_levels(before[:, last], after[:, last], rate)
    assert np.abs(delays).max() < 0.01 and np.abs(levels).max() < 0.2


@pytest.mark.parametrize(
    ("suffix", "sounds"),
    [("mkv", [Sound("pcm_f32le", gap=(0.4, 0.9))]), ("mov", [Sound("pcm_s24le", 44100, "mono")]), ("webm", [])],
)
def test_the_command_keeps_sound_in_step(tmp_path, suffix, sounds):
    source = make_clip(tmp_path / f"in.{suffix}", sounds)
    arguments = ["interpolate", str(source), str(tmp_path / "out.mp4"), "--flow", "dis", "--keep-duplicates"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.stderr
    assert len(streams_of(tmp_path / "out.mp4")) == len(sounds)
    for track in range(len(sounds)):
        check_sound(source, tmp_path / "out.mp4", track)
