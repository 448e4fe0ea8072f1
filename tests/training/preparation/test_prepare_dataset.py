"""From raw videos to a dataset that trains: what is kept, rejected, captioned and reported; stops and restarts."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from landscape_video.training.data.video_dataset import VideoDataset
from landscape_video.training.preparation.dataset import figures, reject_duplicates, write_card
from pipeline_landscape_video.video_io import probe_video, read_metadata, read_video, write_video
from prepare_dataset import parse_args, run
from processes import wait_for, workers_of
from tiny_models import build_captioner
from video_files import broken_at_the_middle_frame, painted_pan, with_bars, with_text


SCRIPT = Path(__file__).parents[3] / "training" / "prepare_dataset.py"
FPS = 10
# Scenes of 26 frames lose two at either end: 2.2 s are left.
SMALL = ("--min_size", "90", "--workers", "1")


def scene(seed: int, num_frames: int = 26, **size: int) -> np.ndarray:
    return painted_pan(seed, num_frames, speed=1, blot=3, **size)


def write_raw(directory: Path) -> Path:
    """Two good scenes in one video, a copy of the second, faults of every kind, broken files and a text file."""
    (directory / "more").mkdir(parents=True)
    videos = {
        "a.mp4": np.concatenate([scene(0), scene(1)]),
        "bars.mp4": with_bars(scene(2), rows=8),
        "logo.mp4": with_text(scene(3), "INK TV", (70, 14)),
        "more/copy of a.mp4": scene(1) // 4 * 4,
        "more/é <b>.mp4": scene(4),
        "short.mp4": scene(5, 12),
        "small.mp4": scene(6, height=64, width=80),
        "still.mp4": scene(7, 1).repeat(26, axis=0),
        "black.mp4": scene(8) // 8,
    }
    for name, frames in videos.items():
        write_video(directory / name, frames, FPS)
        (directory / name).with_suffix(".txt").write_text(f"\ufeffInk, {name}\n", encoding="utf-8")
    for name, cut in (("cut.mp4", True), ("garbled.mp4", False)):
        (directory / name).write_bytes(broken_at_the_middle_frame(directory / "a.mp4", cut))
    return directory


@pytest.fixture(scope="module")
def raw(tmp_path_factory) -> Path:
    return write_raw(tmp_path_factory.mktemp("raw") / "videos")


@pytest.fixture(scope="module")
def prepared(raw, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("prepared") / "clips"
    assert run([str(raw), "--output_dir", str(output), *SMALL]) == 0
    return output


def rows(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def kept(output: Path) -> list[tuple[str, float]]:
    return [(row["source"], row["start"]) for row in rows(output / "metadata.jsonl")]


def rejected(output: Path) -> dict[str, list[str]]:
    return {
        row["source"]: [reason.split(":")[0] for reason in row["refused"]] for row in rows(output / "refused.jsonl")
    }


def state_of(directory: Path) -> dict[str, tuple[str, int]]:
    files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
    return {str(path): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}


# What is kept


def test_scenes_are_kept_and_faults_rejected_with_their_reason(prepared):
    assert kept(prepared) == [("a.mp4", 0.2), ("a.mp4", 2.8), ("more/é <b>.mp4", 0.2)]
    reasons = rejected(prepared)
    assert reasons == {
        "bars.mp4": ["letterboxed"],
        "black.mp4": ["black"],
        "cut.mp4": ["is cut short"],
        "garbled.mp4": ["cannot be decoded to its end (Invalid data found when processing input)."],
        "logo.mp4": ["watermarked or subtitled"],
        "more/copy of a.mp4": ["duplicate of a.mp4 at 2.80 s"],
        "short.mp4": ["too short"],
        "small.mp4": ["too small"],
        "still.mp4": ["still"],
    }


def test_a_clip_shows_its_scene_without_the_trimmed_frames(prepared):
    row = rows(prepared / "metadata.jsonl")[1]
    clip = read_video(prepared / row["file_name"])
    assert row["num_frames"] == len(clip.frames) == 22 and row["fps"] == 10
    assert (row["width"], row["height"]) == (128, 96) == clip.frames.shape[2:0:-1]
    assert np.abs(clip.frames.astype(int) - scene(1)[2:24]).mean() < 5
    np.testing.assert_allclose(clip.timestamps, np.arange(22) / 10, atol=1e-4)
    metadata = read_metadata(prepared / row["file_name"])
    assert (metadata["source"], metadata["start"], metadata["end"]) == ("a.mp4", 2.8, 5.0)


def test_the_output_trains_as_it_is(prepared):
    videos = VideoDataset(prepared, resolution=32, num_frames=8, stride=3)
    assert videos.captions == [["Ink, a.mp4"], ["Ink, a.mp4"], ["Ink, more/é <b>.mp4"]]
    assert videos.lengths == [22, 22, 22]


def test_nothing_of_the_source_is_changed(tmp_path):
    raw = write_raw(tmp_path / "raw")
    before = state_of(raw)
    assert run([str(raw), "--output_dir", str(tmp_path / "clips"), *SMALL]) == 0
    assert state_of(raw) == before


def test_flags_change_the_clips(raw, tmp_path):
    flags = [*SMALL, "--resolution", "64", "--square", "--crop_bars", "--trim_frames", "0", "--max_seconds", "1.3"]
    flags += ["--min_seconds", "1.2", "--max_hash_distance", "-1", "--max_border_text", "1", "--min_motion", "0"]
    flags += ["--min_brightness", "0", "--cut_threshold", "200"]
    assert run([str(raw), "--output_dir", str(tmp_path / "clips"), *flags]) == 0
    counts = {
        name: sum(source == name for source, _ in kept(tmp_path / "clips")) for name, _ in kept(tmp_path / "clips")
    }
    # The two scenes of a.mp4 are one now, and make four pieces.
    fit = {"bars.mp4": 2, "black.mp4": 2, "logo.mp4": 2, "more/copy of a.mp4": 2, "more/é <b>.mp4": 2, "still.mp4": 2}
    assert counts == {"a.mp4": 4, "short.mp4": 1, **fit} | ({"short.mp4": 1} if "short.mp4" in counts else {})
    for row in rows(tmp_path / "clips" / "metadata.jsonl"):
        info = probe_video(tmp_path / "clips" / row["file_name"])
        assert (info.width, info.height) == (64, 64)
        if row["source"] == "bars.mp4":  # the bars are gone
            assert read_video(tmp_path / "clips" / row["file_name"]).frames[:, [0, -1]].mean(axis=(2, 3)).min() > 20


def test_duplicates_go_by_path_and_pieces_of_a_scene_are_none():
    def clip(source: str, scene: int, *hashes: str) -> dict:
        return {"source": source, "scene": scene, "start": 0.0, "hashes": list(hashes), "refused": []}

    clips = [
        clip("a", 0, "0", "0", "0"),
        clip("a", 0, "0", "0", "1"),
        clip("a", 1, "0", "0", "3"),
        clip("b", 0, "f", "f", "0"),
    ]
    reject_duplicates(clips, max_distance=2.0)
    assert [bool(clip["refused"]) for clip in clips] == [False, False, True, False]
    assert clips[2]["refused"] == ["duplicate of a at 0.00 s: 0.7 bits differ"]
    reject_duplicates(clips[3:], max_distance=64.0)
    reject_duplicates([], max_distance=2.0)
    assert not clips[3]["refused"]


# Captions


def test_captions_come_from_the_table_then_the_sidecar_then_the_model(raw, prepared, tmp_path, caplog):
    model = build_captioner(tmp_path / "captioner")
    first, second, other = (Path(row["file_name"]).name for row in rows(prepared / "metadata.jsonl"))
    table = f'file_name,text\n{first},"for this clip"\nmore/é <b>.mp4,for all clips of it\nnone.mp4,x\n'
    (tmp_path / "captions.csv").write_text(table, encoding="utf-8")
    work = copy_of_videos(raw, tmp_path / "raw", without="a.txt")
    flags = [str(work), "--output_dir", str(tmp_path / "clips"), *SMALL, "--captions", str(tmp_path / "captions.csv")]

    assert run(flags) == 0
    texts = {Path(row["file_name"]).name: row["text"] for row in rows(tmp_path / "clips" / "metadata.jsonl")}
    written = {first: "for this clip", other: "for all clips of it"}
    (copy,) = set(texts) - set(written)  # it has a sidecar, so it stays instead of the clip that has lost its own
    assert texts == written | {copy: "Ink, more/copy of a.mp4"}
    assert (
        rejected(tmp_path / "clips")["a.mp4"] == ["no caption"]
        and "1 captions are for files that are neither a clip nor a video" in caplog.text
    )

    assert run([*flags, "--caption_model", str(model)]) == 0
    said = {Path(row["file_name"]).name: row["text"] for row in rows(tmp_path / "clips" / "metadata.jsonl")}
    assert said == written | {second: said[second]} and said[second]
    (model / "model.safetensors").unlink()  # what it said is remembered
    assert run([*flags, "--caption_model", str(model)]) == 0
    assert {Path(row["file_name"]).name: row["text"] for row in rows(tmp_path / "clips" / "metadata.jsonl")} == said
    assert run([*flags, "--caption_model", str(model), "--caption_prompt", "Other?"]) == 1
    assert "cannot be loaded as an image-text-to-text model" in caplog.text


def copy_of_videos(raw: Path, target: Path, without: str = "") -> Path:
    """The folder again, its files as links."""
    for path in raw.rglob("*"):
        if path.is_file() and path.name != without:
            (target / path.relative_to(raw)).parent.mkdir(parents=True, exist_ok=True)
            os.link(path, target / path.relative_to(raw))
    return target


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("café".encode("latin-1"), "caption: a.txt must be UTF-8"),
        (b"ink\x00", "caption: a caption contains the control character"),
        (b"mist " * 40_000, "caption: a caption must have at most 10000 characters, got 199999"),
        (b"\xef\xbb\xbf \n", "caption: every caption must be a non-empty text"),
    ],
)
def test_an_unreadable_sidecar_rejects_its_clips_only(tmp_path, caption, reason):
    (tmp_path / "raw").mkdir()
    for number, name in enumerate("ab"):
        write_video(tmp_path / "raw" / f"{name}.mp4", scene(number), FPS)
        (tmp_path / "raw" / f"{name}.txt").write_bytes(b"ink")
    (tmp_path / "raw" / "a.txt").write_bytes(caption)
    assert run([str(tmp_path / "raw"), "--output_dir", str(tmp_path / "clips"), *SMALL]) == 0
    (row,) = rows(tmp_path / "clips" / "refused.jsonl")
    assert kept(tmp_path / "clips") == [("b.mp4", 0.2)] and row["refused"][0].startswith(reason)


def test_a_clip_without_a_caption_takes_no_other_with_it(tmp_path):
    (tmp_path / "raw").mkdir()
    for name in "abc":
        write_video(tmp_path / "raw" / f"{name}.mp4", scene(0), FPS)
    (tmp_path / "raw" / "b.txt").write_text("ink")
    flags = [str(tmp_path / "raw"), "--output_dir", str(tmp_path / "clips"), *SMALL]
    assert run(flags) == 0
    assert [name for name, _ in kept(tmp_path / "clips")] == ["b.mp4"]
    assert rejected(tmp_path / "clips") == {"a.mp4": ["no caption"], "c.mp4": ["no caption"]}
    assert run([*flags, "--caption_model", str(build_captioner(tmp_path / "captioner"))]) == 0
    assert [name for name, _ in kept(tmp_path / "clips")] == ["a.mp4"]


# The report and the card


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.pictures, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list) -> None:
        self.pictures += [value for key, value in attributes if key == "src"]
        assert tag != "b"  # of a file name

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def test_the_report_shows_every_clip_with_its_sheet_and_reason(prepared):
    page = Page((prepared / "report.html").read_text(encoding="utf-8"))
    text = " ".join(page.words)
    assert "3 clips kept, 7 rejected" in text and "2 videos could not be read" in text
    assert "Ink, more/é <b>.mp4" in text and "letterboxed: bars of 14.3%, more than 2.0%" in text
    assert len(set(page.pictures)) == 10 == len(list((prepared / "sheets").iterdir()))
    for row in rows(prepared / "metadata.jsonl"):
        assert Path(row["file_name"]).stem in " ".join(path.stem for path in (prepared / "sheets").iterdir())


def test_the_card_has_the_figures_of_the_paper_beside_ours(prepared, tmp_path):
    card = (prepared / "README.md").read_text(encoding="utf-8")
    assert "| clips | 3 | 1298 |" in card and "| most common duration | 2 s (3) | 6 s (1088) |" in card
    assert "| most common resolution | 128 x 96 (3) | 1920 x 1080 (1054) |" in card
    assert "| most common frame rate | 10 fps (3) | 25 fps (1099) |" in card
    assert "3 captioned clips" in card and "cut from 2 videos" in card and "| `max_seconds` | 6.0 |" in card
    assert re.match(r"---\ntask_categories:\n- text-to-video\n", card)
    clips = [
        {
            "source": "a",
            "start": 0,
            "end": end,
            "fps": fps,
            "source_width": 4,
            "source_height": 3,
            "width": 4,
            "height": 3,
        }
        for end, fps in ((6.1, 25.0), (5.9, 24.9975), (2.0, 25.0))
    ]
    assert (
        figures(clips)["most common duration"] == "6 s (2)"
        and figures(clips)["most common frame rate"] == "25 fps (3)"
    )
    write_card(tmp_path / "README.md", clips, {})


# Stops and restarts


def test_a_killed_worker_does_not_end_the_run(raw, prepared, tmp_path):
    output, outcomes = tmp_path / "clips", tmp_path / "clips.work" / "outcomes"
    command = [sys.executable, str(SCRIPT), str(raw), "--output_dir", str(output), *SMALL]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(outcomes.glob("*.json")), process)
        (worker,) = workers_of(process, "spawn_main")
        worker.send_signal(signal.SIGKILL)
        errors = process.stderr.read()
    assert process.returncode == 0 and "A worker was killed" in errors and "Traceback" not in errors
    for name in ("metadata.jsonl", "refused.jsonl"):
        assert (output / name).read_text(encoding="utf-8") == (prepared / name).read_text(encoding="utf-8")


def test_a_stopped_run_resumes_where_it_was(raw, prepared, tmp_path):
    output, outcomes = tmp_path / "clips", tmp_path / "clips.work" / "outcomes"
    command = [sys.executable, str(SCRIPT), str(raw), "--output_dir", str(output), *SMALL]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        wait_for(lambda: list(outcomes.glob("*.json")), process)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
    assert process.returncode == 130 and "Stopped. Finished videos are kept" in errors and "Traceback" not in errors
    done = {path: path.stat().st_mtime_ns for path in outcomes.glob("*.json")}
    assert done and not output.exists()
    assert run(command[2:]) == 0
    for name in ("metadata.jsonl", "refused.jsonl", "report.html", "README.md"):
        assert (output / name).read_text(encoding="utf-8") == (prepared / name).read_text(encoding="utf-8")
    assert all(path.stat().st_mtime_ns == changed for path, changed in done.items())


def test_only_what_changed_is_done_again(tmp_path):
    raw = tmp_path / "raw"
    raw.mkdir()
    for number, name in enumerate("ab"):
        write_video(raw / f"{name}.mp4", scene(number), FPS)
        (raw / f"{name}.txt").write_text("ink")
    flags = [str(raw), "--output_dir", str(tmp_path / "clips"), *SMALL]
    work = tmp_path / "clips.work"

    def changed(*more: str) -> list[str]:
        before = {path: path.stat().st_mtime_ns for path in (work / "outcomes").glob("*")}
        assert run([*flags, *more]) == 0
        return [path.name[0] for path in sorted(before) if path.stat().st_mtime_ns != before[path]]

    assert changed() == [] and changed() == []
    next((work / "clips").glob("a-*")).unlink()
    assert changed() == ["a"]
    write_video(raw / "b.mp4", scene(2), FPS)
    assert changed() == ["b"]
    assert changed("--max_seconds", "5") == ["a", "b"]
    assert len(kept(tmp_path / "clips")) == 2
    (raw / "b.mp4").unlink()
    assert changed("--max_seconds", "5") == [] and kept(tmp_path / "clips") == [("a.mp4", 0.2)]


# The command line


def test_nothing_fit_is_a_failure_that_leaves_its_report(tmp_path, caplog):
    (tmp_path / "raw").mkdir()
    write_video(tmp_path / "raw" / "a.mp4", scene(0, 12), FPS)
    assert run([str(tmp_path / "raw"), "--output_dir", str(tmp_path / "clips"), *SMALL]) == 1
    assert "No clip is left" in caplog.text and rejected(tmp_path / "clips") == {"a.mp4": ["too short"]}
    (tmp_path / "empty").mkdir()
    assert run([str(tmp_path / "empty"), "--output_dir", str(tmp_path / "other")]) == 1
    assert "holds no videos" in caplog.text and not (tmp_path / "other").exists()
    (tmp_path / "captions.csv").write_text("file_name,text\n,a\nb.mp4,\n")
    assert (
        run(
            [
                str(tmp_path / "raw"),
                "--output_dir",
                str(tmp_path / "other"),
                "--captions",
                str(tmp_path / "captions.csv"),
            ]
        )
        == 1
    )
    assert "line 2: `file_name` is missing" in caplog.text and "line 3: every caption" in caplog.text


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--resolution", "8"], "`resolution` must be at least 16, got 8"),
        (["--workers", "0"], "`workers` must be at least 1, got 0"),
        (["--min_motion", "nan"], "`min_motion` must be a finite number, got nan"),
        (["--max_seconds", "1"], "`max_seconds` must be at least 2, got 1.0"),
        (["--cut_threshold", "1"], "`cut_threshold` must be greater than 1, got 1.0"),
        (["--captions", "none.csv"], "`captions` must be an existing file, got none.csv"),
        (["--output_dir", "raw/clips"], "must not contain one another"),
        (["--output_dir", "."], "must not contain one another"),
        (["--output_dir", "taken"], "must be empty or written by an earlier run"),
        (["--resolutoin", "64"], "unrecognized arguments"),
    ],
)
def test_wrong_flags_are_one_line_and_code_2(tmp_path, monkeypatch, capsys, flags, message):
    monkeypatch.chdir(tmp_path)
    for name in ("raw", "taken"):
        Path(name).mkdir()
    Path("taken", "thesis.txt").touch()
    with pytest.raises(SystemExit, match="2"):
        parse_args(["raw", "--output_dir", "clips", *flags])
    assert message in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        parse_args(["nowhere", "--output_dir", "clips"])
    assert "`source_dir` must be a folder" in capsys.readouterr().err
