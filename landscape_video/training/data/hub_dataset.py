"""A data set on the Hub, as a folder of this machine."""

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)


def download_dataset(dataset_name: str, revision: str | None = None) -> tuple[Path, Path]:
    """Fetch a data set from the Hub.

    Args:
        dataset_name: its id, `org/name`.
        revision: commit, tag or branch.

    Returns:
        Its folder, and the folder that its files' links lead into.

    Raises:
        ValueError: in one line, why it cannot be had.
    """
    try:
        folder = Path(snapshot_download(dataset_name, repo_type="dataset", revision=revision))
    except GatedRepoError:
        reason = "its owner grants access on request: ask on its page, then log in with `hf auth login`."
    except RepositoryNotFoundError:
        reason = "there is no such data set, or it is private and `hf auth login` has not been done."
    except LocalEntryNotFoundError:
        reason = "it is not on this machine, and the Hub cannot be reached."
    except (HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split())
    else:
        return folder, folder.parents[1]  # the cache keeps a snapshot's files as links into its folder of blobs
    raise ValueError(f"The data set {dataset_name!r}: {reason}")
