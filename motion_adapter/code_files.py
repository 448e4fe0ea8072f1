"""The code that goes to the Hub with a model, and which revision of it that is."""

import shutil
import subprocess
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from diffusers.utils.dynamic_modules_utils import get_relative_imports

import pipeline_landscape_video

from .hashes import hash_chunks


PACKAGE = Path(pipeline_landscape_video.__file__).parent
PIPELINE, PIPELINE_WITH_PICTURES = "pipeline", "pipeline_image_to_video"
BRANCH, BRANCH_CODE = "image_retention", "landscape_image_retention"  # a component, and the file with its class


def code_files(with_pictures: bool = False) -> Iterator[Path]:
    """
    `pipeline.py` and the files beside it that it imports: all the code that the pipeline needs. `with_pictures`, those
    of the pipeline that takes pictures, too.
    """
    pipelines = (PIPELINE, PIPELINE_WITH_PICTURES) if with_pictures else (PIPELINE,)
    imported = {name for pipeline in pipelines for name in get_relative_imports(PACKAGE / f"{pipeline}.py")}
    for name in (*pipelines, *sorted(imported)):
        yield PACKAGE / f"{name}.py"


def copy_code(folder: Path, with_pictures: bool = False) -> None:
    """Put all the code that the pipeline needs into `folder`."""
    for source in code_files(with_pictures):
        shutil.copyfile(source, folder / source.name)


def copy_branch_code(folder: Path) -> None:
    """Put the class of the branch into its own folder, where diffusers looks for the code of a component."""
    shutil.copyfile(PACKAGE / f"{BRANCH_CODE}.py", folder / f"{BRANCH_CODE}.py")


def code_revision(with_pictures: bool = False) -> str:
    """Version, a hash of the code files, and the git commit where the package runs from a checkout of it."""
    digest = hash_chunks(file.read_bytes() for file in code_files(with_pictures))
    try:
        release = version("landscape-video")
    except PackageNotFoundError:
        release = "of a checkout"
    return f"landscape-video {release}, code sha256 {digest[:16]}" + _commit(with_pictures)


def _commit(with_pictures: bool) -> str:
    try:
        # Changed files count only where they go to the Hub; untracked code is not of the commit either.
        changed = _git("status", "--porcelain", "--", *(file.name for file in code_files(with_pictures)))
        return f", commit {_git('rev-parse', 'HEAD')}" + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
