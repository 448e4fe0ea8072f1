"""
Folders to and from the Hugging Face Hub: pushed in one commit or not at all, pulled whole, and one line for whatever
the Hub has against it. The token comes from `hf auth login` or the environment (HF_TOKEN), never by argument.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, snapshot_download
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import validate_repo_id


LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
OURS_AT_THE_TOP = (".py", ".json", ".safetensors")


def check_repo_id(repo_id: str) -> None:
    """Raise a `ValueError` for what is no ORGANISATION/NAME."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is no name on the Hub: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} is no name on the Hub: it has to be of the form USER/NAME.")


def create_repo(repo_id: str, private: bool = False) -> None:
    """
    Make an empty model repository, if there is none of this name: where a token is missing or may not write, this
    tells, before hours of work.

    Raises:
        ValueError, ConnectionError: as `push_folder`.
    """
    check_repo_id(repo_id)
    with hub_errors(repo_id):
        HfApi().create_repo(repo_id, private=private, exist_ok=True)


def push_folder(folder: str | Path, repo_id: str, message: str, private: bool = False) -> str:
    """
    Make the repository hold what `folder` holds, in one commit: readers meet all of it or nothing, and an upload that
    breaks leaves the repository as it was; another call sends only what is missing. What an earlier export left is
    deleted in the same commit: code, JSON and weights at the top, and everything in the folders that `folder` has,
    too. Other files of the repository stay.

    Args:
        folder: what `export_pipeline` or `export_adapter` wrote.
        repo_id: as `"user/name"`; made if there is none.
        message: of the commit.
        private: whether a repository that is made is private; an existing one stays what it is.

    Returns:
        the id of the commit.

    Raises:
        ValueError: the Hub refuses: no token, no right to write, gated, an invalid card.
        ConnectionError: it cannot be reached, the upload broke, or somebody else pushed meanwhile.
    """
    folder = Path(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    api = HfApi()
    create_repo(repo_id, private)
    with hub_errors(repo_id):
        parent = api.model_info(repo_id).sha
        stale = stale_files(api.list_repo_files(repo_id, revision=parent), files)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files]
        operations += [CommitOperationDelete(path_in_repo=name) for name in stale]
        return api.create_commit(repo_id, operations, commit_message=message, parent_commit=parent).oid


def stale_files(in_repo: list[str], files: list[str]) -> list[str]:
    """Which files of a repository an earlier export left that `files`, the new one, do not replace."""
    folders = {PurePosixPath(name).parts[0] for name in files if "/" in name}
    return [
        name
        for name in sorted(set(in_repo) - set(files))
        if (PurePosixPath(name).parts[0] in folders if "/" in name else name.endswith(OURS_AT_THE_TOP))
    ]


def pull(repo_id: str, revision: str | None = None) -> tuple[Path, str]:
    """
    Fetch every file of a repository, so that it loads from the returned folder without a network. (With
    `HF_HUB_OFFLINE=1` a repository with code loads by folder only, not by name.)

    Args:
        repo_id: as `"user/name"`.
        revision: commit, tag or branch; `main` without it.

    Returns:
        the folder, in the cache of huggingface_hub, and the commit it holds.

    Raises:
        ValueError: there is no such repository or revision, or it is private or gated.
        ConnectionError: the Hub cannot be reached, or the download broke; another call goes on with it.
    """
    check_repo_id(repo_id)
    with hub_errors(repo_id, revision):
        # Asked first: without an answer `snapshot_download` would return an old snapshot, and not say so.
        commit = HfApi().model_info(repo_id, revision=revision).sha
        return Path(snapshot_download(repo_id, revision=commit)), commit


@contextmanager
def hub_errors(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Make what goes wrong with the Hub a `ValueError` (somebody has to change something) or a `ConnectionError`."""
    try:
        yield
    except Exception as error:
        explained = explain_hub_error(error, repo_id, revision)
        if explained is None:
            raise
        raise explained from error


def explain_hub_error(error: BaseException, repo_id: str, revision: str | None = None) -> OSError | ValueError | None:
    """The error of one line that `error`, or what caused it, means for `repo_id`; None for what has other reasons."""
    causes = [error]
    while causes[-1].__cause__ is not None or causes[-1].__context__ is not None:
        causes.append(causes[-1].__cause__ or causes[-1].__context__)
    for cause in reversed(causes):  # the first thing that went wrong knows best
        if (explained := _explain(cause, repo_id, revision)) is not None:
            return explained
    return None


def _explain(error: BaseException, repo_id: str, revision: str | None) -> OSError | ValueError | None:
    if isinstance(error, GatedRepoError):
        page = f"{constants.ENDPOINT}/{repo_id}"
        return ValueError(f"{repo_id} is gated: accept its terms on {page}, then {LOG_IN}.")
    if isinstance(error, RepositoryNotFoundError):
        if get_token() is not None:
            return ValueError(f"{repo_id} is not on the Hub, or is private and your token may not read it.")
        return ValueError(f"{repo_id} is not on the Hub, or is private: if it is, {LOG_IN}.")
    if isinstance(error, RevisionNotFoundError):
        return ValueError(f"{repo_id} has no revision {revision}.")
    if isinstance(error, OfflineModeIsEnabled):
        return ConnectionError(f"{repo_id}: HF_HUB_OFFLINE is set, so the Hub is not asked; unset it once, to fetch.")
    if isinstance(error, LocalTokenNotFoundError):
        return ValueError(f"{repo_id}: there is no token on this machine: {LOG_IN}.")
    if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
        return ValueError(f"{repo_id} lacks a file: {_first_line(error)}")
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        return _explain_status(error, error.response.status_code, repo_id)
    if isinstance(error, IncompleteSnapshotError) or _is_of_the_connection(error):
        return ConnectionError(f"{repo_id}: the Hub ({constants.ENDPOINT}) does not answer: {_first_line(error)}")
    return None


def _explain_status(error: HfHubHTTPError, status: int, repo_id: str) -> OSError | ValueError:
    said = error.server_message or _first_line(error)
    if status == 401:
        return ValueError(f"{repo_id}: the Hub does not know who you are: {LOG_IN} ({said}).")
    if status == 403:
        return ValueError(f"{repo_id}: your token may not do that; it has to be one that may write there ({said}).")
    if status == 412:
        return ConnectionError(f"{repo_id}: somebody else pushed meanwhile; nothing was changed, push again.")
    if status >= 500 or status == 429:
        return ConnectionError(f"{repo_id}: the Hub failed ({status}: {said}); nothing was changed, try again later.")
    return ValueError(f"{repo_id}: the Hub refuses ({status}: {said}).")


def _is_of_the_connection(error: BaseException) -> bool:
    """Refused, cut, timed out: what the HTTP client of huggingface_hub (httpx, later httpx2) raises by itself."""
    return type(error).__module__.split(".")[0].startswith("httpx") and not hasattr(error, "response")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
