"""`landscape-video interpolate` on files of every awkward kind."""

import weakref
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torchvision.models.optical_flow import raft_small
from typer.testing import CliRunner, Result

from known_motion import moving_noise
from landscape_video.cli.interpolate import to_tensor
from landscape_video.cli.main import app
from pipeline_landscape_video.video_io import iterate_video, probe_video, read_metadata, read_video, write_video
from processes import largest_files
from video_files import half_of, make_video, moving_frames, quadrants


def interpolate(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["interpolate", *map(str, arguments), "--flow", "dis", "--device", "cpu"])


def audio_packets(path: Path) -> list[tuple[float, bytes]]:
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.dts is not None]
        return [(float(packet.pts * packet.time_base), bytes(packet)) for packet in packets]


def gray_difference(a: np.ndarray, b: np.ndarray) -> float:
    """Mean difference of brightness away from the edges; color is stored at half the size."""
    return float(np.abs(a.mean(axis=-1) - b.mean(axis=-1))[8:-8, 8:-8].mean())


@pytest.mark.parametrize("times", [1, 2, 3])
def test_the_frame_rate_is_multiplied_and_the_originals_stay(tmp_path, times):
    frames = moving_frames(10, speed=8)
    source = make_video(tmp_path / "in.mp4", frames, fps=10)
    result = interpolate(source, tmp_path / "out.mp4", "--times", times)
    assert result.exit_code == 0, result.stderr
    clip = read_video(tmp_path / "out.mp4")
    assert len(clip.frames) == 9 * 2**times + 1
    np.testing.assert_allclose(clip.timestamps, np.arange(len(clip.frames)) / 10 / 2**times, atol=1e-6)
    kept = clip.frames[:: 2**times].astype(float)
    assert np.abs(kept - read_video(source).frames).mean() < 5
    assert probe_video(tmp_path / "out.mp4").duration == pytest.approx(1.0, abs=2e-3)  # as long as the source
    # The picture slides by 8 pixels a frame: half-way it has slid by 4.
    middle = clip.frames[4 * 2**times + 2 ** (times - 1)]
    distances = [gray_difference(middle, np.roll(frames[4], shift, axis=1)) for shift in range(9)]
    assert np.argmin(distances) == 4
    # A blend of both frames would be there as well, but pale: red would keep cos(4 / 5) = 0.7 of its contrast.
    assert middle[..., 0].std() > 0.9 * frames[4][..., 0].std()


def test_variable_frame_rate_stays_and_is_filled_evenly(tmp_path):
    times = [Fraction(t, 100) for t in (0, 10, 14, 40, 44, 80)]
    source = make_video(tmp_path / "in.mp4", moving_frames(6), timestamps=times)
    assert interpolate(source, tmp_path / "out.mp4", "--times", 2).exit_code == 0
    written = [frame.timestamp for frame in iterate_video(tmp_path / "out.mp4")]
    wanted = [a + (b - a) * step / 4 for a, b in zip(times, times[1:], strict=False) for step in range(4)]
    assert written == [*wanted, times[-1]]


@pytest.mark.parametrize(("name", "codec"), [("in.mp4", "aac"), ("in.mkv", "libopus"), ("in.mov", "libmp3lame")])
def test_sound_is_carried_over_as_it_is(tmp_path, name, codec):
    source = make_video(tmp_path / name, moving_frames(12), audio=codec)
    assert interpolate(source, tmp_path / "out.mp4").exit_code == 0
    before, after = audio_packets(source), audio_packets(tmp_path / "out.mp4")
    assert [data for _, data in after] == [data for _, data in before]
    np.testing.assert_allclose([time for time, _ in after], [time for time, _ in before], atol=2e-3)


def test_sound_that_mp4_does_not_take_is_encoded_anew(tmp_path):
    source = make_video(tmp_path / "in.mkv", moving_frames(12), audio="pcm_u8")
    assert interpolate(source, tmp_path / "out.mp4").exit_code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        sound = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    assert len(sound) == pytest.approx(1.2 * 48000, abs=6000)
    spectrum = np.abs(np.fft.rfft(sound[4800:52800]))
    assert spectrum.argmax() == pytest.approx(440, abs=2)  # one second: bins of 1 Hz


def test_a_transport_stream_keeps_sound_and_picture_together(tmp_path):
    source = make_video(tmp_path / "in.ts", moving_frames(12), audio="aac")
    with av.open(str(source)) as container:
        starts = [stream.start_time * stream.time_base for stream in container.streams]
    assert interpolate(source, tmp_path / "out.mp4").exit_code == 0
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]
        new_starts = [stream.start_time * stream.time_base for stream in container.streams]
    assert min(new_starts) < 0.1
    assert float(new_starts[0] - new_starts[1]) == pytest.approx(float(starts[0] - starts[1]), abs=2e-3)
    assert len(read_video(tmp_path / "out.mp4").frames) == 23


def test_rotation_and_pixel_aspect_are_applied_and_not_applied_twice(tmp_path):
    source = make_video(tmp_path / "in.mp4", [quadrants()] * 4, rotation=90, pixel_aspect=Fraction(2))
    assert interpolate(source, tmp_path / "out.mp4").exit_code == 0
    clip = read_video(tmp_path / "out.mp4")
    assert clip.frames.shape == (7, 128, 48, 3)
    upright = np.rot90(quadrants(48, 128))
    assert np.abs(clip.frames - upright.astype(float)).mean() < 6
    with av.open(str(tmp_path / "out.mp4")) as container:
        frame = next(container.decode(video=0))
        assert (frame.width, frame.height, frame.rotation) == (48, 128, 0)


def night(frames: list[np.ndarray]) -> list[np.ndarray]:
    return [(255 - frame) // 2 for frame in frames]


def test_nothing_is_blended_across_a_cut(tmp_path):
    source = make_video(tmp_path / "in.mp4", moving_frames(6) + night(moving_frames(6)))
    assert interpolate(source, tmp_path / "out.mp4", "--times", 2).exit_code == 0
    written = read_video(tmp_path / "out.mp4").frames.astype(float)
    assert len(written) == 45
    originals = read_video(source).frames.astype(float)
    for frame in written[21:24]:  # between the last frame of one scene and the first of the next
        assert min(np.abs(frame - originals[5]).mean(), np.abs(frame - originals[6]).mean()) < 4
    blend = (originals[5] + originals[6]) / 2
    assert min(np.abs(frame - blend).mean() for frame in written) > 15


def test_tags_and_metadata_are_carried_over_and_the_settings_added(tmp_path):
    tags = {"title": "River", "landscape_video": '{"prompt": "a river", "seed": 3}'}
    options = {"movflags": "use_metadata_tags"}
    source = make_video(tmp_path / "in.mp4", moving_frames(4), tags=tags, options=options)
    assert interpolate(source, tmp_path / "out.mp4", "--sofp-mode", "linear").exit_code == 0
    metadata = read_metadata(tmp_path / "out.mp4")
    assert (metadata["prompt"], metadata["seed"], metadata["fps"]) == ("a river", 3, 20.0)
    settings = metadata["interpolation"]
    assert (settings["source"], settings["times"], settings["sofp_mode"]) == ("in.mp4", 1, "linear")
    assert settings["flow"] == "dis" and settings["threads"] >= 1 and "torch" in settings["versions"]
    assert probe_video(tmp_path / "out.mp4").tags["title"] == "River"


def test_flow_comes_from_the_weights_of_a_file(tmp_path):
    torch.manual_seed(0)
    weights = tmp_path / "raft.safetensors"
    save_file(raft_small().state_dict(), weights)  # random, but of the kind
    source = make_video(tmp_path / "in.mp4", moving_frames(3))
    arguments = ["--flow-weights", str(weights), "--device", "cpu"]
    result = CliRunner().invoke(app, ["interpolate", str(source), str(tmp_path / "raft.mp4"), *arguments])
    assert result.exit_code == 0, result.stderr
    settings = read_metadata(tmp_path / "raft.mp4")["interpolation"]
    assert (settings["flow"], settings["flow_weights"]) == ("raft-small", str(weights))
    assert interpolate(source, tmp_path / "dis.mp4").exit_code == 0
    by_raft, by_dis = (read_video(tmp_path / name).frames.astype(float) for name in ("raft.mp4", "dis.mp4"))
    assert np.abs(by_raft - by_dis)[1].mean() > 2 * np.abs(by_raft - by_dis)[0].mean()


def test_a_single_frame_and_odd_sizes(tmp_path):
    source = make_video(tmp_path / "one.mp4", moving_frames(1))
    assert interpolate(source, tmp_path / "out.mp4").exit_code == 0
    assert len(read_video(tmp_path / "out.mp4").frames) == 1
    source = make_video(tmp_path / "odd.mp4", moving_frames(3), pixel_aspect=Fraction(65, 64))
    assert read_video(source).frames.shape == (3, 48, 65, 3)
    assert interpolate(source, tmp_path / "out.mp4").exit_code == 0
    assert read_video(tmp_path / "out.mp4").frames.shape == (5, 48, 66, 3)


@pytest.mark.parametrize(
    ("source", "arguments", "message"),
    [
        ("none.mp4", ["out.mp4"], "none.mp4: no such file"),
        ("text.mp4", ["out.mp4"], "text.mp4: not a video"),
        ("short_in.mp4", ["out.mp4"], "short_in.mp4: "),
        ("short_in.mkv", ["out.mp4"], "short_in.mkv: is cut short"),
        ("in.mp4", ["in.mp4"], "is the input"),
        ("in.mp4", ["out.gif"], "must be an .mp4 file"),
        ("in.mp4", ["out.avi"], "got '.avi'"),
        ("in.mp4", ["none/out.mp4"], "does not exist"),
        ("in.mp4", ["out.mp4", "--times", "4"], "--times"),
        ("in.mp4", ["out.mp4", "--sofp-mode", "cubic"], "--sofp-mode"),
        ("in.mp4", ["out.mp4", "--times", "0"], "--times"),
        ("in.mp4", ["out.mp4", "--flow-weights", "none.pth"], "--flow-weights must be a file, got none.pth"),
        ("in.mp4", ["out.mp4", "--flow-weights", "text.mp4"], "text.mp4 must hold weights"),
        ("in.mp4", [], "Missing argument"),
    ],
)
def test_wrong_input_is_one_line_and_writes_nothing(tmp_path, monkeypatch, source, arguments, message):
    monkeypatch.chdir(tmp_path)
    make_video("in.mp4", moving_frames(30), options={"movflags": "+faststart"})
    half_of(Path("in.mp4"), 0.7)
    half_of(make_video("in.mkv", moving_frames(30)))
    Path("text.mp4").write_text("no video")
    before = {path: path.read_bytes() for path in Path().iterdir()}
    result = CliRunner().invoke(app, ["interpolate", source, *arguments, "--device", "cpu"])
    assert result.exit_code == 2
    errors = [line for line in result.stderr.splitlines() if line.startswith("landscape-video: ")]
    assert len(errors) == 1 and message in errors[0] and result.stderr.rstrip().endswith(errors[0])
    assert "Traceback" not in result.output
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (6, 128, 128, 3), dtype=np.uint8)
    source = make_video(tmp_path / "in.mp4", list(noise))
    with largest_files(30_000):
        result = interpolate(source, tmp_path / "out.mp4")
    assert result.exit_code == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("landscape-video: ") and "File too large" in last
    assert list(tmp_path.iterdir()) == [source]


def test_memory_does_not_grow_with_the_length(tmp_path, monkeypatch):
    """Every frame that is read becomes a tensor: counts how many of these are alive at once."""
    alive, peaks = weakref.WeakSet(), []

    def counted(pixels: np.ndarray, device: object) -> object:
        tensor = to_tensor(pixels, device)
        alive.add(tensor)
        peaks[-1] = max(peaks[-1], len(alive))
        return tensor

    monkeypatch.setattr("landscape_video.cli.interpolate.to_tensor", counted)
    for num_frames in (60, 180):
        source = make_video(tmp_path / "in.mp4", moving_frames(12, 16, 24) * (num_frames // 12), audio="aac")
        peaks.append(0)
        assert interpolate(source, tmp_path / "out.mp4", "--sofp-mode", "linear").exit_code == 0
        assert len(alive) == 0
    assert 0 < peaks[0] == peaks[1] < 60


def on_threes(num_pictures: int) -> list[np.ndarray]:
    return [frame for frame in moving_frames(num_pictures, speed=6) for _ in range(3)]


def test_animation_on_threes_moves_between_its_pictures(tmp_path):
    source = make_video(tmp_path / "in.mp4", on_threes(6), fps=24)
    result = interpolate(source, tmp_path / "out.mp4")
    assert result.exit_code == 0, result.stderr
    assert "in.mp4: 10 of 18 frames repeat pictures, held for 3 frames; --keep-duplicates keeps them" in result.stderr
    assert read_metadata(tmp_path / "out.mp4")["interpolation"]["repeated_frames"] == 10
    clip = read_video(tmp_path / "out.mp4")
    assert len(clip.frames) == 35
    np.testing.assert_allclose(clip.timestamps, np.arange(35) / 48, atol=1e-4)
    evenly = moving_frames(36, speed=1)
    for index, frame in enumerate(clip.frames[:31]):
        assert gray_difference(frame, evenly[index]) < 6


def test_duplicates_are_kept_on_request(tmp_path):
    source = make_video(tmp_path / "in.mp4", on_threes(4), fps=24)
    result = interpolate(source, tmp_path / "out.mp4", "--keep-duplicates")
    assert result.exit_code == 0 and "repeat" not in result.stderr
    kept = read_video(tmp_path / "out.mp4").frames[::2].astype(float)
    assert np.abs(kept - read_video(source).frames).mean() < 5


def test_a_scene_on_threes_stands_until_the_cut(tmp_path):
    source = make_video(tmp_path / "in.mp4", on_threes(4) + night(on_threes(4)), fps=24)
    assert interpolate(source, tmp_path / "out.mp4").exit_code == 0
    written, originals = read_video(tmp_path / "out.mp4").frames, read_video(source).frames
    assert len(written) == 47
    for index, shown in ((20, 11), (22, 11), (23, 11), (24, 12)):
        assert gray_difference(written[index], originals[shown]) < 3


def test_a_folder_of_videos_is_interpolated_and_bad_files_are_named(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for name in ("a.mp4", "b.gif", "frames", "c.mp4", "c.webp"):
        write_video(raw / name, moving_noise(1)[:3, :64, :64], 8)
    (raw / "d.mp4").write_text("mist")
    (raw / "e.mkv").write_bytes((raw / "a.mp4").read_bytes()[:900])
    (raw / "notes.pdf").touch()
    result = interpolate(raw, tmp_path / "out")
    assert result.exit_code == 1, result.stderr
    made = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert made == ["a.mp4", "b.mp4", "c.mp4.mp4", "c.webp.mp4", "frames.mp4"]
    assert all(probe_video(tmp_path / "out" / name).num_frames == 5 for name in made)
    errors = [line for line in result.stderr.splitlines() if line.startswith("landscape-video: ")]
    assert [line.split(": ")[1] for line in errors] == [str(raw / "d.mp4"), str(raw / "e.mkv")]
    assert "1 of .pdf" in result.stderr and "out: 5 of 7 videos" in result.stdout
