"""Tasks in processes: each is done once, also those of a process that is killed, and errors arrive."""

import os
import signal
from pathlib import Path

import pytest

from landscape_video.generation.workers import MAX_TRIES, run_in_processes


def start(number, folder):
    def run(task):
        name, kills = task
        with (folder / name).open("a") as file:
            file.write("x")
        if len((folder / name).read_text()) <= kills:
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "wrong":
            raise ValueError("`name` must be another one, got wrong.")
        return name.upper()

    return run


def run_tasks(folder: Path, *tasks: tuple[str, int]) -> dict[int, str]:
    found = list(run_in_processes(start, (folder,), tasks, 2))
    assert len(found) == len(dict(found))
    return dict(found)


def test_the_task_of_a_killed_process_runs_again_and_no_other(tmp_path):
    assert run_tasks(tmp_path, ("a", 0), ("b", 1), ("c", 0), ("d", 0)) == dict(enumerate("ABCD"))
    assert {path.name: len(path.read_text()) for path in tmp_path.iterdir()} == {"a": 1, "b": 2, "c": 1, "d": 1}


def test_a_task_that_kills_its_process_ends_the_run(tmp_path):
    with pytest.raises(ConnectionError, match=f"died {MAX_TRIES} times"):
        run_tasks(tmp_path, ("a", 9), ("b", 0))
    assert len((tmp_path / "a").read_text()) == MAX_TRIES


def test_an_error_is_that_of_the_task(tmp_path):
    with pytest.raises(ValueError, match="`name` must be another one"):
        run_tasks(tmp_path, ("a", 0), ("wrong", 0))
