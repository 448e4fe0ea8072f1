"""Name the bundled model and the sampling that it recommends. Not part of the Hub's code."""

import json
from typing import Any

from . import SHANSHUI_TINY
from .landscape_sampling import resolve_sampling


EMBEDDED_MODEL = "shanshui-tiny"


def embedded_sampling(task: str) -> dict[str, Any]:
    """Return the sampling settings that shanshui-tiny recommends for `task`, see `resolve_sampling`."""
    config = json.loads((SHANSHUI_TINY / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    return resolve_sampling(config, task)
