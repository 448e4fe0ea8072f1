"""`landscape-video scroll`: paint a long handscroll, and pan along it while things move in it."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from landscape_video.cli.generate import read_lines, warn_about_unknown_words, write_clip
from landscape_video.cli.options import with_settings
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.scroll_settings import SCROLL, ScrollSettings
from landscape_video.generation.settings import CONTENT, ModelSettings


@with_settings
def scroll(
    prompt: Annotated[str | None, typer.Argument(show_default=False, help="What the scroll shows.")] = None,
    prompts_along: Annotated[
        Path | None,
        typer.Option(
            "--prompts-along",
            metavar="FILE",
            help="Prompts along the scroll from a UTF-8 text file, one per line after the share of the scroll at "
            'which it begins and a colon: "0: snow on the hills", "0.5: a river at dawn".',
            rich_help_panel=CONTENT,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="The video: .mp4, .gif, .webp, or a name without a suffix for a folder of PNG files.",
            rich_help_panel=CONTENT,
        ),
    ] = Path("scroll.mp4"),
    picture: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.png",
            help="The whole scroll as an image.",
            show_default="the video's name with .png",
            rich_help_panel=SCROLL,
        ),
    ] = None,
    *,
    settings: ScrollSettings,
    models: ModelSettings,
) -> None:
    """Generate a handscroll: one long landscape, along which the camera pans while mist, water and boats move.

        $ landscape-video scroll "a river in spring, mist drifting right, distant peaks" --length 6 --output scroll.mp4

    Writes the video, and the whole scroll as scroll.png. With the lines "0: snow on the hills" and "0.5: hills at
    dawn" in seasons.txt, the scroll changes along its way:

        $ landscape-video scroll --prompts-along seasons.txt --output seasons.mp4

    What stands still is the same in the video and in the image. Prompts need not mention the camera.
    """
    # 1. Check everything that can be wrong without loading a model
    from pipeline_landscape_video.video_writing import check_output

    if (prompt is None) == (prompts_along is None):
        raise ValueError("give either a prompt or `prompts_along`.")
    text = prompt if prompts_along is None else read_prompts_along(prompts_along)
    if prompt is not None and not prompt.strip():
        raise ValueError("a prompt must not be empty.")
    image = picture or output.with_name(f"{output.stem}.png")
    if image.suffix.lower() != ".png" or not image.absolute().parent.is_dir():
        raise ValueError(f"`picture` must be a .png file in an existing folder, got {image}.")
    check_output(output, settings.frame_rate)
    warn_about_unknown_words([text], models.model)

    # 2. Load
    pipe = load_pipeline(models)
    settings = settings.with_seed()
    # Imported here: neither --help nor a wrong path may wait for torch.
    from landscape_video.generation.scroll import describe_scroll, generate_scroll
    from pipeline_landscape_video.atomic_writing import write_file

    typer.echo(f"seed {settings.seed}, {pipe._execution_device}; {describe_scroll(pipe, settings)}", err=True)

    # 3. Generate and write
    pipe.set_progress_bar_config(desc=output.name, file=sys.stderr)
    generated = generate_scroll(pipe, text, settings)
    with write_file(image) as unfinished:
        generated.picture.save(unfinished, format="png")
    typer.echo(f"{image}: {generated.picture.width} x {generated.picture.height}")
    write_clip(output, generated.clip, models)


def read_prompts_along(path: Path) -> dict[float, str]:
    """Return the prompts of a text file by the share of the scroll at which they begin.

    Raises:
        ValueError: The file is not UTF-8 text, a line is not "SHARE: PROMPT", or a share is out of order or of range.
    """
    prompts: dict[float, str] = {}
    for line in read_lines("prompts_along", path):
        share, _, prompt = line.partition(":")
        try:
            key = float(share)
        except ValueError:
            key = -1.0
        if not 0 <= key < 1 or not prompt.strip():
            raise ValueError(
                f'`prompts_along` {path}: a line must be like "0.5: hills at dawn", with a share from 0 to below 1, '
                f"got {line!r}."
            )
        if prompts and key <= max(prompts):
            raise ValueError(f"`prompts_along` {path}: shares must increase, got {key:g} after {max(prompts):g}.")
        prompts[key] = prompt.strip()
    if min(prompts) != 0:
        raise ValueError(f"`prompts_along` {path}: must begin with share 0, got {min(prompts):g}.")
    return prompts
