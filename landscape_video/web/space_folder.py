"""Write the folder of a Hugging Face Space that serves the page, with all code and weights that it needs."""

import shutil
from importlib.metadata import requires
from importlib.util import find_spec
from pathlib import Path

from landscape_video.files import write_directory, write_text


TEMPLATES = Path(__file__).parent / "space"
PACKAGES = ("pipeline_landscape_video", "motion_adapter", "landscape_video")
UNUSED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


def write_space(folder: str | Path, adapter: str | Path | None = None) -> Path:
    """Write the folder. It replaces one of that name only if that is empty.

    Args:
        folder: Folder to write.
        adapter: Motion adapter for the bundled model, which the page then runs with; its own if None.

    Raises:
        FileExistsError: `folder` is a file, or not empty.
        ValueError: `adapter` is not a folder of a motion adapter.
    """
    if adapter is not None and not (Path(adapter) / "config.json").is_file():
        raise ValueError(f"`motion_adapter` must be the folder of a motion adapter, got {adapter}: no config.json.")
    with write_directory(folder, overwrite=False) as unfinished:
        shutil.copytree(TEMPLATES, unfinished, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        write_text(unfinished / "requirements.txt", requirements())
        for package in PACKAGES:
            source = Path(find_spec(package).origin).parent
            shutil.copytree(source, unfinished / package, ignore=UNUSED)
        if adapter is not None:
            shutil.copytree(adapter, unfinished / "adapter", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return Path(folder)


def requirements() -> str:
    """What the page needs besides gradio, which the Space installs itself: our own requirements without extras."""
    return "".join(f"{line}\n" for line in requires("landscape-video") or [] if "extra ==" not in line)
