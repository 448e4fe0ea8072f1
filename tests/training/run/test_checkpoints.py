"""Checkpoints survive any failure while they are written, and damaged ones are found before use."""

import errno
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from landscape_video.training.run.checkpoints import (
    CheckpointError,
    list_checkpoints,
    newest_valid_checkpoint,
    verify_checkpoint,
    write_checkpoint,
)


def save(output_dir: Path, step: int, total_limit: int | None = None, content: str = "weights") -> Path:
    with write_checkpoint(output_dir, step, total_limit) as directory:
        (directory / "state.bin").write_text(f"{content} {step}")
        (directory / "adapter").mkdir()
        (directory / "adapter" / "config.json").write_text("{}")
    return output_dir / f"checkpoint-{step}"


def names(output_dir: Path) -> set[str]:
    return {path.name for path in output_dir.iterdir()}


def test_a_checkpoint_appears_when_it_is_whole(tmp_path):
    with write_checkpoint(tmp_path / "run", 5) as directory:
        (directory / "state.bin").write_text("weights")
        assert list_checkpoints(tmp_path / "run") == []
    (path,) = list_checkpoints(tmp_path / "run")
    verify_checkpoint(path)
    assert path.name == "checkpoint-5" and names(path) == {"state.bin", "manifest.json"}
    assert names(tmp_path / "run") == {"checkpoint-5"}


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_keeps_the_previous_checkpoint(tmp_path, error):
    before = save(tmp_path, 1)
    with pytest.raises(type(error)), write_checkpoint(tmp_path, 2, total_limit=1) as directory:
        (directory / "state.bin").write_text("half of it")
        raise error
    assert names(tmp_path) == {"checkpoint-1"}
    verify_checkpoint(before)


def test_older_checkpoints_are_deleted_only_after_the_new_one_is_in_place(tmp_path, monkeypatch):
    before = save(tmp_path, 1)

    def fail(self, target):
        raise OSError(errno.EIO, "the rename failed")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", fail)
        with pytest.raises(OSError, match="the rename failed"):
            save(tmp_path, 2, total_limit=1)
    verify_checkpoint(before)
    save(tmp_path, 2, total_limit=1)
    assert names(tmp_path) == {"checkpoint-2"}


def test_the_limit_keeps_the_newest_in_numeric_order(tmp_path):
    for step in (8, 9, 10, 11):
        save(tmp_path, step, total_limit=2)
    assert names(tmp_path) == {"checkpoint-10", "checkpoint-11"}
    with pytest.raises(ValueError, match="`total_limit` must be at least 1, got 0"):
        save(tmp_path, 12, total_limit=0)


def test_the_limit_does_not_count_checkpoints_of_later_steps(tmp_path):
    # A run that resumed from step 5, because 9 was damaged, must not delete its own checkpoints and keep 9.
    save(tmp_path, 9)
    for step in (5, 6, 7):
        save(tmp_path, step, total_limit=1)
    assert names(tmp_path) == {"checkpoint-7", "checkpoint-9"}


def test_a_damaged_checkpoint_is_replaced_when_its_step_is_saved_again(tmp_path):
    path = save(tmp_path, 3, content="old")
    (path / "state.bin").write_text("garbage")
    save(tmp_path, 3, content="new")
    verify_checkpoint(path)
    assert (path / "state.bin").read_text() == "new 3" and names(tmp_path) == {"checkpoint-3"}


def test_leftovers_of_a_killed_process_are_deleted(tmp_path):
    for leftover in (".checkpoint-4.incomplete", ".checkpoint-2.replaced"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "state.bin").write_text("half of it")
    save(tmp_path, 4)
    assert names(tmp_path) == {"checkpoint-4"}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: (path / "state.bin").write_text("weights 3 but longer"), "state.bin differs from its hash"),
        (lambda path: (path / "state.bin").unlink(), "state.bin is missing"),
        (lambda path: (path / "adapter" / "more.bin").write_text("?"), "more.bin is not in the manifest"),
        (lambda path: (path / "manifest.json").unlink(), "has no manifest.json"),
        (lambda path: (path / "manifest.json").write_text('{"sha256": {"state'), "manifest.json is damaged"),
        (lambda path: (path / "manifest.json").write_text("[]"), "manifest.json is damaged"),
    ],
)
def test_damage_is_named_and_skipped(tmp_path, caplog, damage, message):
    whole, damaged = save(tmp_path, 2), save(tmp_path, 3)
    damage(damaged)
    with pytest.raises(CheckpointError, match=message):
        verify_checkpoint(damaged)
    assert newest_valid_checkpoint(tmp_path) == whole
    assert "Skipped checkpoint-3" in caplog.text and message in caplog.text


def test_an_empty_folder_has_no_newest_checkpoint(tmp_path):
    assert newest_valid_checkpoint(tmp_path / "nowhere") is None
    (tmp_path / "checkpoint-final").mkdir()
    assert newest_valid_checkpoint(tmp_path) is None
    with pytest.raises(CheckpointError, match="is not a directory"):
        verify_checkpoint(tmp_path / "checkpoint-7")


SAVE_FOR_EVER = """
import sys, time
from landscape_video.training.run.checkpoints import checkpoint_step, newest_valid_checkpoint, write_checkpoint
newest = newest_valid_checkpoint(sys.argv[1])
step = checkpoint_step(newest)
while True:
    step += 1
    started = time.monotonic()
    with write_checkpoint(sys.argv[1], step, total_limit=1) as directory:
        for name in ("weights", "optimizer"):
            (directory / name).write_bytes(bytes([step % 256]) * 300_000)
    print(time.monotonic() - started, flush=True)
"""


def test_kill_9_at_any_moment_leaves_a_usable_state(tmp_path):
    rng = random.Random(0)
    save(tmp_path, 1)
    last = 1
    for _ in range(8):
        process = subprocess.Popen([sys.executable, "-c", SAVE_FOR_EVER, str(tmp_path)], stdout=subprocess.PIPE)
        seconds_of_a_save = float(process.stdout.readline())
        time.sleep(rng.uniform(0, 2 * seconds_of_a_save))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        newest = newest_valid_checkpoint(tmp_path)
        assert newest is not None, names(tmp_path)
        step = int(newest.name.removeprefix("checkpoint-"))
        assert step > last  # at least the save that was measured
        last = step
