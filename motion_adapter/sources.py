"""Resolve the name of a model: the bundled model, a path on this machine, or a repository on the Hub."""

from pathlib import Path

import pipeline_landscape_video
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL


def local_path(source: str | Path) -> Path | None:
    """Return the path that `source` means, or None if it is the name of a repository on the Hub.

    This is the only rule for model names in the project: "shanshui-tiny" is the bundled model; whatever exists is a
    path; of the rest, only "user/name" is on the Hub (one slash, which is not the first character; no backslash; no
    dot or tilde at the beginning). The path may be missing.
    """
    source = str(source)
    if source == EMBEDDED_MODEL:
        return pipeline_landscape_video.SHANSHUI_TINY
    path = Path(source).expanduser()
    is_repo_id = source.count("/") == 1 and "\\" not in source and not source.startswith(("/", ".", "~"))
    return None if is_repo_id and not path.exists() else path
