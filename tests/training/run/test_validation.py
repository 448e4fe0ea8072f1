"""Validation clips are written and measured, and trouble is described."""

import json
from pathlib import Path

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from landscape_video.training.run.validation import describe_trouble
from pipeline_landscape_video.video_io import iterate_video
from training_runs import WEIGHTS, digest, log_of, status_of


def test_still_clips_and_divergence_are_described():
    assert describe_trouble(0.01, 0.2, 0.19) == []
    assert describe_trouble(0.01, None, None) == []
    (still,) = describe_trouble(0.0001, 0.2, 0.2)
    assert "does not move" in still and "--learning_rate" in still
    (diverging,) = describe_trouble(0.01, 0.4, 0.2)
    assert "2.0 times its lowest: training diverges" in diverging


def test_validation_writes_clips_and_changes_no_weight(train, caplog):
    flags = ("--max_train_steps", "2", "--use_ema", "--logging_steps", "1", "--mixed_precision", "bf16")
    _, plain = train("plain", *flags)
    validation = ("--validation_steps", "1", "--validation_inference_steps", "2", "--report_to", "tensorboard")
    code, output = train("run", *flags, *validation, "--validation_prompts", "mist", "a boat")
    assert code == 0
    assert digest(output / "motion_adapter" / WEIGHTS) == digest(plain / "motion_adapter" / WEIGHTS)
    assert [line["diffusion_loss"] for line in log_of(output)] == [line["diffusion_loss"] for line in log_of(plain)]

    clips = sorted(path.name for path in (output / "validation").iterdir())
    assert clips == [f"step-00000{step}-{clip}.mp4" for step in (1, 2) for clip in (1, 2)]
    frames = [frame.pixels for frame in iterate_video(output / "validation" / clips[0])]
    assert len(frames) == 8 and frames[0].shape == (64, 64, 3)
    rows = [json.loads(line) for line in (output / "validation.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2] and rows[0]["prompts"] == ["mist", "a boat"]
    assert all(row["dynamic_degree"] >= 0 and row["mean_diffusion_loss"] > 0 for row in rows)
    assert "Step 2: dynamic degree" in caplog.text

    (events,) = [path.parent for path in output.rglob("events.out.tfevents*") if has_scalars(path.parent)]
    board = EventAccumulator(str(events)).Reload()
    assert [event.value for event in board.Scalars("dynamic_degree")] == pytest.approx(
        [row["dynamic_degree"] for row in rows]
    )
    assert len(board.Scalars("diffusion_loss")) == len(board.Scalars("learning_rate")) == 2
    assert "validation/mist" in board.Tags()["images"]


def test_trackio_gets_losses_and_clips(train, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    storage = pytest.importorskip("trackio.sqlite_storage", reason="the extra `test-web` brings trackio").SQLiteStorage
    flags = ("--max_train_steps", "1", "--validation_steps", "1", "--validation_inference_steps", "2")
    code, _ = train("run", *flags, "--report_to", "trackio", "--validation_prompts", "mist")
    assert code == 0
    (project,) = storage.get_projects()
    logged = {
        name: value for row in storage.get_logs(project, storage.get_runs(project)[0]) for name, value in row.items()
    }
    assert logged["diffusion_loss"] > 0
    clip = tmp_path / "trackio" / "media" / logged["validation/mist"]["file_path"]
    assert len(list(iterate_video(clip))) == 8


def test_the_guidance_scale_changes_clips_but_no_weights(train):
    flags = ("--max_train_steps", "1", "--validation_steps", "1", "--validation_inference_steps", "2")
    outputs = [train(scale, *flags, "--validation_guidance_scale", scale)[1] for scale in ("1", "20")]
    clips = [
        np.stack([frame.pixels for frame in iterate_video(output / "validation" / "step-000001.mp4")])
        for output in outputs
    ]
    assert clips[0].shape == clips[1].shape and (clips[0] != clips[1]).any()
    assert digest(outputs[0] / "motion_adapter" / WEIGHTS) == digest(outputs[1] / "motion_adapter" / WEIGHTS)


def has_scalars(directory: Path) -> bool:
    return bool(EventAccumulator(str(directory)).Reload().Tags()["scalars"])


def test_a_tracker_that_is_not_installed_is_refused(train, monkeypatch):
    monkeypatch.setattr("landscape_video.training.run.train_log.get_available_trackers", lambda: [])
    code, output = train("run", "--max_train_steps", "1", "--report_to", "wandb")
    assert code == 1 and status_of(output)["reason"].endswith("pip install wandb.")
