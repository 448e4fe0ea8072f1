"""Push folders to the Hugging Face Hub and pull them, with one-line errors that say what to do.

The token comes from `hf auth login` or the environment (HF_TOKEN), never from an argument.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, snapshot_download
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


RepoKind = Literal["model", "space"]

LOG_IN = "log in with `hf auth login`, or set HF_TOKEN"
NOT_THERE = "{repo_id} is not on the Hub, or is private: if so, log in as a user who may read it (`hf auth login`)."
NO_ANSWER = "{repo_id}: the Hub ({endpoint}) does not answer: {said}"
FAILED = "{repo_id}: the Hub failed ({status}: {said}); nothing was changed, try again later."
REFUSED = "{repo_id}: the Hub refuses ({status}: {said})."
# What an error means to the user: a `ValueError` if they must change something, a `ConnectionError` otherwise. The
# first class that matches counts.
EXPLANATIONS = (
    (GatedRepoError, ValueError, "{repo_id} is gated: accept its terms on {endpoint}/{repo_id}, then " + LOG_IN + "."),
    (RepositoryNotFoundError, ValueError, NOT_THERE),
    (RevisionNotFoundError, ValueError, "{repo_id} has no revision {revision}."),
    (OfflineModeIsEnabled, ConnectionError, "{repo_id}: HF_HUB_OFFLINE is set; unset it once to download."),
    (LocalTokenNotFoundError, ValueError, "{repo_id}: this machine has no token: " + LOG_IN + "."),
    ((IncompleteSnapshotError, LocalEntryNotFoundError), ConnectionError, NO_ANSWER),
    (EntryNotFoundError, ValueError, "{repo_id} lacks a file: {said}"),
)
STATUS_EXPLANATIONS = {
    401: (ValueError, "{repo_id}: the Hub does not know you: " + LOG_IN + " ({said})."),
    403: (ValueError, "{repo_id}: your token may not do this; use one with write access ({said})."),
    412: (ConnectionError, "{repo_id}: somebody else pushed meanwhile; nothing was changed, push again."),
}
EXPORTED_SUFFIXES = (".py", ".json", ".safetensors")  # what exports write at the top of a repository, with README.md


def check_repo_id(repo_id: str) -> None:
    """Raise a `ValueError` unless `repo_id` is a valid USER/NAME."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f"{repo_id!r} is not a name on the Hub: {error}") from error
    if repo_id.count("/") != 1:
        raise ValueError(f"{repo_id!r} is not a name on the Hub: it must be of the form USER/NAME.")


def create_repo(repo_id: str, private: bool = False, kind: RepoKind = "model") -> None:
    """Create an empty repository unless it exists. Fails early if the token is missing or may not write.

    Raises:
        ValueError, ConnectionError: See `push_folder`.
    """
    check_repo_id(repo_id)
    with hub_errors(repo_id):
        sdk = "gradio" if kind == "space" else None
        HfApi().create_repo(repo_id, private=private, exist_ok=True, repo_type=kind, space_sdk=sdk)


def push_folder(
    folder: str | Path, repo_id: str, message: str, private: bool = False, kind: RepoKind = "model"
) -> str:
    """Upload the files of `folder` to a repository, in one commit.

    Readers see all of the commit or nothing. A broken upload does not change the repository, and the next call sends
    only what is missing. The same commit deletes what an earlier export left behind, see `stale_files`.

    Args:
        folder: Output of `export_pipeline`, `export_adapter` or `write_space`.
        repo_id: Name of the repository as `"user/name"`; it is created if needed.
        message: Commit message for the Hub.
        private: Whether a new repository is private. An existing one keeps its visibility.
        kind: Whether the repository is a model or a Space.

    Returns:
        The id of the commit.

    Raises:
        ValueError: The Hub refuses: no token, no right to write, gated, an invalid card.
        ConnectionError: The Hub cannot be reached, the upload broke, or somebody else pushed meanwhile.
    """
    folder = Path(folder)
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    api = HfApi()
    create_repo(repo_id, private, kind)
    with hub_errors(repo_id):
        parent = api.repo_info(repo_id, repo_type=kind).sha
        stale = stale_files(api.list_repo_files(repo_id, revision=parent, repo_type=kind), files)
        operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=folder / name) for name in files]
        operations += [CommitOperationDelete(path_in_repo=name) for name in stale]
        return api.create_commit(repo_id, operations, commit_message=message, parent_commit=parent, repo_type=kind).oid


def stale_files(in_repo: list[str], files: list[str]) -> list[str]:
    """List files of an earlier export in a repository that `files`, the new export, do not replace.

    These are code, JSON and weights at the top, and everything in folders that the new export has, too.
    """
    folders = {PurePosixPath(name).parts[0] for name in files if "/" in name}
    return [
        name
        for name in sorted(set(in_repo) - set(files))
        if (PurePosixPath(name).parts[0] in folders if "/" in name else name.endswith(EXPORTED_SUFFIXES))
    ]


def pull(repo_id: str, revision: str | None = None) -> tuple[Path, str]:
    """Download all files of a repository, so that it loads from a folder without a network.

    With `HF_HUB_OFFLINE=1`, a repository with code loads from this folder and not by its name.

    Args:
        repo_id: Name of the repository as `"user/name"`.
        revision: Commit, tag or branch; `main` if `None`.

    Returns:
        The folder, in the cache of huggingface_hub, and the commit it holds.

    Raises:
        ValueError: The repository or the revision does not exist, or is private or gated.
        ConnectionError: The Hub cannot be reached, or the download broke; the next call resumes it.
    """
    check_repo_id(repo_id)
    with hub_errors(repo_id, revision):
        # Asked first, because `snapshot_download` silently returns an old snapshot if the Hub does not answer.
        commit = HfApi().model_info(repo_id, revision=revision).sha
        return Path(snapshot_download(repo_id, revision=commit)), commit


@contextmanager
def hub_errors(repo_id: str, revision: str | None = None) -> Iterator[None]:
    """Turn errors of the Hub into a `ValueError` (the user must change something) or a `ConnectionError`."""
    try:
        yield
    except Exception as error:
        explained = explain_hub_error(error, repo_id, revision)
        if explained is None:
            raise
        raise explained from error


def explain_hub_error(error: BaseException, repo_id: str, revision: str | None = None) -> OSError | ValueError | None:
    """Explain `error`, or the first of its causes that is the Hub's, in one line; `None` if none of them is."""
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    explanations = (_explain(cause, repo_id, revision) for cause in reversed(causes))
    return next((explained for explained in explanations if explained is not None), None)


def _explain(error: BaseException, repo_id: str, revision: str | None) -> OSError | ValueError | None:
    said = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    where = {"repo_id": repo_id, "revision": revision, "endpoint": constants.ENDPOINT}
    for error_class, explained_as, text in EXPLANATIONS:
        if isinstance(error, error_class):
            return explained_as(text.format(said=said, **where))
    if isinstance(error, HfHubHTTPError) and error.response is not None:
        status = error.response.status_code
        failed = (ConnectionError, FAILED) if status >= 500 or status == 429 else (ValueError, REFUSED)
        explained_as, text = STATUS_EXPLANATIONS.get(status, failed)
        return explained_as(text.format(said=error.server_message or said, status=status, **where))
    # Refused, cut, timed out: errors of the HTTP client of huggingface_hub itself (httpx, later httpx2)
    if type(error).__module__.startswith("httpx") and not hasattr(error, "response"):
        return ConnectionError(NO_ANSWER.format(said=said, **where))
    return None
