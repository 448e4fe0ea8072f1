"""`landscape-video repeat`: generate a clip again from the recipe in its file."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from landscape_video.cli.options import with_settings
from landscape_video.generation.settings import CONTENT, ImageModelSettings


@with_settings
def repeat(
    clip: Annotated[
        Path, typer.Argument(show_default=False, help="Clip made by this program: .mp4, .gif, .webp, PNG folder.")
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="The new clip, of the same format.",
            show_default="the name of the clip with -again",
            rich_help_panel=CONTENT,
        ),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The image that the clip began with, if it was animated.", rich_help_panel=CONTENT
        ),
    ] = None,
    *,
    models: ImageModelSettings,
) -> None:
    """Generate a clip again from the prompt, seed and settings in its file.

        $ landscape-video repeat mist.mp4

    An animated painting:

        $ landscape-video repeat boat.mp4 --image painting.png --output again.mp4

    The command says whether the frames are bit-identical, and if not, which device, thread count or version differs.
    Models other than the bundled one are loaded only if you name them, because a file can name any.
    """
    # 1. Check everything that can be wrong without loading a model
    from landscape_video.generation.recipe import differences, models_to_repeat, read_recipe, same_frames
    from pipeline_landscape_video.video_writing import check_output

    recipe = read_recipe(clip)
    try:
        models = models_to_repeat(recipe, models)
    except ValueError as error:
        raise ValueError(f"{clip}: {error}") from error
    output = output or clip.with_name(f"{clip.stem}-again{clip.suffix}")
    if output.suffix.lower() != clip.suffix.lower():
        raise ValueError(f"`output` must have the format of {clip}, got {output}.")
    check_output(output, recipe.settings.frame_rate)
    if recipe.from_image and image is None:
        raise ValueError(f"{clip}: began with {recipe.picture or 'an image'}; give it with `image`.")

    # 2. Load
    from dataclasses import fields

    from landscape_video.cli.generate import announce, write_clip
    from landscape_video.generation.images import read_image
    from landscape_video.generation.models import load_pipeline
    from landscape_video.generation.settings import ModelSettings

    painting = read_image(image) if recipe.from_image else None
    if not recipe.from_image:
        models = ModelSettings(**{each.name: getattr(models, each.name) for each in fields(ModelSettings)})
    pipe = load_pipeline(models)
    announce(pipe, recipe.settings)
    pipe.set_progress_bar_config(desc=output.name, file=sys.stderr)

    # 3. Generate, write and compare
    from landscape_video.generation.generate_clip import animate_clip, generate_clip

    if recipe.from_image:
        again = animate_clip(pipe, painting, recipe.prompts, recipe.settings)
        again.metadata["picture"] = image.name
    else:
        again = generate_clip(pipe, recipe.prompts[0], recipe.settings)
    write_clip(output, again, models)
    if same_frames(clip, output):
        typer.echo(f"All frames are bit-identical to those of {clip}.")
        return
    reasons = differences(recipe.environment, again.metadata) or ["device, threads and versions are the same"]
    typer.echo(f"The frames differ from those of {clip}: {'; '.join(reasons)}.")
