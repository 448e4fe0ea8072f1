"""Find and copy the code that goes to the Hub with a model, and describe its revision."""

import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from diffusers.utils.dynamic_modules_utils import get_relative_imports

import pipeline_landscape_video

from .hashes import hash_chunks


PACKAGE = Path(pipeline_landscape_video.__file__).parent
PIPELINE, IMAGE_PIPELINE = "pipeline", "pipeline_image_to_video"
BRANCH, BRANCH_CODE = "image_retention", "landscape_image_retention"  # a component, and the file with its class


def code_files(image_to_video: bool = False) -> list[Path]:
    """List `pipeline.py` and the files it imports, with `image_to_video` also those of the other pipeline."""
    pipelines = (PIPELINE, IMAGE_PIPELINE) if image_to_video else (PIPELINE,)
    imported = {name for pipeline in pipelines for name in get_relative_imports(PACKAGE / f"{pipeline}.py")}
    return [PACKAGE / f"{name}.py" for name in (*pipelines, *sorted(imported))]


def branch_code() -> Path:
    """Return the file with the class of the retention branch; diffusers expects it in the branch's own folder."""
    return PACKAGE / f"{BRANCH_CODE}.py"


def copy_code(files: list[Path], folder: Path) -> None:
    """Copy code files into `folder`."""
    for file in files:
        shutil.copyfile(file, folder / file.name)


def code_revision(image_to_video: bool = False) -> str:
    """Return the package's version, a hash of the code files, and the git commit if this is a checkout."""
    files = code_files(image_to_video)
    try:
        release = version("landscape-video")
    except PackageNotFoundError:
        release = "of a checkout"
    digest = hash_chunks(file.read_bytes() for file in files)[:16]
    return f"landscape-video {release}, code sha256 {digest}" + _commit(files)


def _commit(files: list[Path]) -> str:
    try:
        # Only uncommitted changes to the code files matter; an untracked code file counts as a change.
        changed = _git("status", "--porcelain", "--", *(file.name for file in files))
        return f", commit {_git('rev-parse', 'HEAD')}" + (" with changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return ""


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(PACKAGE), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
