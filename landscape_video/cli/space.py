"""`landscape-video space`: write the folder of a Hugging Face Space that serves the page."""

from pathlib import Path
from typing import Annotated

import typer


def space(
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", show_default=False, help="Folder to write.")],
    motion_adapter: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="Motion adapter for the bundled model.", show_default="the one of the bundled model"
        ),
    ] = None,
) -> None:
    """Write the folder of a Hugging Face Space that serves the page on a free CPU.

        $ landscape-video space --to my-space

    With your own adapter inside:

        $ landscape-video space --to my-space --motion-adapter my-mountains

    The folder holds all code and weights, so the Space downloads nothing but packages. Try it with `python app.py` in
    the folder; publish an adapter as a Space with `landscape-video push --space`.
    """
    from landscape_video.web.space_folder import write_space

    folder = write_space(to, motion_adapter)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    typer.echo(f"{folder}: app.py, requirements.txt, README.md, code and weights, {size / 2**20:.0f} MB")
