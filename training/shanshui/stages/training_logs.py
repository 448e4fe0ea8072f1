"""Read the logs of training runs, one JSON object per line."""

import json
from itertools import pairwise
from pathlib import Path


def read_log(path: Path) -> list[dict]:
    """Return the complete lines of a log; an empty list if there is no log."""
    log = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            log.append(json.loads(line))
        except json.JSONDecodeError:  # a line that is still being written, or was cut off
            continue
    return log


def resumed_seconds(log: list[dict]) -> float:
    """Return the training time of a log whose "seconds" start from zero at each resumption."""
    seconds = [line["seconds"] for line in log] + [0.0]
    return sum(last for last, after in pairwise(seconds) if after < last)
