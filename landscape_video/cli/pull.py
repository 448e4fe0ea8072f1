"""`landscape-video pull`: download a repository from the Hugging Face Hub, for use without a network."""

import shutil
from pathlib import Path
from typing import Annotated

import typer

from landscape_video.files import check_replaceable, write_directory


def pull(
    repo_id: Annotated[str, typer.Argument(metavar="USER/NAME", show_default=False, help="The repository.")],
    revision: Annotated[
        str | None,
        typer.Option(metavar="COMMIT|TAG|BRANCH", help="Revision to download.", show_default="the newest of main"),
    ] = None,
    to: Annotated[
        Path | None,
        typer.Option(
            "--to",
            metavar="FOLDER",
            help="New folder for the files.",
            show_default="the cache of huggingface_hub",
        ),
    ] = None,
) -> None:
    """Download all files of a model from the Hugging Face Hub, and print their folder.

    Into a new folder:

        $ landscape-video pull me/my-mountains --to my-mountains

    A commit whose code you have reviewed, into the cache:

        $ landscape-video pull me/my-mountains --revision 0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c

    Give the printed folder as `--model` to work without a network (HF_HUB_OFFLINE=1); the name alone would not load.
    The weights of a repository made by `push` are checked: all present, of the right shape, and finite. The base
    model of an adapter is a repository of its own; pull it as well.
    """
    from motion_adapter.hub import pull as pull_repository
    from motion_adapter.validate import check_export, is_export
    from pipeline_landscape_video.quiet_loading import less_chatter

    if to is not None:
        check_replaceable(to)
    with less_chatter():
        folder, commit = pull_repository(repo_id, revision)
        if is_export(folder):
            check_export(folder)
    if to is not None:
        with write_directory(to, overwrite=False) as unfinished:
            shutil.copytree(folder, unfinished, dirs_exist_ok=True)
        folder = to.absolute()
    typer.echo(f"commit {commit}", err=True)
    typer.echo(str(folder))
