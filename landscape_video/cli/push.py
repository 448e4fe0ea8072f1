"""`landscape-video push`: a trained adapter, or a whole pipeline, to the Hugging Face Hub."""

from pathlib import Path
from typing import Annotated

import typer

from landscape_video.generation.models import Dtype


Folder = Annotated[
    Path,
    typer.Argument(
        show_default=False, help="A motion adapter, the output folder of train_motion.py, or a whole pipeline."
    ),
]
RepoId = Annotated[str, typer.Argument(metavar="USER/NAME", show_default=False, help="The repository; made if new.")]
License = Annotated[
    str,
    typer.Option(
        metavar="ID", show_default=False, help="Of the weights, as the Hub names licences: apache-2.0, cc-by-4.0, ..."
    ),
]
LicenseName = Annotated[str | None, typer.Option(metavar="NAME", help="With --license other: what it is called.")]
LicenseLink = Annotated[str | None, typer.Option(metavar="URL", help="With --license other: where it stands.")]
BaseModel = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The image model that the adapter is for, as the Hub names it, or shanshui-tiny. What train_motion.py "
        "wrote down, without this option.",
    ),
]
Full = Annotated[
    bool, typer.Option("--full", help="Push a pipeline that needs nothing else: the base model with the adapter.")
]
Private = Annotated[bool, typer.Option("--private", help="If the repository is new, only you can read it.")]
DtypeOption = Annotated[Dtype, typer.Option(help="Precision of the weights that are pushed; auto is as they are.")]


def push(
    folder: Folder,
    repo_id: RepoId,
    license: License,
    license_name: LicenseName = None,
    license_link: LicenseLink = None,
    base_model: BaseModel = None,
    full: Full = False,
    private: Private = False,
    dtype: DtypeOption = Dtype.auto,
) -> None:
    """Publish a motion adapter or a pipeline on the Hugging Face Hub, in one commit.

    What was trained on the small model in the package, as a pipeline that loads by its name:

        $ landscape-video push motion-adapter me/my-mountains --license apache-2.0 --full

    An adapter for Stable Diffusion 1.5:

        $ landscape-video push motion-adapter me/my-mountains --license creativeml-openrail-m
        --base-model stable-diffusion-v1-5/stable-diffusion-v1-5

    Weights, code and a card with the figures of the training go there after a fresh process has loaded them and has
    painted the same frames, to the bit. They replace what an earlier push left: other files ending in .py, .json or
    .safetensors at the top of the repository are deleted. The token comes from `hf auth login` or HF_TOKEN.
    """
    import torch

    from motion_adapter.hub import check_repo_id
    from motion_adapter.model_card import CardFacts, check_license
    from motion_adapter.release import publish
    from pipeline_landscape_video.quiet_loading import less_chatter

    check_repo_id(repo_id)
    check_license(license, license_name)
    facts = CardFacts(repo_id, license, base_model, full, license_name=license_name, license_link=license_link)
    with less_chatter():
        release = publish(
            folder,
            facts,
            None if dtype is Dtype.auto else getattr(torch, dtype.value),
            private,
            report=lambda line: typer.echo(line, err=True),
        )
    typer.echo(f"{repo_id} is at commit {release.commit}. It loads, for ever the same, with\n\n{release.usage}")
