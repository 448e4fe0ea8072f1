"""Weights that measure: found by file, folder or name on the Hub, and named with their hash beside every number."""

from pathlib import Path

from landscape_video.files import hash_file, hash_text
from landscape_video.generation.models import find_weights


WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
CONFIGS = (".json", ".txt")


def find_folder(source: str | Path) -> Path:
    """The folder of a model that measures. A repository on the Hub is downloaded, without its code.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: As `find_weights`; also for a file.
    """
    path = find_weights(source)
    if path.is_file():
        raise ValueError(f"{source}: is a file, must be a folder or a name on the Hub.")
    return path


def hash_weights(path: str | Path) -> str:
    """The SHA-256 of a file of weights, in hexadecimal; of a folder with several, of the names and hashes of all.

    For a folder with one file it is that file's own, which is what the Hub shows beside it.

    Raises:
        FileNotFoundError: there is none.
    """
    path = Path(path)
    files = [path] if path.is_file() else _files(path, WEIGHTS)
    if not files:
        raise FileNotFoundError(f"{path}: holds no weights ({', '.join(WEIGHTS)}).")
    return hash_file(files[0]) if len(files) == 1 else _sha256_of_all(files, path)


def hash_configs(path: str | Path) -> str | None:
    """Of what besides the weights decides what a folder computes: configurations, vocabularies. None for a file."""
    path = Path(path)
    return None if path.is_file() else _sha256_of_all(_files(path, CONFIGS), path)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in suffixes and file.is_file())


def _sha256_of_all(files: list[Path], folder: Path) -> str:
    lines = "".join(f"{hash_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    return hash_text(lines)
