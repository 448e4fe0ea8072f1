"""`landscape-video push`: publish an adapter or a pipeline on the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from landscape_video.cli.options import option_of
from landscape_video.generation.settings import ModelSettings


def push(
    folder: Annotated[
        Path,
        typer.Argument(
            show_default=False, help="A motion adapter, the output folder of train_motion.py, or a pipeline."
        ),
    ],
    repo_id: Annotated[
        str, typer.Argument(metavar="USER/NAME", show_default=False, help="The repository; created if missing.")
    ],
    license: Annotated[
        str,
        typer.Option(
            metavar="ID",
            show_default=False,
            help="License of the weights, by its identifier on the Hub: apache-2.0, cc-by-4.0, ...",
        ),
    ],
    license_name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the license, with --license other.")
    ] = None,
    license_link: Annotated[
        str | None, typer.Option(metavar="URL", help="Link to its text, with --license other.")
    ] = None,
    base_model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Image model of the adapter: its name on the Hub, or shanshui-tiny.",
            show_default="what train_motion.py recorded",
        ),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Push a complete pipeline: the base model with the adapter.")
    ] = False,
    space: Annotated[
        bool,
        typer.Option(
            "--space", help="Push a Space that serves the page with an adapter for the bundled model, not the model."
        ),
    ] = False,
    private: Annotated[bool, typer.Option("--private", help="Make a new repository private.")] = False,
    dtype: option_of(
        ModelSettings,
        "dtype",
        help="Precision of the pushed weights; auto keeps their own.",
        rich_help_panel=None,
    ) = "auto",
) -> None:
    """Publish a motion adapter or a pipeline on the Hugging Face Hub, in one commit.

    An adapter trained on the bundled model, as a complete pipeline:

        $ landscape-video push motion-adapter me/my-mountains --license apache-2.0 --full

    An adapter for Stable Diffusion 1.5:

        $ landscape-video push motion-adapter me/my-mountains --license creativeml-openrail-m
        --base-model stable-diffusion-v1-5/stable-diffusion-v1-5

    A page that anyone can open, with that adapter inside:

        $ landscape-video push motion-adapter me/my-mountains-page --license apache-2.0 --space

    Weights, code and a card with training figures are pushed after a fresh process has loaded them and generated
    bit-identical frames. They replace an earlier push: other .py, .json and .safetensors files at the top of the
    repository are deleted. The token comes from `hf auth login` or HF_TOKEN.
    """
    import torch

    from motion_adapter.hub import check_repo_id
    from motion_adapter.model_card import CardFacts, check_license
    from motion_adapter.publish import publish
    from pipeline_landscape_video.quiet_loading import less_chatter

    check_repo_id(repo_id)
    check_license(license, license_name)
    if space:
        commit = push_space(folder, repo_id, private)
        typer.echo(f"{repo_id} is at commit {commit}: https://huggingface.co/spaces/{repo_id}")
        return
    facts = CardFacts(repo_id, license, base_model, full, license_name=license_name, license_link=license_link)
    with less_chatter():
        release = publish(
            folder,
            facts,
            None if dtype == "auto" else getattr(torch, dtype),
            private,
            report=lambda line: typer.echo(line, err=True),
        )
    typer.echo(f"{repo_id} is at commit {release.commit}. To load exactly this commit:\n\n{release.usage}")


def push_space(folder: Path, repo_id: str, private: bool) -> str:
    """Push a Space that runs the bundled model with the adapter in `folder`, and return the commit."""
    from tempfile import TemporaryDirectory

    from landscape_video.web.space_folder import write_space
    from motion_adapter.hub import push_folder
    from motion_adapter.publish import find_source

    adapter = find_source(folder)
    with TemporaryDirectory() as temporary:
        written = write_space(Path(temporary) / "space", adapter)
        return push_folder(written, repo_id, "Serve the page with this adapter", private, kind="space")
