"""Whole evaluations: folders and painted clips side by side, going on after a stop, shared by two processes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from known_motion import moving_noise
from landscape_video.evaluation.evaluate import Plan, evaluate, start_processes
from landscape_video.evaluation.metrics.distribution_metrics import frechet_distance
from landscape_video.evaluation.metrics.measurements import MeasuredClip, MetricModels, measure_clip
from landscape_video.evaluation.metrics.motion_metrics import measure_flow
from landscape_video.evaluation.results import read_results
from landscape_video.evaluation.systems.clips import clip_seed, list_clips
from landscape_video.evaluation.systems.text_to_video import DEFAULTS, SystemSpec
from pipeline_landscape_video.video_io import read_metadata, read_video, write_video
from processes import launch


PROMPTS = ("misty mountains", "a boat over the river")
FRAMES = 4


@pytest.fixture(scope="module")
def metric_models() -> MetricModels:
    return MetricModels.load()


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """moving/ (three clips with their prompts inside) and truth/ (four with captions beside them or in a table)."""
    folder = tmp_path_factory.mktemp("clips")
    for name in ("moving", "truth"):
        (folder / name).mkdir()
    for speed in range(3):
        metadata = {"prompt": f"mist {speed}", "seed": speed}
        write_video(folder / "moving" / f"{speed}.mp4", moving_noise(speed)[:, :64, :64], 8, metadata)
    for speed in range(4):
        write_video(folder / "truth" / f"{speed}.mp4", moving_noise(speed)[:, -64:, -64:], 8)
    (folder / "truth" / "0.txt").write_text("mist beside", encoding="utf-8")
    rows = [json.dumps({"file_name": f"{speed}.mp4", "text": f"mist of the table {speed}"}) for speed in range(1, 4)]
    (folder / "truth" / "metadata.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return folder


def plan_for(output: Path, clips: Path, models: Path | None = None, **changes) -> Plan:
    systems = ()
    if models is not None:
        settings = replace(DEFAULTS, num_frames=FRAMES, steps=1)
        systems = (SystemSpec("ours", "landscape", str(models / "video"), settings=settings),)
    arguments = {
        "output": output,
        "folders": {"moving": clips / "moving"},
        "reference": clips / "truth",
        "num_frames": FRAMES,
    }
    return Plan(**(arguments | {"systems": systems, "prompts": PROMPTS} | changes))


def features_of(frames: np.ndarray, metric_models: MetricModels) -> np.ndarray:
    return measure_clip(MeasuredClip(frames, metric_models)).vectors["features"]


def files_of(output: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in output.rglob("*") if path.suffix in (".mp4", ".npz")}


def test_folders_painted_clips_still_and_reference_side_by_side(metric_models, clips, models, tmp_path):
    results = evaluate(plan_for(tmp_path / "out", clips, models), metric_models)
    assert read_results(tmp_path / "out") == results
    rows = {system.name: system for system in results.systems}
    assert {name: row.kind for name, row in rows.items()} == {
        "ours": "generated",
        "moving": "folder",
        "still": "still",
        "reference": "reference",
    }
    # What was painted carries all that made it, and was measured from its file.
    ours = rows["ours"]
    assert [clip.prompt for clip in ours.clips] == list(PROMPTS)
    assert [clip.seed for clip in ours.clips] == [clip_seed(0, 0, index) for index in (0, 1)]
    painted = tmp_path / "out" / ours.clips[0].file
    metadata = read_metadata(painted)
    assert metadata["prompt"] == PROMPTS[0] and metadata["system"]["steps"] == 1
    assert ours.seconds_per_clip > 0 and ours.peak_memory_gib >= 0
    frames = read_video(painted).frames
    assert ours.clips[0].metrics["dynamic degree"] == pytest.approx(measure_flow(frames).dynamic_degree)
    assert "CLIP-text[shanshui-clip]" in ours.metrics
    # The still row is the first frame of what was painted, and does not move.
    assert rows["still"].metrics["flicker"].value == 0
    assert rows["still"].metrics["CLIP-temp[shanshui-clip]"].value == pytest.approx(1)
    still = read_video(tmp_path / "out" / rows["still"].clips[0].file).frames
    assert len(still) == FRAMES and np.abs(still[-1].astype(int) - frames[0]).mean() < 8
    # Folders: seeds and prompts from inside, captions beside clips and from the table.
    assert [(clip.prompt, clip.seed) for clip in rows["moving"].clips] == [(f"mist {n}", n) for n in range(3)]
    assert [clip.prompt for clip in rows["reference"].clips][:2] == ["mist beside", "mist of the table 1"]
    assert [Path(tmp_path / "out" / clip.file).resolve() for clip in rows["moving"].clips][0] == (
        clips / "moving" / "0.mp4"
    )
    # FVD is that of the features of the same frames.
    features = [
        np.stack([features_of(read_video(file).frames[:FRAMES], metric_models) for file in sorted(folder)])
        for folder in ((clips / "moving").glob("*.mp4"), (clips / "truth").glob("*.mp4"))
    ]
    assert rows["moving"].metrics["FVD4[shanshui-clip]"].value == pytest.approx(frechet_distance(*features))
    assert "FVD4[shanshui-clip]" not in rows["reference"].metrics
    # The protocol says what the numbers depend on; the table shows them.
    protocol = results.protocol
    assert protocol["clips"] == "ours 2; moving 3; still 2; reference 4" and "64 x 64" in protocol["size"]
    for name, part in (
        ("CLIP", metric_models.clip.sha256),
        ("versions", "torch "),
        ("device", "cpu"),
        ("ours", "sha256"),
        ("ours", "; 4 frames sampled"),
    ):
        assert part in protocol[name]
    assert protocol["ours"].endswith("; 4 frames sampled")
    table = (tmp_path / "out" / "results.md").read_text(encoding="utf-8")
    assert "| moving (3) | " in table and "FVD4[shanshui-clip] ↓" in table and f"- CLIP: {protocol['CLIP']}" in table


def test_nothing_is_done_twice(metric_models, clips, models, tmp_path):
    first = evaluate(plan_for(tmp_path, clips, models), metric_models)
    made = files_of(tmp_path)
    assert len(made) == 2 + 2 + 11  # painted, stills, measured
    assert evaluate(plan_for(tmp_path, clips, models), metric_models) == first and files_of(tmp_path) == made
    # One measurement is lost, then one clip: only that is made again.
    lost = next(path for path in made if path.suffix == ".npz")
    lost.unlink()
    assert evaluate(plan_for(tmp_path, clips, models), metric_models) == first
    assert {path for path, time in files_of(tmp_path).items() if made.get(path) != time} == {lost}
    painted = sorted(path for path in made if path.parent.name.startswith("ours-"))
    painted[0].unlink()
    again = evaluate(plan_for(tmp_path, clips, models), metric_models)
    assert [system.metrics for system in again.systems] == [system.metrics for system in first.systems]
    assert painted[0].stat().st_mtime_ns != made[painted[0]] and painted[1].stat().st_mtime_ns == made[painted[1]]
    # Other settings are other clips; more prompts and repeats add to those that are there.
    more = evaluate(plan_for(tmp_path, clips, models, prompts=(*PROMPTS, "rain"), repeats=2), metric_models)
    assert len(more.systems[0].clips) == 6 and painted[1].stat().st_mtime_ns == made[painted[1]]
    other = SystemSpec(
        "ours", "landscape", str(models / "video"), settings=replace(DEFAULTS, num_frames=FRAMES, steps=2)
    )
    evaluate(plan_for(tmp_path, clips, systems=(other,)), metric_models)
    assert len([path for path in (tmp_path / "clips").iterdir() if path.name.startswith("ours-")]) == 2


def test_a_run_that_was_stopped_goes_on(metric_models, clips, models, tmp_path, monkeypatch):
    from landscape_video.evaluation.systems.text_to_video import Landscape

    generate, painted = Landscape.generate, []

    def stopped(self, prompt: str, seed: int) -> np.ndarray:
        if painted:
            raise KeyboardInterrupt
        painted.append(prompt)
        return generate(self, prompt, seed)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Landscape, "generate", stopped)
        evaluate(plan_for(tmp_path, clips, models), metric_models)
    (first,) = files_of(tmp_path).items()
    assert not (tmp_path / "results.json").exists()
    results = evaluate(plan_for(tmp_path, clips, models), metric_models)
    assert first[0].stat().st_mtime_ns == first[1] and len(results.systems[0].clips) == 2


def test_pictures_that_clips_were_made_from(metric_models, clips, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for speed in range(3):
        Image.fromarray(read_video(clips / "moving" / f"{speed}.mp4").frames[0]).save(images / f"{speed}.png")
    results = evaluate(plan_for(tmp_path / "out", clips, images=images, reference=None), metric_models)
    assert results.systems[0].metrics["FFF-SSIM"].value == pytest.approx(1)
    assert results.systems[0].metrics["FFF-CLIP[shanshui-clip]"].value == pytest.approx(1)
    assert "FVD (needs --reference, 2 clips)" in results.protocol["not measured"]


@pytest.mark.parametrize("fault", ["no image", "no picture", "another shape", "damaged", "too short", "text"])
def test_a_bad_file_is_named_and_the_others_are_measured(metric_models, clips, tmp_path, caplog, fault):
    folder, images = tmp_path / "clips", tmp_path / "images"
    shutil.copytree(clips / "moving", folder)
    images.mkdir()
    for number in range(3):
        Image.fromarray(read_video(folder / f"{number}.mp4").frames[0]).save(images / f"{number}.png")
    data = (folder / "1.mp4").read_bytes()
    message = {
        "no image": "images: contains no image 1.png for 1.mp4.",
        "no picture": "1.png: not a usable image",
        "another shape": "1.mp4: the image must have the aspect ratio of the clip, 64 x 64, got 64 x 32",
        "damaged": "1.mp4: has no video; its index is missing",
        "too short": "1.mp4: has 2 frames, but 4 at stride 1 need 4.",
        "text": "1.mp4: not a video that can be read (it is text).",
    }[fault]
    if fault == "no image":
        (images / "1.png").unlink()
    elif fault == "no picture":
        (images / "1.png").write_text("no picture")
    elif fault == "another shape":
        Image.new("RGB", (64, 32)).save(images / "1.png")
    elif fault == "damaged":
        (folder / "1.mp4").write_bytes(data[:40])
    elif fault == "too short":
        write_video(folder / "1.mp4", moving_noise(1)[:2, :64, :64], 8)
    else:
        (folder / "1.mp4").write_text("mist")
    plan = plan_for(tmp_path / "out", clips, folders={"given": folder}, images=images, reference=None)
    results = evaluate(plan, metric_models)
    assert [Path(clip.file).name for clip in results.systems[0].clips] == ["0.mp4", "2.mp4"]
    assert results.protocol["clips"].startswith("given 2") and results.protocol["files"] == "given 2 .mp4"
    assert len([record for record in caplog.records if message in record.getMessage()]) == 1


def test_clips_without_prompts_are_measured_and_said(metric_models, clips, tmp_path):
    silent = tmp_path / "silent"
    silent.mkdir()
    write_video(silent / "a.mp4", moving_noise(1)[:, :64, :64], 8)
    results = evaluate(plan_for(tmp_path / "out", clips, folders={"silent": silent}, reference=None), metric_models)
    assert "CLIP-text[shanshui-clip]" not in results.systems[0].metrics
    assert "CLIP-text (needs a prompt)" in results.protocol["not measured"]


def test_a_caption_that_is_no_utf_8_is_named(tmp_path):
    write_video(tmp_path / "0.mp4", moving_noise(1)[:FRAMES, :64, :64], 8)
    (tmp_path / "0.txt").write_bytes("雾".encode("gbk"))
    with pytest.raises(ValueError, match=r"0\.txt: must be UTF-8 text"):
        list_clips(tmp_path, FRAMES, 1)


def test_stride_takes_other_frames_of_folders(metric_models, clips, tmp_path):
    moving = {"moving": clips / "moving"}
    one = evaluate(plan_for(tmp_path, clips, folders=moving, reference=None, num_frames=2), metric_models)
    two = evaluate(plan_for(tmp_path, clips, folders=moving, reference=None, num_frames=2, stride=2), metric_models)
    degrees = [results.systems[0].clips[1].metrics["dynamic degree"] for results in (one, two)]
    assert degrees[1] == pytest.approx(2 * degrees[0], rel=0.3)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"folders": {}}, "nothing to evaluate"),
        ({"folders": {"still": Path("moving")}}, "names of systems must differ, got 'still' twice"),
        ({"folders": {"none": Path("none")}}, "none: no such folder"),
        ({"folders": {"empty": Path("empty")}}, "empty: contains no videos"),
        ({"num_frames": 7}, "0.mp4: has 6 frames, but 7 at stride 1 need 7"),
        ({"stride": 2}, "0.mp4: has 6 frames, but 4 at stride 2 need 7"),
        ({"reference": Path("broken")}, "broken/x.mp4"),
        ({"reference": Path("tables")}, "metadata.jsonl, line 1: must be"),
        ({"images": Path("none")}, "none: no such folder"),
        ({"output": Path("broken/x.mp4")}, "`output` must be a folder, got the file broken/x.mp4"),
        ({"systems": (SystemSpec("ours", "landscape", "shanshui-tiny"),), "prompts": ()}, "a model needs prompts"),
        ({"systems": (SystemSpec("ours", "landscape", "./none"),)}, "ours: ./none: no such file or folder"),
    ],
)
def test_wrong_input_is_seen_before_anything_is_made(metric_models, clips, tmp_path, monkeypatch, changes, problem):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "broken", "tables"):
        Path(name).mkdir()
    Path("broken/x.mp4").write_bytes(b"no video")
    write_video(Path("tables/a.mp4"), moving_noise(1)[:, :64, :64], 8)
    Path("tables/metadata.jsonl").write_text('{"file": "a.mp4"}')
    with pytest.raises((ValueError, FileNotFoundError), match=problem):
        evaluate(plan_for(**({"output": Path("out"), "clips": clips} | changes)), metric_models)
    assert not Path("out").exists()


def evaluate_as_launched(clips: Path, models: Path, output: Path) -> None:
    state = start_processes("cpu")
    results = evaluate(plan_for(output, clips, models), MetricModels.load(), state.device, state)
    assert (results is not None) == state.is_main_process


def test_two_processes_share_the_clips_and_find_what_one_does(clips, models, tmp_path):
    launch(2, evaluate_as_launched, clips, models, tmp_path / "two")
    launch(1, evaluate_as_launched, clips, models, tmp_path / "one")
    together, alone = read_results(tmp_path / "two"), read_results(tmp_path / "one")
    assert [system.metrics for system in together.systems] == [system.metrics for system in alone.systems]
    assert "2 process(es)" in together.protocol["device"]
