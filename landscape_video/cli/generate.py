"""`landscape-video generate`: prompts in, clips out."""

import os
import secrets
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from landscape_video.cli.common import (
    DEVICE_HELP,
    FLOW_HELP,
    FLOW_WEIGHTS_HELP,
    SOFP_HELP,
    Flow,
    SofpMode,
    check_flow_weights,
    environment,
    finite_and_positive,
    from_0_to_1,
    name_of_flow_estimator,
    pick_device,
    seed_in_range,
)
from landscape_video.cli.vocabulary import unknown_words
from landscape_video.generation.models import Dtype, Offload, check_models, load_pipeline, model_source
from pipeline_landscape_video.embedded_model import EMBEDDED, EMBEDDED_MODEL, PAPER, choose_sampling


if TYPE_CHECKING:
    import numpy as np
    import torch

    from pipeline_landscape_video import FlowEstimator, LandscapeImageToVideoPipeline, LandscapeVideoPipeline


WHAT, HOW, WITH, WHERE = "What to paint", "How", "With which models", "Where it runs"
WITH_THE_FAMILY = "with the model that came with the program and what was trained from it."

Prompts = Annotated[
    list[str] | None, typer.Argument(metavar="PROMPT...", help="What to paint; several prompts make several clips.")
]
PromptsFile = Annotated[
    Path | None,
    typer.Option(
        "--prompts", metavar="FILE", help="Prompts from a UTF-8 text file, one a line.", rich_help_panel=WHAT
    ),
]
NegativePrompt = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What to keep out of the picture.", rich_help_panel=WHAT)
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        help="The clip: .mp4, .gif, .webp, or a name without a suffix for a folder of PNG. With several prompts the "
        "names are numbered: mist-01.mp4, mist-02.mp4, ...",
        rich_help_panel=WHAT,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        callback=seed_in_range,
        metavar="NUMBER",
        help="The same seed gives the same clip. Without it one is drawn, and printed.",
        rich_help_panel=HOW,
    ),
]
NumFrames = Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Frames to sample.", rich_help_panel=HOW)]
Height = Annotated[
    int | None,
    typer.Option(min=8, metavar="PIXELS", help="A multiple of 8; by default the model's own.", rich_help_panel=HOW),
]
Width = Annotated[int | None, typer.Option(min=8, metavar="PIXELS", help="As --height.", rich_help_panel=HOW)]
Steps = Annotated[
    int, typer.Option(min=1, metavar="NUMBER", help="Denoising steps: more are slower and finer.", rich_help_panel=HOW)
]
GuidanceScale = Annotated[
    float | None,
    typer.Option(
        callback=finite_and_positive,
        metavar="NUMBER",
        help="How strictly the prompt is followed; up to 1 the negative prompt counts for nothing. By default "
        f"{PAPER.guidance_scale:g}, or {EMBEDDED.guidance_scale:g} {WITH_THE_FAMILY}",
        rich_help_panel=HOW,
    ),
]
Eta = Annotated[
    float | None,
    typer.Option(
        callback=from_0_to_1,
        metavar="NUMBER",
        help="How much noise each step of a DDIM scheduler draws anew: 0 is DDIM, 1 is DDPM. By default "
        f"{PAPER.eta:g}, but {EMBEDDED.eta:g} in `generate` {WITH_THE_FAMILY}",
        rich_help_panel=HOW,
    ),
]
Interpolate = Annotated[
    bool,
    typer.Option(
        "--interpolate/--no-interpolate", help="Add a frame between every two: N become 2N - 1.", rich_help_panel=HOW
    ),
]
SofpModeOption = Annotated[SofpMode, typer.Option(help=SOFP_HELP, rich_help_panel=HOW)]
FlowOption = Annotated[Flow | None, typer.Option(help=FLOW_HELP, rich_help_panel=HOW)]
FlowWeights = Annotated[
    Path | None, typer.Option(metavar="FILE", help=FLOW_WEIGHTS_HELP, rich_help_panel=HOW, show_default=False)
]
Fps = Annotated[
    float | None,
    typer.Option(
        callback=finite_and_positive,
        metavar="NUMBER",
        help="Frames per second of the clip; by default 16, or 8 with --no-interpolate.",
        rich_help_panel=HOW,
    ),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="FOLDER|NAME",
        help="The pipeline: a folder, or a name on the Hugging Face Hub. The default came with the program.",
        rich_help_panel=WITH,
    ),
]
MotionAdapterOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|NAME",
        help="Motion modules for a --model that makes single pictures, such as Stable Diffusion 1.5.",
        rich_help_panel=WITH,
    ),
]
Lora = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE|FOLDER|NAME", help="LoRA weights; may be repeated.", rich_help_panel=WITH),
]
Device = Annotated[str, typer.Option(help=DEVICE_HELP, rich_help_panel=WHERE)]
DtypeOption = Annotated[
    Dtype, typer.Option(help="Precision; auto is float16 on a GPU, float32 on a CPU.", rich_help_panel=WHERE)
]
OffloadOption = Annotated[
    Offload,
    typer.Option(
        help="Keep on the GPU only the models at work, or (slower, smaller) only the layer at work.",
        rich_help_panel=WHERE,
    ),
]


def generate(
    prompts: Prompts = None,
    prompts_file: PromptsFile = None,
    negative_prompt: NegativePrompt = None,
    output: Output = Path("landscape.mp4"),
    seed: Seed = None,
    num_frames: NumFrames = 16,
    height: Height = None,
    width: Width = None,
    steps: Steps = 25,
    guidance_scale: GuidanceScale = None,
    eta: Eta = None,
    interpolate: Interpolate = True,
    sofp_mode: SofpModeOption = SofpMode.quadratic,
    flow: FlowOption = None,
    flow_weights: FlowWeights = None,
    fps: Fps = None,
    model: Model = EMBEDDED_MODEL,
    motion_adapter: MotionAdapterOption = None,
    lora: Lora = None,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
    offload: OffloadOption = Offload.none,
) -> None:
    """Paint a clip for each prompt.

    A first clip, by the small model that came with the program:

        $ landscape-video generate "mist drifting over layered mountains" --output mist.mp4

    The same clip again, as GIF, with the seed that was printed:

        $ landscape-video generate "mist drifting over layered mountains" --seed 7 --output mist.gif

    Every line of a file; clips/view-01.mp4, clips/view-02.mp4, ...:

        $ landscape-video generate --prompts views.txt --output clips/view.mp4

    Stable Diffusion 1.5 with motion modules:

        $ landscape-video generate "a boat on a calm lake" --model stable-diffusion-v1-5/stable-diffusion-v1-5
        --motion-adapter FOLDER

    Prompt, seed, settings and versions are stored in the clip. The same seed gives the same frames with the same
    versions, threads, device and flow estimator.
    """
    from pipeline_landscape_video.video_writing import write_video

    # 1. Everything that can be wrong without loading a model
    all_prompts = read_prompts(prompts, prompts_file)
    outputs = numbered_outputs(output, len(all_prompts))
    fps = fps or sampled_fps(interpolate)
    check_outputs(outputs, fps)
    check_sizes(num_frames, height, width)
    check_models(model, motion_adapter, lora)
    check_flow_weights(flow, flow_weights)
    warn_about_unknown_words(all_prompts, model_source(model))

    # 2. Load
    target = pick_device(device)
    pipe = load_pipeline(model, motion_adapter, lora, target, dtype, offload)
    check_steps(pipe, steps)
    flow_estimator = pipe.get_flow_estimator(flow and flow.value, flow_weights) if interpolate else None

    # 3. Paint and write, clip by clip
    seed = secrets.randbelow(2**32) if seed is None else seed
    sampling = choose_sampling(pipe, guidance_scale, eta)
    settings = {
        "negative_prompt": negative_prompt,
        "seed": seed,
        "num_frames": num_frames,
        "height": height,
        "width": width,
        "steps": steps,
        **sampling,
        "model": model,
        "motion_adapter": motion_adapter,
        "lora": lora or [],
        **settings_of_run(pipe, target, offload, sofp_mode, flow_estimator, flow_weights),
    }
    typer.echo(f"seed {seed}, {target}, {settings['dtype']}", err=True)
    for index, (prompt, path) in enumerate(zip(all_prompts, outputs, strict=True), start=1):
        label = path.name if len(outputs) == 1 else f"{index}/{len(outputs)} {path.name}"
        pipe.set_progress_bar_config(desc=label, file=sys.stderr)
        frames = paint(
            pipe,
            seed,
            prompt=prompt,
            negative_prompt=negative_prompt,
            num_frames=num_frames,
            height=height,
            width=width,
            num_inference_steps=steps,
            **sampling,
            interpolate=interpolate,
            sofp_mode=sofp_mode.value,
            flow_estimator=flow_estimator,
        )
        size = {"height": frames.shape[1], "width": frames.shape[2]}
        write_video(path, frames, fps, {"prompt": prompt, **settings, **size})
        typer.echo(f"{path}: {len(frames)} frames of {size['width']} x {size['height']}, {fps:g} fps, seed {seed}")


def read_prompts(prompts: list[str] | None, prompts_file: Path | None) -> list[str]:
    """The prompts of the command line or of the file. Raises `ValueError` for both, none, or empty ones."""
    if prompts and prompts_file is not None:
        raise ValueError("give prompts either as arguments or with --prompts, not both.")
    if prompts_file is None:
        if not prompts:
            raise ValueError("there is no prompt; give one, or a file of them with --prompts.")
        if any(not prompt.strip() for prompt in prompts):
            raise ValueError("a prompt is empty.")
        return prompts
    if not prompts_file.is_file():
        raise ValueError(f"--prompts {prompts_file}: there is no such file.")
    try:
        text = prompts_file.read_text(encoding="utf-8-sig")  # with or without the byte-order mark of Windows' editors
    except UnicodeDecodeError as error:
        raise ValueError(f"--prompts {prompts_file}: is not UTF-8 text ({error}).") from error
    if "\0" in text:
        raise ValueError(f"--prompts {prompts_file}: is not text (it holds a NUL byte).")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"--prompts {prompts_file}: holds no prompt.")
    return lines


def warn_about_unknown_words(prompts: list[str], model: str) -> None:
    """Name, in one line, the words that a small model has never met."""
    unknown = unknown_words("\n".join(prompts), model)
    if unknown:
        typer.echo(f"warning: this model has never met: {', '.join(unknown)}; see words.json in {model}", err=True)


def numbered_outputs(output: Path, count: int) -> list[Path]:
    """`mist.mp4` for one prompt; `mist-01.mp4`, `mist-02.mp4`, ... for several."""
    if count == 1:
        return [output]
    digits = max(2, len(str(count)))
    return [output.with_name(f"{output.stem}-{index:0{digits}d}{output.suffix}") for index in range(1, count + 1)]


def sampled_fps(interpolate: bool) -> float:
    """Frames a second of a clip for which nothing else is asked."""
    from pipeline_landscape_video.video_writing import SAMPLED_FPS

    return SAMPLED_FPS * (2 if interpolate else 1)


def check_outputs(outputs: list[Path], fps: float) -> None:
    """Raise for an output that cannot be written, now rather than after a minute of painting."""
    from pipeline_landscape_video.video_writing import check_output

    for output in outputs:
        check_output(output, fps)
    folder = outputs[0].parent
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"--output {outputs[0]}: the folder {folder} cannot be written to.")


def check_sizes(num_frames: int, height: int | None, width: int | None) -> None:
    """Raise for sizes that no model takes, or that the memory of this machine cannot hold."""
    for name, size in (("height", height), ("width", width)):
        if size is not None and size % 8:
            raise ValueError(f"--{name} is {size}, but must be a multiple of 8.")
    if hasattr(os, "sysconf"):
        # A lower bound, so that it never refuses what would run: the decoded frames in float32, twice, interpolated.
        needed = 2 * 4 * 3 * (2 * num_frames - 1) * (height or 8) * (width or 8)
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > memory:
            raise ValueError(
                f"{num_frames} frames of {width or 'any width'} x {height or 'any height'} need more than "
                f"{needed / 2**30:.0f} GiB; this machine has {memory / 2**30:.0f} GiB."
            )


def check_steps(pipe: "LandscapeVideoPipeline", steps: int) -> None:
    """Raise for more steps than the scheduler has, as the pipeline would, but with the name of the option."""
    from pipeline_landscape_video.landscape_scheduler import check_num_inference_steps

    try:
        check_num_inference_steps(pipe.scheduler, steps)
    except ValueError as error:
        raise ValueError(f"--steps {steps}: {error}") from error


def settings_of_run(
    pipe: "LandscapeVideoPipeline | LandscapeImageToVideoPipeline",
    device: "torch.device",
    offload: Offload,
    sofp_mode: SofpMode,
    flow_estimator: "FlowEstimator | None",
    flow_weights: Path | None,
) -> dict[str, Any]:
    """What a clip's metadata say of how it was computed; without a flow estimator it was not interpolated."""
    return {
        "sofp_mode": sofp_mode.value if flow_estimator else None,
        "flow": name_of_flow_estimator(flow_estimator) if flow_estimator else None,
        "flow_weights": str(flow_weights) if flow_estimator and flow_weights else None,
        "dtype": str(pipe.unet.dtype).removeprefix("torch."),
        "offload": offload.value,
        **environment(device),
    }


def paint(pipe: "LandscapeVideoPipeline | LandscapeImageToVideoPipeline", seed: int, **arguments: Any) -> "np.ndarray":
    """One clip, `(num_frames, height, width, 3)` float32 in [0, 1].

    The noise is drawn on the CPU, so that a seed means the same on every device.
    """
    import numpy as np
    import torch

    generator = torch.Generator("cpu").manual_seed(seed)
    frames = pipe(generator=generator, output_type="np", **arguments).frames[0]
    if not np.isfinite(frames).all():
        raise typer.TyperException(f"the model computed NaN in {pipe.unet.dtype}; try --dtype float32.")
    return frames
