"""The miniature study's trainings: what differs between rows, processes side by side, and what is refused."""

import json
import sys
from argparse import Namespace
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from landscape_video.training.run.command_line import parse_settings
from landscape_video.training.settings.training import MotionTraining
from miniature_claims import ROWS, Run
from miniature_training import (
    NEEDED,
    Job,
    Settings,
    StudyError,
    check_run_dir,
    find_settings,
    is_trained,
    run_jobs,
    training_command,
    training_minutes,
)


SETTINGS = Settings(40, 8.0, 1.2, 4, "bf16", "cpu", False, {"unet": "abc"})
GIVEN = Namespace(
    minutes=None, steps=None, batch_size=None, mixed_precision=None, device=None, compile=None, run_dir=Path("run")
)
# What a row changes, and nothing else.
DIFFERENCES = {
    "full": {},
    "without_sparse_causal": {"no_sparse_causal": True},
    "without_versatile": {"no_versatile": True},
    "without_contrastive": {"contrastive_weight": 0.0},
    "current_previous": {"sparse_causal_mode": "current_previous"},
    "frame_norm": {"motion_norm": "frame"},
    "threshold_2": {"negative_threshold": 2},
    "threshold_3": {"negative_threshold": 3},
    "threshold_5": {"negative_threshold": 5},
    "threshold_6": {"negative_threshold": 6},
    "positives_within": {"positives": "within_threshold"},
}


def flags_of(run: Run, settings: Settings = SETTINGS) -> dict:
    command = training_command(run, Path("run"), Path("out"), settings)
    return {field.name: value for field, value in parse_settings(MotionTraining, "", command[2:]).options()}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.key)
def test_rows_differ_from_the_full_model_in_one_flag(row):
    full = flags_of(Run(ROWS[0], 0))
    assert flags_of(Run(row, 0)) == full | DIFFERENCES[row.key]
    assert flags_of(Run(row, 2)) == full | DIFFERENCES[row.key] | {"seed": 2}
    compiled = replace(SETTINGS, compile=True)
    assert flags_of(Run(row, 0), compiled) == full | DIFFERENCES[row.key] | {"torch_compile": True}
    assert full["num_frames_range"] == (16, 16) and full["max_train_steps"] == 40 and full["negative_threshold"] == 4


def test_what_is_missing_of_the_run_is_named_with_the_stages_that_make_it(tmp_path):
    with pytest.raises(StudyError, match=r"has no latents/latents-00000.safetensors; .* --stages render clip vae lat"):
        check_run_dir(tmp_path)
    for name in NEEDED["latents"]:
        (tmp_path / "latents").mkdir(exist_ok=True)
        (tmp_path / "latents" / name).touch()
    stages = r"--run_dir \S+ --stages text unet motion`\.$"
    with pytest.raises(StudyError, match=rf"has no base/unet; make it with .*{stages}"):
        check_run_dir(tmp_path)
    for name in NEEDED["base"]:
        (tmp_path / "base" / name).mkdir(parents=True)
    check_run_dir(tmp_path)


def test_a_study_keeps_its_settings(tmp_path):
    path = tmp_path / "study.json"
    path.write_text(json.dumps(asdict(SETTINGS)))
    assert find_settings(path, GIVEN, SETTINGS.made_of) == SETTINGS
    same = Namespace(**vars(GIVEN) | {"minutes": 8.0, "device": "cpu"})
    assert find_settings(path, same, SETTINGS.made_of) == SETTINGS
    other = Namespace(**vars(GIVEN) | {"compile": True})
    with pytest.raises(StudyError, match=r"was started with compile False, got True; choose another --output"):
        find_settings(path, other, SETTINGS.made_of)
    other = Namespace(**vars(GIVEN) | {"minutes": 3.0})
    with pytest.raises(StudyError, match=r"was started with minutes 8.0, got 3.0; choose another --output"):
        find_settings(path, other, SETTINGS.made_of)
    with pytest.raises(StudyError, match="was started with other models or latents than run has now"):
        find_settings(path, GIVEN, {"unet": "another"})


def test_minutes_of_training_leave_out_stops(tmp_path):
    """4 clips a step: 5 steps at 2 clips a second take 10 seconds; a line that is being written does not count."""
    lines = [{"step": 5, "clips_per_second": 2.0}, {"step": 10, "clips_per_second": 1.0}]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "log.jsonl").write_text(text + '{"step": 15, "cl')
    assert training_minutes(tmp_path, batch_size=4) == pytest.approx(30 / 60)


def test_a_run_that_was_stopped_is_not_trained(tmp_path):
    assert not is_trained(tmp_path, 40)
    (tmp_path / "motion_adapter").mkdir()
    for status, step, expected in (("stopped", 20, False), ("finished", 20, False), ("finished", 40, True)):
        (tmp_path / "status.json").write_text(json.dumps({"status": status, "step": step}))
        assert is_trained(tmp_path, 40) is expected


def job(tmp_path: Path, name: str, code: str) -> Job:
    return Job(name, [sys.executable, "-c", code, str(tmp_path / f"{name}-done")], tmp_path / name)


def test_processes_run_side_by_side_with_their_share_of_threads(tmp_path):
    """Each waits for the other: one after the other, neither would end."""
    code = """
import os, pathlib, sys, time
done = pathlib.Path(sys.argv[1])
done.write_text(os.environ["OMP_NUM_THREADS"] + os.environ["ACCELERATE_USE_CPU"])
end = time.monotonic() + 60
while len(list(done.parent.glob("worker?-done"))) < 2:
    assert time.monotonic() < end
    time.sleep(0.05)
"""
    run_jobs([job(tmp_path, name, code) for name in ("worker1", "worker2", "late")], 2, SETTINGS, "training")
    assert {(tmp_path / f"{name}-done").read_text().lstrip("0123456789") for name in ("worker1", "late")} == {"true"}


def test_a_process_that_fails_is_one_line_and_ends_the_others(tmp_path):
    waits = job(tmp_path, "waits", "import time; time.sleep(600)")
    fails = job(tmp_path, "fails", "import sys; print('some line'); sys.exit('no memory is left')")
    with pytest.raises(StudyError, match=r"fails failed with exit code 1: no memory is left \(.*fails\.log\)"):
        run_jobs([waits, fails], 2, SETTINGS, "training")


def test_processes_are_told_once_to_stop_and_waited_for(tmp_path, monkeypatch):
    code = """
import pathlib, signal, sys, time
def save(*_):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    time.sleep(0.5)
    pathlib.Path(sys.argv[1] + "-saved").touch()
    sys.exit(75)
signal.signal(signal.SIGTERM, save)
pathlib.Path(sys.argv[1]).touch()
time.sleep(600)
"""

    def interrupt(log: Path) -> int:
        if (tmp_path / "runs-done").exists():
            raise KeyboardInterrupt
        return 0

    monkeypatch.setattr("miniature_training.last_step", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_jobs([job(tmp_path, "runs", code)], 1, SETTINGS, "training")
    assert (tmp_path / "runs-done-saved").exists()
