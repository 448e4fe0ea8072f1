"""Runs of `train_motion.py` that are stopped, killed and resumed end with the weights of an uninterrupted run."""

import errno
import os
import signal
import threading

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from landscape_video.files import write_json
from landscape_video.training.objectives import motion_objective
from landscape_video.training.run import checkpoints
from landscape_video.training.run import signals as run_signals
from landscape_video.training.run.checkpoints import list_checkpoints, verify_checkpoint
from landscape_video.training.run.signals import StopSignals, report_end
from training_runs import digest, digests, log_of, status_of


VARIED = ("--use_ema", "--sample_stride", "1", "1", "--caption_dropout_prob", "0.5", "--logging_steps", "1")


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_a_resumed_run_ends_with_the_same_bits(train, optimizer):
    flags = (*VARIED, "--optimizer", optimizer)
    code, whole = train("whole", *flags, "--max_train_steps", "6")
    assert code == 0 and status_of(whole)["status"] == "finished"

    # Stopped after each step by its time limit; the last leg reads its clips in two workers.
    for _ in range(2):
        code, parts = train("parts", *flags, "--max_train_minutes", "1e-9", "--resume_from_checkpoint", "latest")
        assert code == 0 and status_of(parts)["status"] == "time_over"
    code, parts = train(
        "parts", *flags, "--max_train_steps", "6", "--resume_from_checkpoint", "latest",
        "--dataloader_num_workers", "2",
    )  # fmt: skip
    assert code == 0
    assert digests(whole, 6) == digests(parts, 6)
    losses = [[(line["step"], line["diffusion_loss"]) for line in log_of(output)] for output in (whole, parts)]
    assert losses[0] == losses[1] and [step for step, _ in losses[0]] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_a_checkpoint_that_resumes(train, tmp_path, number):
    log = tmp_path / "stopped" / "log.jsonl"

    ended = threading.Event()

    def interrupt() -> None:
        while not log.exists() and not ended.wait(0.01):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=interrupt)
    thread.start()
    code, stopped = train("stopped", *VARIED, "--max_train_steps", "100000")
    ended.set()
    thread.join()
    assert code == 75 and signal.getsignal(number) == before
    status = status_of(stopped)
    assert status == {"status": "stopped", "step": status["step"], "exit_code": 75, "reason": number.name}
    (checkpoint,) = list_checkpoints(stopped)
    assert checkpoint.name == f"checkpoint-{status['step']}"
    verify_checkpoint(checkpoint)

    steps = str(status["step"] + 1)
    code, _ = train("stopped", *VARIED, "--max_train_steps", steps, "--resume_from_checkpoint", "latest")
    assert code == 0
    _, whole = train("whole", *VARIED, "--max_train_steps", steps)
    assert digests(whole, int(steps)) == digests(stopped, int(steps))


def test_resuming_skips_a_damaged_checkpoint_and_says_so(train, caplog):
    _, output = train("run", "--max_train_steps", "3", "--checkpointing_steps", "1")
    expected = digests(output, 3)
    assert [path.name for path in list_checkpoints(output)] == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]
    state = output / "checkpoint-3" / "training_state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    code, _ = train("run", "--max_train_steps", "3", "--resume_from_checkpoint", "latest")
    assert code == 0 and "Skipped checkpoint-3" in caplog.text and "Resumed from" in caplog.text
    assert digests(output, 3) == expected
    code, _ = train("other", "--max_train_steps", "3", "--resume_from_checkpoint", str(output / "checkpoint-1"))
    assert code == 0 and digests(output.parent / "other", 3) == expected


def test_resuming_from_an_older_checkpoint_renames_later_ones(train, caplog):
    flags = ("--max_train_steps", "3", "--checkpointing_steps", "1")
    _, output = train("run", *flags)
    first = digests(output, 3)[2]
    older = str(output / "checkpoint-1")
    other = ("--learning_rate", "2e-3", "--max_train_minutes", "1e-9")  # stops after step 2
    code, _ = train("run", *flags, *other, "--resume_from_checkpoint", older)
    assert code == 0 and [path.name for path in list_checkpoints(output)] == ["checkpoint-1", "checkpoint-2"]
    assert "checkpoint-3 is now called abandoned-checkpoint-3" in caplog.text
    assert digest(output / "abandoned-checkpoint-3" / "training_state.safetensors") == first
    train("run", *flags, "--learning_rate", "2e-3", "--resume_from_checkpoint", "latest")
    assert status_of(output)["step"] == 3 and digests(output, 3)[2] != first
    # Again: the names are taken. And what was abandoned can be taken up.
    train("run", *flags, *other, "--resume_from_checkpoint", older)
    assert {path.name.removeprefix("abandoned-checkpoint-") for path in output.glob("abandoned-*")} == {
        "2", "3", "2-2", "3-2",
    }  # fmt: skip
    taken_up = str(output / "abandoned-checkpoint-3")
    code, _ = train("run", *flags, "--max_train_steps", "4", "--resume_from_checkpoint", taken_up)
    assert code == 0 and status_of(output)["step"] == 4


def test_checkpoints_of_another_run_are_set_aside_as_well(train):
    _, source = train("source", "--max_train_steps", "2")
    _, output = train("run", "--max_train_steps", "1", "--seed", "1")
    train("run", "--max_train_steps", "3", "--resume_from_checkpoint", str(source / "checkpoint-2"))
    assert [path.name for path in list_checkpoints(output)] == ["checkpoint-3"]
    verify_checkpoint(output / "abandoned-checkpoint-1")


def test_changed_settings_are_logged(train, caplog):
    train("run", "--max_train_steps", "1")
    train("run", "--max_train_steps", "2", "--seed", "5", "--resume_from_checkpoint", "latest")
    assert "seed was 0 when checkpoint-1 was saved, and is 5 now" in caplog.text


def test_checkpoints_beyond_the_limit_are_deleted(train):
    _, output = train("run", "--max_train_steps", "3", "--checkpointing_steps", "1", "--checkpoints_total_limit", "1")
    assert [path.name for path in list_checkpoints(output)] == ["checkpoint-3"]


def test_a_new_run_in_a_used_folder_is_refused_and_keeps_its_status(train, caplog):
    _, output = train("run", "--max_train_steps", "3", "--max_train_minutes", "1e-9")
    for ended in ("time_over", "finished"):
        assert status_of(output)["status"] == ended
        before = (output / "status.json").read_bytes()
        code, _ = train("run", "--max_train_steps", "3")
        assert code == 1 and "choose another --output_dir" in caplog.messages[-1]
        assert (output / "status.json").read_bytes() == before
        train("run", "--max_train_steps", "3", "--resume_from_checkpoint", "latest")


def test_a_refused_resume_keeps_the_status_of_a_finished_run(train, caplog):
    _, output = train("run", "--max_train_steps", "1")
    code, _ = train("run", "--no_versatile", "--resume_from_checkpoint", "latest")
    assert code == 1 and "was written with other flags" in caplog.messages[-1]
    assert status_of(output)["status"] == "finished"
    code, _ = train("run", "--max_train_steps", "9", "--learning_rate", "1e30", "--resume_from_checkpoint", "latest")
    assert code == 1 and status_of(output)["status"] == "failed"  # that one had begun to train


def test_unusable_checkpoints_are_refused_with_a_reason(train):
    _, output = train("run", "--max_train_steps", "1")
    code, other = train("ablation", "--resume_from_checkpoint", str(output / "checkpoint-1"), "--no_versatile")
    assert code == 1 and "was written with other flags" in status_of(other)["reason"]
    code, other = train("nowhere", "--resume_from_checkpoint", str(output / "checkpoint-7"))
    assert code == 1 and "is not a directory" in status_of(other)["reason"]
    (output / "checkpoint-1" / "manifest.json").unlink()
    (output / "status.json").write_text('{"status": "stop')  # what is damaged says of no run that it has finished
    code, output = train("run", "--resume_from_checkpoint", "latest")
    assert code == 1 and "None of the 1 checkpoints" in status_of(output)["reason"]


def test_a_loss_that_is_not_finite_ends_the_run_and_spares_the_last_checkpoint(train):
    code, output = train("run", "--max_train_steps", "1")
    flags = ("--max_train_steps", "20", "--learning_rate", "1e30", "--checkpointing_steps", "1")
    code, output = train("run", *flags, "--resume_from_checkpoint", "latest")
    assert code == 1
    status = status_of(output)
    assert status["status"] == "failed" and "lower --learning_rate" in status["reason"]
    newest = list_checkpoints(output)[-1]
    verify_checkpoint(newest)
    assert all(torch.isfinite(tensor).all() for tensor in load_file(newest / "training_state.safetensors").values())


def test_a_full_disk_is_explained_and_spares_the_last_checkpoint(train, monkeypatch):
    _, output = train("run", "--max_train_steps", "1")

    def full(*arguments):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(checkpoints, "save_file", full)
    code, _ = train("run", "--max_train_steps", "2", "--resume_from_checkpoint", "latest")
    assert code == 1 and status_of(output)["reason"].startswith("The disk is full: the last checkpoint")
    (checkpoint,) = list_checkpoints(output)
    verify_checkpoint(checkpoint)
    assert not list(output.glob(".*"))


@pytest.mark.parametrize("no_room_for_the_status", [False, True])
def test_weights_that_cannot_be_written_are_one_line(train, monkeypatch, caplog, no_room_for_the_status):
    _, output = train("run", "--max_train_steps", "1")
    reason = "Error while serializing: I/O error: File too large (os error 27)"

    def refuse(*arguments):
        raise SafetensorError(reason)

    def write_unless_failed(path, value):
        if no_room_for_the_status and value["status"] == "failed":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, value)

    monkeypatch.setattr(checkpoints, "save_file", refuse)
    monkeypatch.setattr(run_signals, "write_json", write_unless_failed)
    code, _ = train("run", "--max_train_steps", "2", "--resume_from_checkpoint", "latest")
    assert code == 1
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    if no_room_for_the_status:
        written = f"{output / 'status.json'} could not be written: [Errno 28] No space left on device"
        assert errors == [reason, written] and status_of(output)["status"] == "running"
    else:
        assert errors == [reason]
        assert status_of(output) == {"status": "failed", "exit_code": 1, "reason": reason}
    (checkpoint,) = list_checkpoints(output)
    verify_checkpoint(checkpoint)


def test_only_the_main_process_writes_how_the_run_ended(tmp_path, monkeypatch, caplog):
    signals = StopSignals()
    signals.training = True
    monkeypatch.setenv("RANK", "1")
    assert report_end(tmp_path, signals, ValueError("too short")) == 1 and caplog.messages == ["too short"]
    assert not (tmp_path / "status.json").exists()
    monkeypatch.setenv("RANK", "0")
    assert report_end(tmp_path, signals, ValueError("too short")) == 1
    assert status_of(tmp_path) == {"status": "failed", "exit_code": 1, "reason": "too short"}
    assert report_end(tmp_path, signals, KeyError("a bug")) is None  # keeps its traceback
    assert status_of(tmp_path)["reason"] == "KeyError('a bug')"


def test_running_out_of_memory_is_explained_and_spares_the_last_checkpoint(train, monkeypatch):
    train("run", "--max_train_steps", "1")

    def too_much(*arguments, **keywords):
        torch.empty(2**62, dtype=torch.uint8)  # what an allocator says depends on the device

    monkeypatch.setattr(motion_objective, "motion_losses", too_much)
    code, output = train("run", "--max_train_steps", "2", "--resume_from_checkpoint", "latest")
    assert code == 1 and status_of(output)["reason"].startswith("Out of memory: use --gradient_checkpointing")
    (checkpoint,) = list_checkpoints(output)
    verify_checkpoint(checkpoint)
