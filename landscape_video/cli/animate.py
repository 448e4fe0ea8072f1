"""`landscape-video animate`: generate a clip that begins with an image."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from landscape_video.cli.generate import announce, read_prompts, warn_about_unknown_words, write_clip
from landscape_video.cli.options import with_settings
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.presets import check_preset
from landscape_video.generation.settings import CONTENT, ImageModelSettings, ImageToVideoSettings


@with_settings
def animate(
    image: Annotated[
        Path,
        typer.Argument(metavar="IMAGE", show_default=False, help="The painting: a common image file of any size."),
    ],
    prompts: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[PROMPT]...",
            help="What moves, and how. Several prompts are stages of one clip, each beginning where the last one "
            "ended. Without a prompt, the image alone guides the clip.",
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts",
            metavar="FILE",
            help="Prompts of the stages from a UTF-8 text file, one per line.",
            rich_help_panel=CONTENT,
        ),
    ] = None,
    stages: Annotated[
        int | None,
        typer.Option(min=1, metavar="NUMBER", help="Number of stages for a single prompt.", rich_help_panel=CONTENT),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="The clip: .mp4, .gif, .webp, or a name without a suffix for a folder of PNG files.",
            rich_help_panel=CONTENT,
        ),
    ] = Path("animated.mp4"),
    *,
    settings: ImageToVideoSettings,
    models: ImageModelSettings,
) -> None:
    """Bring a still painting to life.

        $ landscape-video animate painting.png "mist drifting, the boat sails to the left" --output boat.mp4

    Longer, in two stages:

        $ landscape-video animate painting.png "mist drifting" "the camera moves closer" --output acts.mp4

    All of a tall scroll rather than its middle:

        $ landscape-video animate scroll.jpg "mist drifting right" --fit pad --output scroll.mp4

    Prompts, seed, settings, versions and the name of the image are stored in the clip.
    """
    # 1. Check everything that can be wrong without loading a model
    from landscape_video.generation.images import read_image
    from pipeline_landscape_video.video_writing import check_output

    painting = read_image(image)
    texts = read_stages(prompts, prompts_file, stages)
    settings.check_memory(stages=max(1, len(texts)))
    check_output(output, settings.frame_rate)
    check_preset(settings, models)
    warn_about_unknown_words(texts, models.model)

    # 2. Load
    pipe = load_pipeline(models)
    settings = settings.with_seed()
    announce(pipe, settings)
    pipe.set_progress_bar_config(desc=output.name, file=sys.stderr)

    # 3. Generate and write
    # Imported here: neither --help nor a wrong path may wait for torch.
    from landscape_video.generation.generate_clip import animate_clip

    clip = animate_clip(pipe, painting, texts, settings)
    clip.metadata["picture"] = image.name
    write_clip(output, clip, models)


def read_stages(prompts: list[str] | None, prompts_file: Path | None, stages: int | None) -> list[str]:
    """Return the prompt of each stage, empty if only the image is given. Raises `ValueError`, see `read_prompts`."""
    texts = read_prompts(prompts, prompts_file) if prompts or prompts_file is not None else []
    if stages is None or stages == max(1, len(texts)):
        return texts
    if not texts:
        raise ValueError(f"`stages` needs a prompt, got {stages} stages and no prompt.")
    if len(texts) > 1:
        raise ValueError(f"`stages` must be {len(texts)}, one for each prompt, got {stages}.")
    return texts * stages
