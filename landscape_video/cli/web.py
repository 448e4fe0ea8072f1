"""`landscape-video web`: open a page in the browser that generates, animates and interpolates clips."""

from pathlib import Path
from typing import Annotated

import typer

from landscape_video.cli.options import with_settings
from landscape_video.generation.settings import ImageModelSettings


PAGE = "Page"


@with_settings
def web(
    clips: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER", help="Folder that receives the clips and is shown as gallery.", rich_help_panel=PAGE
        ),
    ] = Path("landscape-clips"),
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            metavar="NUMBER",
            help="Port of the page.",
            rich_help_panel=PAGE,
            show_default="the first free one from 7860",
        ),
    ] = None,
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open the page in the browser.", rich_help_panel=PAGE)
    ] = True,
    mcp: Annotated[
        bool,
        typer.Option("--mcp", help="Also serve the Model Context Protocol, for assistants.", rich_help_panel=PAGE),
    ] = False,
    *,
    models: ImageModelSettings,
) -> None:
    """Open a page in the browser that generates, animates and interpolates clips.

        $ landscape-video web

    With an adapter of your own, and a folder of its own for the clips:

        $ landscape-video web --motion-adapter my-mountains --clips mountains

    The page works offline. Only this machine can reach it, and nothing that is typed or uploaded leaves it.
    Its visitors can choose prompts and settings, but no models and no files.
    """
    from landscape_video.generation.models import check_models

    check_models(models)
    try:
        from landscape_video.web.page import launch_page
        from landscape_video.web.workshop import Workshop
    except ModuleNotFoundError as error:
        if error.name != "gradio":
            raise
        raise ValueError('the page needs gradio: pip install "landscape-video[web]".') from error

    shop = Workshop(models, clips)
    typer.echo("Loading the model, and measuring its speed.", err=True)
    shop.measure_speed()
    typer.echo(f"Clips are written to {clips}.", err=True)
    server, url, _ = launch_page(shop, server_port=port, inbrowser=browser, mcp_server=mcp, prevent_thread_lock=True)
    typer.echo(f"{url} (stop with Ctrl-C)")
    server.blocks.block_thread()
