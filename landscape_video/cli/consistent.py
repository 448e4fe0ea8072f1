"""`landscape-video consistent`: generate a clip that follows another one and keeps its background consistent."""

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape_video.cli.generate import announce, read_prompts_over_time, warn_about_unknown_words, write_clip
from landscape_video.cli.options import with_settings
from landscape_video.generation.consistent_settings import FUSION, ConsistentClipSettings
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import CONTENT, ModelSettings


if TYPE_CHECKING:
    import torch

    from landscape_video.generation.consistent_clip import TunedPipeline


@with_settings
def consistent(
    clip: Annotated[
        Path,
        typer.Argument(
            metavar="CLIP|FOLDER",
            show_default=False,
            help="Clip to follow: a video, or a folder of frame_0000.png, ...",
        ),
    ],
    prompt: Annotated[str | None, typer.Option(metavar="TEXT", help="What to show.", rich_help_panel=CONTENT)] = None,
    prompts_over_time: Annotated[
        Path | None,
        typer.Option(
            "--prompts-over-time",
            metavar="FILE",
            help="Prompts from a UTF-8 text file, one per line after the frame at which it begins and a colon: "
            '"0: snow on the hills".',
            rich_help_panel=CONTENT,
        ),
    ] = None,
    masks: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE|FOLDER",
            help="Masks of an object, at the size of the clip: .npy or .npz arrays, a video, or a folder of "
            "frame_0000.png, ...; may be repeated, once for each object. Everything else is the background.",
            rich_help_panel=FUSION,
        ),
    ] = None,
    objects: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Array of an .npz file of masks; may be repeated.",
            show_default="all",
            rich_help_panel=FUSION,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="The new clip: .mp4, .gif, .webp, or a name without a suffix for a folder of PNG files.",
            rich_help_panel=CONTENT,
        ),
    ] = Path("consistent.mp4"),
    *,
    settings: ConsistentClipSettings,
    models: ModelSettings,
) -> None:
    """Generate a clip that follows another one and keeps its background and objects consistent.

        $ landscape-video consistent boat.mp4 --masks boat_masks --prompt "a boat on a lake, snow" --output snow.mp4

    The four modules of Consistency tuning run in the paper's order, and each can be switched off.
    """
    # 1. Check everything that can be wrong without loading a model
    from landscape_video.generation.consistent_inputs import read_inputs
    from pipeline_landscape_video.video_writing import check_output

    if (prompt is None) == (prompts_over_time is None):
        raise ValueError("give either `prompt` or `prompts_over_time`.")
    inputs = read_inputs(clip, masks or (), objects or (), settings)
    frame_rate = settings.fps or inputs.fps * (2 if settings.interpolate else 1)
    settings = replace(settings, fps=frame_rate, num_frames=len(inputs.frames))
    check_output(output, frame_rate)
    text = prompt if prompts_over_time is None else read_prompts_over_time(prompts_over_time, len(inputs.frames))
    captions = {0: text} if isinstance(text, str) else text
    warn_about_unknown_words([text], models.model)

    # 2. Load
    pipe = load_pipeline(models)
    settings = settings.with_seed()
    announce(pipe, settings)

    # 3. Generate and write
    # Imported here: neither --help nor a wrong path may wait for torch.
    from landscape_video.generation.consistent_clip import Modules, consistent_clip

    size = pipe.clip_size(settings.height, settings.width)
    modules = Modules(
        condition=inputs.condition(pipe, settings, size),
        segment=inputs.segmenter(pipe, settings, size),
        tune=partial(tune_and_load, models, settings, captions) if settings.tune else None,
        on_module=lambda name: pipe.set_progress_bar_config(desc=name, file=sys.stderr),
    )
    result = consistent_clip(pipe, inputs.source(size), text, settings, modules)
    result.metadata["source"] = clip.name
    write_clip(output, result, models)


def tune_and_load(
    models: ModelSettings,
    settings: ConsistentClipSettings,
    captions: dict[int, str],
    latents: "torch.Tensor",
    background: "torch.Tensor",
) -> "TunedPipeline":
    """Tune a model on the frames of a clip, and load the result; see `tune_on_clip`."""
    from landscape_video.generation.consistent_clip import TunedPipeline
    from landscape_video.training.run.consistency_tuning import tune_on_clip
    from landscape_video.training.settings.inputs import default_cache_dir

    tuned = tune_on_clip(
        models,
        latents,
        background,
        captions,
        default_cache_dir(),
        seed=settings.seed,
        max_train_steps=settings.tune_steps,
        tuned_layers=settings.tuned_layers,
        learning_rate=settings.learning_rate,
        diffusion_weight=settings.diffusion_weight,
        foreground_loss_weight=settings.foreground_loss_weight,
        background_loss_weight=settings.background_loss_weight,
        learn_fusion_weights=settings.learn_fusion_weights,
        fusion_frames=settings.fusion_frames,
        beta_schedule=settings.beta_schedule,
    )
    typer.echo(f"tuned weights: {tuned.folder}", err=True)
    pipe = load_pipeline(replace(models, **tuned.models(models)))
    if tuned.is_lora:  # merged layers run in half the time of LoRA layers
        pipe.fuse_lora()
        pipe.unload_lora_weights()
    pipe.set_progress_bar_config(desc="inter-frame consistency", file=sys.stderr)
    return TunedPipeline(pipe, tuned.background_weight, tuned.foreground_weight)
