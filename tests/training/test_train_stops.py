"""Signals before the first step of `train_motion.py` stop it at once, with exit code and status file."""

import importlib.util
import os
import signal
import threading
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from landscape_video.training.data import latent_store
from landscape_video.training.data.clip_list import VideoSource
from landscape_video.training.data.latent_store import AutomaticCache, encode_frames, load_vae
from landscape_video.training.data.video_dataset import VideoDataset
from landscape_video.training.run import signals as run_signals
from pipeline_landscape_video.video_io import VideoFrame
from training_runs import status_of
from video_files import make_video_folder


FLAGS = ("--num_frames_range", "6", "--sample_stride", "1", "--resolution", "32", "--max_train_steps", "1")


@pytest.fixture
def folder(tmp_path) -> Path:
    """Three videos of different content."""
    return make_video_folder(tmp_path / "videos", [12, 10, 8])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGINT])
def test_a_signal_while_clips_are_encoded_stops_at_once_and_keeps_those_that_are(
    train, folder, image_model, tmp_path, monkeypatch, number
):
    encoded = []

    def stop_in_the_second(vae, pixel_values, *arguments):
        encoded.append(len(pixel_values))
        if len(encoded) == 2:
            os.kill(os.getpid(), number)
        return encode_frames(vae, pixel_values, *arguments)

    before = signal.getsignal(number)
    monkeypatch.setattr(latent_store, "encode_frames", stop_in_the_second)
    flags = (*FLAGS, "--cache_dir", str(tmp_path / "cache"))
    code, output = train("run", *flags, data=folder)
    assert code == 75 and len(encoded) == 2 and signal.getsignal(number) == before
    reason = f"{number.name} before the first step"
    assert status_of(output) == {"status": "stopped", "exit_code": 75, "reason": reason}
    assert not list(output.glob("checkpoint-*")) and not (output / "log.jsonl").exists()

    # The cache holds the clip that was done, and nothing half done.
    vae = load_vae(str(image_model), None, torch.device("cpu"))
    assert not list((tmp_path / "cache").rglob(".*"))
    cache = AutomaticCache(VideoDataset(folder, 32), vae, tmp_path / "cache")
    cache.encode()
    assert sorted(encoded[2:]) == sorted(set([12, 10, 8]) - {encoded[0]}) and len(cache.clips()) == 3
    code, output = train("run", *flags, data=folder)
    assert code == 0 and len(encoded) == 4 and status_of(output)["status"] == "finished"


def test_a_signal_while_videos_are_checked_waits_for_none_of_them(train, folder, monkeypatch):
    decoding, sent = threading.Event(), []

    def very_long(source):
        decoding.set()
        end = time.monotonic() + 100
        while time.monotonic() < end:
            yield VideoFrame(np.zeros((32, 32, 3), np.uint8), Fraction(0), Fraction(1))

    def interrupt() -> None:
        decoding.wait(60)
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(VideoSource, "frames", very_long)
    thread = threading.Thread(target=interrupt)
    thread.start()
    code, output = train("run", *FLAGS, data=folder)
    assert time.monotonic() - sent[0] < 50
    thread.join()
    assert code == 75 and status_of(output)["reason"] == "SIGTERM before the first step"
    assert not (output / "clips_report.jsonl").exists()


def test_the_second_signal_reaches_the_previous_handler():
    caught = []
    before = signal.signal(signal.SIGUSR1, lambda *_: caught.append("by who was there before"))
    try:
        with pytest.raises(run_signals.StoppedAtStart, match="SIGUSR1"), run_signals.StopSignals():
            try:
                os.kill(os.getpid(), signal.SIGUSR1)
            finally:
                os.kill(os.getpid(), signal.SIGUSR1)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert caught == ["by who was there before"]


def test_signals_work_on_windows_without_usr1(monkeypatch):
    monkeypatch.delattr(signal, "SIGUSR1")  # as on Windows
    spec = importlib.util.spec_from_file_location("signals_of_windows", run_signals.__file__)
    there = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(there)
    assert there.STOP_SIGNALS == (signal.SIGTERM, signal.SIGINT)
    with there.StopSignals() as signals:
        signals.training = True
        os.kill(os.getpid(), signal.SIGTERM)
    assert signals.received == "SIGTERM"
