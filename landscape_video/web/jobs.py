"""Run one job of the model at a time, and report its progress to the page while it runs."""

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Any

from landscape_video.generation.generate_clip import GenerationCancelled


# Gradio limits the runs of each function; functions with the same id share one limit.
CONCURRENCY_ID = "model"
# Seconds between two reports without progress. A canceled generator is closed at its next report.
HEARTBEAT = 0.25

IsCancelled = Callable[[], bool]
Report = Callable[[Any], None]
Work = Callable[[Report, IsCancelled], Any]


class ModelQueue:
    """Runs jobs one after the other, whichever button or client started them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def run(self, work: Work) -> Iterator[Any]:
        """Run a job in a thread of its own, and yield what it reports.

        Gradio closes the generator of a canceled job. The job then ends at its next step, and only after that the next
        one starts.

        Args:
            work: Function of `report`, which hands a value to the caller of this generator, and of `is_cancelled`,
                which it must ask in every step.

        Yields:
            Each reported value; None if there is nothing new for `HEARTBEAT` seconds; at last what `work` returned.

        Raises:
            Exception: What `work` raised.
        """
        reports: queue.Queue[tuple[str, Any]] = queue.Queue()
        cancelled = threading.Event()

        def job() -> None:
            with self._lock:
                try:
                    if not cancelled.is_set():
                        reports.put(("result", work(lambda value: reports.put(("report", value)), cancelled.is_set)))
                except GenerationCancelled:
                    pass
                except Exception as error:  # raised again where the page shows it
                    reports.put(("error", error))

        threading.Thread(target=job, daemon=True).start()
        try:
            while True:
                try:
                    kind, value = reports.get(timeout=HEARTBEAT)
                except queue.Empty:
                    kind, value = "report", None
                if kind == "error":
                    raise value
                yield value
                if kind == "result":
                    return
        finally:
            cancelled.set()
