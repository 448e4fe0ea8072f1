"""`landscape-video edit`: change season, palette or style of a video by words; layout and motion stay."""

import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape_video.cli.generate import numbered_outputs, read_prompts, warn_about_unknown_words
from landscape_video.cli.interpolate import open_output
from landscape_video.cli.options import with_settings
from landscape_video.generation.edit_settings import EDITING, EditSettings
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import CONTENT, ModelSettings


if TYPE_CHECKING:
    from landscape_video.generation.generate_clip import Clip
    from pipeline_landscape_video.video_io import VideoInfo


@with_settings
def edit(
    video: Annotated[Path, typer.Argument(metavar="VIDEO", show_default=False, help="Any video that FFmpeg reads.")],
    prompts: Annotated[
        list[str],
        typer.Argument(
            metavar="PROMPT...",
            show_default=False,
            help="What the video should show. Several prompts give several edits; or, with as many masks, one edit in "
            "which each masked object follows its own prompt.",
        ),
    ],
    source_prompt: Annotated[
        str,
        typer.Option(metavar="TEXT", help="What the video shows now.", show_default=False, rich_help_panel=CONTENT),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="The edited video: .mp4, which keeps sound, .gif, .webp, or a name without a suffix for a folder of "
            "PNG files. Several prompts give numbered names.",
            rich_help_panel=CONTENT,
        ),
    ] = Path("edited.mp4"),
    masks: Annotated[
        list[Path] | None,
        typer.Option(
            "--mask",
            metavar="FILE|FOLDER",
            help="What may change, white on black, at the size of the video: .npy or .npz arrays, a video, or a "
            "folder of frame_0000.png, ...; may be repeated, once for each prompt.",
            show_default="everything",
            rich_help_panel=EDITING,
        ),
    ] = None,
    tuned: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Weights that training/tune_one_shot.py tuned on this video.",
            show_default="none",
            rich_help_panel=EDITING,
        ),
    ] = None,
    depth: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|FOLDER|NAME",
            help="Depth of the video, for models that read it: a folder of images, a video, .npy, .npz, or the name "
            "of a depth model of transformers.",
            show_default="what render.py wrote beside the video",
            rich_help_panel=EDITING,
        ),
    ] = None,
    *,
    settings: EditSettings,
    models: ModelSettings,
) -> None:
    """Edit a video by words: season, palette or style change; layout, camera and motion stay.

        $ landscape-video edit river.mp4 --source-prompt "a river in summer" "the same river under snow" -o snow.mp4

    Only what a mask shows:

        $ landscape-video edit lake.mp4 --source-prompt "a boat on a lake" "a lake" --mask boat_mask --output lake2.mp4

    The new video has the frames, timestamps and sound of the old one, and the model's own size.
    """
    # 1. Check everything that can be wrong without loading a model
    from landscape_video.generation.masks import check_masks, read_masks
    from pipeline_landscape_video.video_io import iterate_video, probe_video
    from pipeline_landscape_video.video_writing import check_output

    texts = read_prompts(prompts, None)
    info = probe_video(video)
    shares = read_masks(masks) if masks else None
    outputs = numbered_outputs(output, len(texts) if shares is None or len(shares) == 1 else 1)
    for path in outputs:
        check_output(path, info.fps)
        if path.exists() and path.samefile(video):
            raise ValueError(f"{path}: is the input; give the output another name.")
    warn_about_unknown_words([source_prompt, *texts], models.model)
    given = list(iterate_video(video))
    if shares is not None:
        check_masks(shares, len(given), info.height, info.width)

    # 2. Load
    pipe = load_pipeline(models, "LandscapeVideoEditingPipeline")
    if tuned is not None:
        from pipeline_landscape_video.landscape_spatio_temporal_attention import load_tuned

        load_tuned(pipe.unet, tuned)
    settings = settings.with_seed()
    typer.echo(f"seed {settings.seed}, {pipe._execution_device}", err=True)
    pipe.set_progress_bar_config(desc=output.name, file=sys.stderr)

    # 3. Edit and write
    import numpy as np

    from landscape_video.generation.edit_clip import edit_clip

    frames, maps = np.stack([frame.pixels for frame in given]), None
    if pipe.reads_depth:
        from landscape_video.generation.depth import load_depth

        maps = load_depth(depth, frames, video, pipe._execution_device)
    elif depth is not None:
        raise ValueError(f"`depth` must not be given: {models.model} reads no depth.")
    clips = edit_clip(pipe, frames, source_prompt, texts, settings, shares, maps, float(info.fps))
    times = [frame.timestamp for frame in given]
    for path, clip in zip(outputs, clips, strict=True):
        clip.metadata["source"] = video.name
        write_edited(path, clip, video, info, [*times, times[-1] + given[-1].duration], models)


def write_edited(path: Path, clip: "Clip", video: Path, info: "VideoInfo", times: list, models: ModelSettings) -> None:
    """Write an edited clip: an .mp4 with the timestamps and tracks of the video, other formats with its rate."""
    from dataclasses import replace

    from landscape_video.cli.tracks import TrackCopy
    from pipeline_landscape_video.video_writing import write_video

    metadata, (height, width) = models.as_metadata() | clip.metadata, clip.size
    if path.suffix.lower() == ".mp4":
        written = replace(info, width=width, height=height, color_primaries=1, color_trc=1, bit_depth=8, hdr=None)
        with (
            closing(TrackCopy(video)) as tracks,
            open_output(path, written, 1, metadata | {"fps": clip.fps}, tracks.has_cover, False) as writer,
        ):
            tracks.start(writer.container)
            for frame, time, end in zip(clip.frames, times, times[1:], strict=False):
                tracks.advance(time)
                writer.write(frame, time, end - time)
            tracks.advance()
    else:
        write_video(path, clip.frames, clip.fps, metadata)
    typer.echo(f"{path}: {clip.num_frames} frames of {width} x {height}, {clip.fps:g} fps, seed {metadata['seed']}")
