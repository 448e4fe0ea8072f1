"""`landscape-video animate`: a painting in, a clip that begins with it out."""

import math
import secrets
import sys
import warnings
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape_video.cli.common import SofpMode, check_flow_weights, finite_and_positive, pick_device
from landscape_video.cli.generate import (
    HOW,
    WHAT,
    WITH,
    WITH_THE_FAMILY,
    Device,
    DtypeOption,
    Eta,
    FlowOption,
    FlowWeights,
    Fps,
    Height,
    Interpolate,
    Lora,
    Model,
    MotionAdapterOption,
    NegativePrompt,
    NumFrames,
    OffloadOption,
    Seed,
    SofpModeOption,
    Steps,
    Width,
    check_outputs,
    check_sizes,
    check_steps,
    paint,
    read_prompts,
    sampled_fps,
    settings_of_run,
    warn_about_unknown_words,
)
from landscape_video.generation.models import Dtype, Offload, check_branch, check_models, load_pipeline, model_source
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL, EMBEDDED_WITH_PICTURES, PAPER, choose_sampling


if TYPE_CHECKING:
    from PIL import Image


class Fit(StrEnum):  # the words of the library, again
    crop = "crop"
    pad = "pad"


class GuidanceOrder(StrEnum):
    picture_first = "picture_first"
    text_first = "text_first"


def finite(number: float) -> float:
    """typer callback for scales: 0 means something, infinity and NaN do not."""
    if not math.isfinite(number):
        raise typer.BadParameter(f"must be a finite number, not {number:g}.")
    return number


Picture = Annotated[
    Path, typer.Argument(show_default=False, help="The painting: any common picture file, of any size and colours.")
]
Prompts = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[PROMPT]...",
        help="What moves, and how. Several prompts are stages of one clip, each beginning where the last one ended. "
        "Without any, the picture says it all.",
    ),
]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts",
        metavar="FILE",
        help="The prompts of stages from a UTF-8 text file, one a line.",
        rich_help_panel=WHAT,
    ),
]
Stages = Annotated[
    int | None,
    typer.Option(min=1, metavar="NUMBER", help="Go on for so many stages with one prompt.", rich_help_panel=WHAT),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="The clip: .mp4, .gif, .webp, or a name without a suffix for a folder of PNG.",
        rich_help_panel=WHAT,
    ),
]
FitOption = Annotated[
    Fit,
    typer.Option(
        help="How the picture gets the shape of the clip, never distorted: cut what stands out on two sides, or show "
        "all of it on white paper.",
        rich_help_panel=HOW,
    ),
]
TextGuidanceScale = Annotated[
    float | None,
    typer.Option(
        "--guidance-scale",
        callback=finite_and_positive,
        metavar="NUMBER",
        help=f"How strictly the text is followed. By default {PAPER.guidance_scale:g}, or "
        f"{EMBEDDED_WITH_PICTURES.guidance_scale:g} {WITH_THE_FAMILY}",
        rich_help_panel=HOW,
    ),
]
ImageGuidanceScale = Annotated[
    float,
    typer.Option(
        callback=finite,
        metavar="NUMBER",
        help="How strictly the picture is followed: more keeps more of it, and adds contrast.",
        rich_help_panel=HOW,
    ),
]
GuidanceOrderOption = Annotated[
    GuidanceOrder,
    typer.Option(
        help="What the other is measured against: with the picture first, what a short text leaves open stays as it "
        "is in the picture (InstructPix2Pix); text first, the paper's, wants a text that tells all that is seen.",
        rich_help_panel=HOW,
    ),
]
RetentionScale = Annotated[
    float,
    typer.Option(
        callback=finite,
        metavar="NUMBER",
        help="How much of what the picture says is added to the model; 0 forgets it.",
        rich_help_panel=HOW,
    ),
]
HoldFirstFrame = Annotated[
    bool,
    typer.Option(
        help="Keep the first frame at the picture, as far as the model's autoencoder can, in all stages; without, the "
        "branch alone says what it shows, as in DreamVideo.",
        rich_help_panel=HOW,
    ),
]
DropDuplicateFrame = Annotated[
    bool,
    typer.Option(
        "--drop-duplicate-frame",
        help="Leave out the first frame of later stages, which repeats the last before it.",
        rich_help_panel=HOW,
    ),
]
MatchColours = Annotated[
    bool,
    typer.Option(
        "--match-stage-colours",
        help="Give later stages the colours of the frame they begin with.",
        rich_help_panel=HOW,
    ),
]
ImageRetentionOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|NAME",
        help="The trained branch that sees the picture, for a --model without one.",
        rich_help_panel=WITH,
    ),
]


def animate(
    picture: Picture,
    prompts: Prompts = None,
    prompts_file: PromptsFile = None,
    stages: Stages = None,
    negative_prompt: NegativePrompt = None,
    output: Output = Path("animated.mp4"),
    fit: FitOption = Fit.crop,
    seed: Seed = None,
    num_frames: NumFrames = 16,
    height: Height = None,
    width: Width = None,
    steps: Steps = 25,
    guidance_scale: TextGuidanceScale = None,
    eta: Eta = None,
    image_guidance_scale: ImageGuidanceScale = 1.5,
    guidance_order: GuidanceOrderOption = GuidanceOrder.picture_first,
    retention_scale: RetentionScale = 1.0,
    hold_first_frame: HoldFirstFrame = True,
    drop_duplicate_frame: DropDuplicateFrame = False,
    match_stage_colours: MatchColours = False,
    interpolate: Interpolate = True,
    sofp_mode: SofpModeOption = SofpMode.quadratic,
    flow: FlowOption = None,
    flow_weights: FlowWeights = None,
    fps: Fps = None,
    model: Model = EMBEDDED_MODEL,
    image_retention: ImageRetentionOption = None,
    motion_adapter: MotionAdapterOption = None,
    lora: Lora = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    offload: OffloadOption = Offload.none,
) -> None:
    """Bring a still painting to life.

        $ landscape-video animate painting.png "mist drifting, the boat sails to the left" --output boat.mp4

    Longer, and in two acts:

        $ landscape-video animate painting.png "mist drifting" "the camera moves closer" --output acts.mp4

    All of a tall scroll rather than its middle:

        $ landscape-video animate scroll.jpg "mist drifting right" --fit pad --output scroll.mp4

    Prompts, seed, settings and versions are stored in the clip, and the picture's name.
    """
    from pipeline_landscape_video.video_writing import write_video

    # 1. Everything that can be wrong without loading a model
    painting = open_picture(picture)
    texts = read_stages(prompts, prompts_file, stages)
    fps = fps or sampled_fps(interpolate)
    check_outputs([output], fps)
    check_sizes(num_frames * len(texts), height, width)
    check_models(model, motion_adapter, lora)
    check_branch(model, image_retention)
    check_flow_weights(flow, flow_weights)
    if retention_scale == 0 and len(texts) > 1:
        raise ValueError("--retention-scale 0: a stage would not see the end of the one before.")
    warn_about_unknown_words([text for text in texts if text], model_source(model))

    # 2. Load
    target = pick_device(device)
    pipe = load_pipeline(model, motion_adapter, lora, target, dtype, offload, image_retention, takes_pictures=True)
    check_steps(pipe, steps)
    flow_estimator = pipe.get_flow_estimator(flow and flow.value, flow_weights) if interpolate else None

    # 3. Paint and write
    seed = secrets.randbelow(2**32) if seed is None else seed
    asked = {
        "negative_prompt": negative_prompt,
        "num_frames": num_frames,
        **choose_sampling(pipe, guidance_scale, eta),
        "image_guidance_scale": image_guidance_scale,
        "guidance_order": guidance_order.value,
        "retention_scale": retention_scale,
        "hold_first_frame": hold_first_frame,
        "fit": fit.value,
        "drop_duplicate_frame": drop_duplicate_frame,
        "match_stage_colours": match_stage_colours,
    }
    settings = {
        "picture": picture.name,
        "prompts": texts,
        **asked,
        "seed": seed,
        "steps": steps,
        "model": model,
        "image_retention": image_retention,
        "motion_adapter": motion_adapter,
        "lora": lora or [],
        **settings_of_run(pipe, target, offload, sofp_mode, flow_estimator, flow_weights),
    }
    typer.echo(f"seed {seed}, {target}, {settings['dtype']}", err=True)
    pipe.set_progress_bar_config(desc=output.name, file=sys.stderr)
    frames = paint(
        pipe,
        seed,
        image=painting,
        prompt=texts[0] if len(texts) == 1 else None,
        prompts=texts if len(texts) > 1 else None,
        height=height,
        width=width,
        num_inference_steps=steps,
        interpolate=interpolate,
        sofp_mode=sofp_mode.value,
        flow_estimator=flow_estimator,
        **asked,
    )
    size = {"height": frames.shape[1], "width": frames.shape[2]}
    write_video(output, frames, fps, {**settings, **size})
    typer.echo(f"{output}: {len(frames)} frames of {size['width']} x {size['height']}, {fps:g} fps, seed {seed}")


def open_picture(path: Path) -> "Image.Image":
    """The picture in a file, upright and in RGB. Raises `ValueError` with the name of what is no usable picture."""
    from PIL import Image, UnidentifiedImageError

    from pipeline_landscape_video.landscape_pictures import check_picture_size, upright_rgb

    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "there is no such file"
        raise ValueError(f"{path}: {problem}.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # scans of paintings are large
            with Image.open(path) as picture:
                check_picture_size(picture)
                return upright_rgb(picture)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: is no picture that can be read.") from error
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path}: has more than {2 * Image.MAX_IMAGE_PIXELS / 1e6:.0f} million pixels.") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error


def read_stages(prompts: list[str] | None, prompts_file: Path | None, stages: int | None) -> list[str | None]:
    """The prompt of each stage, None where there is only the picture. Raises `ValueError` as `read_prompts`."""
    texts = read_prompts(prompts, prompts_file) if prompts or prompts_file is not None else [None]
    if stages is None or stages == len(texts):
        return texts
    if len(texts) > 1:
        raise ValueError(f"--stages {stages}: there are {len(texts)} prompts, one for each stage.")
    if texts == [None]:
        raise ValueError(f"--stages {stages}: needs a prompt.")
    return texts * stages
