"""Watch programs that tests start, start processes like a launcher, and limit the size of files that are written."""

import multiprocessing
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import torch


def wait_for(condition: Callable[[], object], process: subprocess.Popen) -> None:
    """Wait until the condition holds. Fail if the process ends first."""
    end = time.monotonic() + 300
    while not condition():
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < end, "nothing happened in five minutes"
        time.sleep(0.2)


def workers_of(process: subprocess.Popen, title: str) -> list[psutil.Process]:
    """Return the child processes whose command line contains the given text."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if title in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it ended in the meantime
            continue
    return found


def launch(count: int, target: Callable[..., None], *arguments: Any, **environment: str) -> None:
    """Call `target(*arguments)` in `count` processes that find each other, each computing with one thread.

    Results of one process and of several are then comparable bit for bit.

    Raises:
        AssertionError: A process failed. The message contains the output of all of them.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    context = multiprocessing.get_context("forkserver")  # the server imports torch once, for all of them
    context.set_forkserver_preload(["training_runs", "landscape_video.evaluation.evaluate"])
    common = {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""} | environment  # FSDP would use a GPU
    if count > 1:
        common |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        common |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(rank) for rank in range(count)]
        processes = [
            context.Process(
                target=_run_as,
                args=(common | ({"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}), output),
                kwargs={"target": target, "arguments": arguments},
                daemon=True,  # ends with the tests
            )
            for rank, output in enumerate(outputs)
        ]
        for process in processes:
            process.start()
        end = time.monotonic() + 900
        for process in processes:
            process.join(timeout=max(0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()
        printed = "\n".join(output.read_text(errors="replace") for output in outputs if output.exists())
    assert [process.exitcode for process in processes] == [0] * count, printed


def _run_as(
    environment: dict[str, str], output: Path, target: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    os.environ |= environment
    with open(output, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())
    torch.set_num_threads(1)
    target(*arguments)


@contextmanager
def largest_files(size: int) -> Iterator[None]:
    """Let writes beyond `size` bytes of a file fail, as on a full disk, within the block."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # raise an error instead of ending the process
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
