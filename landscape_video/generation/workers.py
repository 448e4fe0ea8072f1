"""Run tasks in processes side by side, and those of a process that died again."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any


MAX_TRIES = 3  # of a task whose process dies: it may be the task that kills it, as one without enough memory does


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: int | None = None  # the one at work


def run_in_processes(
    start: Callable[..., Callable[[Any], Any]], arguments: Sequence[Any], tasks: Sequence[Any], jobs: int
) -> Iterator[tuple[int, Any]]:
    """Run each task once, in any order, and yield its index and result as soon as it is done.

    Args:
        start: Called once in each process with the number of the process and `arguments`; returns the function that
            runs a task. Both must be picklable, as tasks and results.
        arguments: Arguments of `start`.
        tasks: Tasks.
        jobs: Number of processes.

    Raises:
        ConnectionError: The process of a task died `MAX_TRIES` times.
        Exception: What a task has raised.
    """
    waiting, tries = deque(range(len(tasks))), [0] * len(tasks)
    workers: list[_Worker] = []
    try:
        for number in range(min(jobs, len(tasks))):
            workers.append(_start_worker(number, start, arguments))
        finished = 0
        while finished < len(tasks):
            for worker in workers:
                if worker.task is None and waiting:
                    worker.task = waiting.popleft()
                    tries[worker.task] += 1
                    worker.connection.send(tasks[worker.task])
            # The connection of a process that died is ready, too: at its end.
            ready = wait([worker.connection for worker in workers])
            for number, worker in enumerate(workers):
                if worker.connection not in ready:
                    continue
                try:
                    succeeded, result = worker.connection.recv()
                except (EOFError, OSError):
                    task, workers[number] = worker.task, _start_worker(number, start, arguments)
                    if task is None:
                        continue
                    if tries[task] == MAX_TRIES:
                        raise ConnectionError(f"the process of {tasks[task]} died {MAX_TRIES} times.") from None
                    waiting.appendleft(task)
                    continue
                if not succeeded:
                    raise result
                task, worker.task = worker.task, None
                finished += 1
                yield task, result
    finally:
        for worker in workers:
            worker.connection.close()  # an idle process ends by itself, and cleans up
            if worker.task is not None:
                worker.process.terminate()
            worker.process.join()


def _start_worker(number: int, start: Callable[..., Callable[[Any], Any]], arguments: Sequence[Any]) -> _Worker:
    context = get_context("spawn")  # a fork of a process that has threads (torch, OpenCV) can hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs, number, start, arguments), daemon=True)
    process.start()
    theirs.close()  # so that ours ends when the process does
    return _Worker(process, ours)


def _work(connection: Connection, number: int, start: Callable[..., Callable[[Any], Any]], arguments: Any) -> None:
    try:
        run = start(number, *arguments)
        while True:
            connection.send((True, run(connection.recv())))
    except EOFError:  # the other end is gone
        pass
    except Exception as error:
        connection.send((False, error))
