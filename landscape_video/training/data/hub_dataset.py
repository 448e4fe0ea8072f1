"""Download datasets from the Hub."""

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
    """Download a dataset, unless this machine already has it.

    Args:
        dataset_name: Hub id, `org/name`.
        revision: Commit, tag or branch.

    Returns:
        The dataset's folder, and the folder that the links in it lead into.

    Raises:
        ValueError: The dataset is not available; the reason in one line.
    """
    try:
        folder = Path(snapshot_download(dataset_name, repo_type="dataset", revision=revision))
    except GatedRepoError:
        reason = "its owner grants access on request: ask on its page, then log in with `hf auth login`."
    except RepositoryNotFoundError:
        reason = "it does not exist, or it is private and you must log in with `hf auth login`."
    except LocalEntryNotFoundError:
        reason = "it is not on this machine, and the Hub cannot be reached."
    except (HfHubHTTPError, HFValidationError) as error:
        reason = " ".join(str(error).split())
    else:
        return folder, folder.parents[1]  # the cache stores a snapshot's files as links into its folder of blobs
    raise ValueError(f"Dataset {dataset_name!r}: {reason}")
