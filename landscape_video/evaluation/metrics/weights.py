"""Find weights in files, in folders or on the Hub, and hash them, so that a protocol can name them."""

from pathlib import Path

from landscape_video.files import hash_file, hash_text
from landscape_video.generation.models import find_weights


WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")
CONFIGS = (".json", ".txt")


def find_folder(source: str | Path) -> Path:
    """Find the folder of a model, or download a repository on the Hub, without its code.

    Raises:
        FileNotFoundError, ValueError, ConnectionError: As `find_weights`; also for a file.
    """
    path = find_weights(source)
    if path.is_file():
        raise ValueError(f"{source}: must be a folder or a name on the Hub, got a file.")
    return path


def hash_weights(path: str | Path) -> str:
    """Hash a file of weights, or all weights in a folder: SHA-256 in hexadecimal.

    The hash of a folder with one file is that of the file, as the Hub shows it. For several files, their names count
    as well.

    Raises:
        FileNotFoundError: There are no weights.
    """
    path = Path(path)
    files = [path] if path.is_file() else _files(path, WEIGHTS)
    if not files:
        raise FileNotFoundError(f"{path}: no weights found ({', '.join(WEIGHTS)}).")
    return hash_file(files[0]) if len(files) == 1 else _hash_files(files, path)


def hash_configs(path: str | Path) -> str | None:
    """Hash the configurations and vocabularies in a folder, which also decide what it computes. None for a file."""
    path = Path(path)
    return None if path.is_file() else _hash_files(_files(path, CONFIGS), path)


def _files(folder: Path, suffixes: tuple[str, ...]) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.suffix in suffixes and file.is_file())


def _hash_files(files: list[Path], folder: Path) -> str:
    lines = "".join(f"{hash_file(file)}  {file.relative_to(folder).as_posix()}\n" for file in files)
    return hash_text(lines)
