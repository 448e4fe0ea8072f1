"""One job runs at a time, and a canceled one ends at its next step."""

import threading
import time

import pytest

from landscape_video.generation.generate_clip import GenerationCancelled
from landscape_video.web.jobs import ModelQueue


def count_to(limit: int, log: list):
    def work(report, is_cancelled):
        log.append("begin")
        for number in range(limit):
            report(number)
            time.sleep(0.02)
            if is_cancelled():
                log.append("cancelled")
                raise GenerationCancelled
        log.append("end")
        return "result"

    return work


def test_reports_arrive_in_order_and_the_result_last():
    log = []
    values = [value for value in ModelQueue().run(count_to(3, log)) if value is not None]
    assert values == [0, 1, 2, "result"] and log == ["begin", "end"]


def test_a_long_job_gives_signs_of_life():
    values = list(ModelQueue().run(lambda report, is_cancelled: time.sleep(0.6)))
    assert len(values) > 1  # a canceled generator can be closed only where it yields


def test_jobs_do_not_overlap():
    jobs, log = ModelQueue(), []
    threads = [threading.Thread(target=lambda: list(jobs.run(count_to(3, log)))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert log == ["begin", "end"] * 3


def test_a_closed_job_ends_before_the_next_one_begins():
    jobs, log = ModelQueue(), []
    first = jobs.run(count_to(1000, log))
    next(first)
    first.close()
    assert list(jobs.run(count_to(1, log)))[-1] == "result"
    assert log == ["begin", "cancelled", "begin", "end"]


def test_an_error_is_raised_where_the_reports_are_read():
    def fail(report, is_cancelled):
        raise ValueError("`steps` must be at least 1, got 0.")

    with pytest.raises(ValueError, match="at least 1"):
        list(ModelQueue().run(fail))
