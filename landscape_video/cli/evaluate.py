"""`landscape-video evaluate`: how good are clips, or the models that make them."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from landscape_video.cli.common import DEVICE_HELP, finite_and_positive, pick_device, seed_in_range
from landscape_video.cli.generate import read_prompts
from landscape_video.generation.models import Dtype
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL


class I3DPreset(StrEnum):
    stylegan_v = "stylegan-v"
    center_crop = "center-crop"


WHAT, PAINT, MEASURE, WHERE = "What to measure", "How to paint", "How to measure", "Where it runs"

Videos = Annotated[
    list[str] | None,
    typer.Option(
        metavar="[NAME=]FOLDER",
        help="Clips that are there; may be repeated. What each shows stands inside (clips of `generate`), in CLIP.txt "
        "beside it, or in metadata.jsonl (file_name, text).",
        rich_help_panel=WHAT,
    ),
]
Reference = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="True clips, for FVD and KVD: as many as possible, hundreds at least.",
        rich_help_panel=WHAT,
    ),
]
Model = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|NAME",
        help=f"A pipeline that paints --prompts, as in `generate`; {EMBEDDED_MODEL} where no --baseline does.",
        rich_help_panel=WHAT,
    ),
]
MotionAdapterOption = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|FILE|NAME", help="Motion modules for --model, as in `generate`.", rich_help_panel=WHAT
    ),
]
Lora = Annotated[
    str | None, typer.Option(metavar="FILE|FOLDER|NAME", help="LoRA weights for --model.", rich_help_panel=WHAT)
]
Baseline = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FORM=MODEL,...",
        help="Another pipeline that paints --prompts; may be repeated. FORM is landscape, animatediff, animatelcm, "
        "animatediff-lightning, text2video-zero, or diffusers for any that takes num_frames (ModelScope, CogVideoX, "
        "Wan, ...). Then, each after a comma: adapter=, lora=, name=, steps=, guidance=; by default the settings that "
        "its authors publish.",
        rich_help_panel=WHAT,
    ),
]
PromptsFile = Annotated[
    Path | None,
    typer.Option("--prompts", metavar="FILE", help="UTF-8 text, one prompt a line.", rich_help_panel=WHAT),
]
Images = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Pictures that the clips of --videos were made from, with their names: adds first-frame fidelity.",
        rich_help_panel=WHAT,
    ),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output",
        "-o",
        metavar="FOLDER",
        help="Gets results.json, results.md and the clips. The same command goes on there after a stop.",
        rich_help_panel=WHAT,
    ),
]
NumFrames = Annotated[
    int, typer.Option(min=2, metavar="NUMBER", help="Frames of each clip: FVD16 has 16.", rich_help_panel=MEASURE)
]
FrameStride = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="NUMBER",
        help="Takes every so manieth frame of --videos and --reference.",
        rich_help_panel=MEASURE,
    ),
]
Seed = Annotated[
    int,
    typer.Option(
        callback=seed_in_range, metavar="NUMBER", help="Of noise and of the spreads' draws.", rich_help_panel=PAINT
    ),
]
Repeats = Annotated[
    int, typer.Option(min=1, metavar="NUMBER", help="Clips of each prompt, with other noise.", rich_help_panel=PAINT)
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, metavar="NUMBER", help="Denoising steps of --model; by default 25.", rich_help_panel=PAINT),
]
GuidanceScale = Annotated[
    float | None,
    typer.Option(
        callback=finite_and_positive, metavar="NUMBER", help="Of --model; as in `generate`.", rich_help_panel=PAINT
    ),
]
Height = Annotated[
    int | None, typer.Option(min=8, metavar="PIXELS", help="By default each model's own.", rich_help_panel=PAINT)
]
Width = Annotated[int | None, typer.Option(min=8, metavar="PIXELS", help="As --height.", rich_help_panel=PAINT)]
NegativePrompt = Annotated[
    str | None, typer.Option(metavar="TEXT", help="What to keep out of the picture.", rich_help_panel=PAINT)
]
Interpolate = Annotated[
    bool,
    typer.Option(
        "--interpolate/--no-interpolate",
        help="For pipelines of ours: paint half as many frames, plus one, and fill in between.",
        rich_help_panel=PAINT,
    ),
]
Clip = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|NAME",
        help="CLIP for CLIP-temp, CLIP-text and frame consistency: openai/clip-vit-large-patch14 gives the papers' "
        f"numbers. By default {EMBEDDED_MODEL}'s own, whose numbers compare with no one else's.",
        rich_help_panel=MEASURE,
    ),
]
ClipSim = Annotated[
    str | None,
    typer.Option(
        metavar="FOLDER|NAME",
        help="Another CLIP for CLIP-SIM, such as openai/clip-vit-base-patch32.",
        rich_help_panel=MEASURE,
    ),
]
I3D = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="I3D of Kinetics-400 for FVD and KVD: i3d_torchscript.pt or a state dict in pytorch-i3d's layout. "
        "Without it they are made of --clip, and labelled so.",
        rich_help_panel=MEASURE,
    ),
]
I3DPresetOption = Annotated[
    I3DPreset,
    typer.Option(help="How frames come to I3D's 224 x 224: stretched, or cropped.", rich_help_panel=MEASURE),
]
Classifier = Annotated[
    str | None,
    typer.Option(
        "--video-classifier",
        metavar="FOLDER|NAME",
        help="VideoMAE or the like, for the inception score (IS); needs 10 clips.",
        rich_help_panel=MEASURE,
    ),
]
Device = Annotated[str, typer.Option(help=DEVICE_HELP, rich_help_panel=WHERE)]
DtypeOption = Annotated[
    Dtype, typer.Option(help="Precision of painting; auto is float16 on a GPU.", rich_help_panel=WHERE)
]


def evaluate(
    videos: Videos = None,
    reference: Reference = None,
    model: Model = None,
    motion_adapter: MotionAdapterOption = None,
    lora: Lora = None,
    baseline: Baseline = None,
    prompts: PromptsFile = None,
    images: Images = None,
    output: Output = Path("evaluation"),
    num_frames: NumFrames = 16,
    frame_stride: FrameStride = 1,
    clip: Clip = None,
    clip_sim: ClipSim = None,
    i3d: I3D = None,
    i3d_preset: I3DPresetOption = I3DPreset.stylegan_v,
    video_classifier: Classifier = None,
    seed: Seed = 0,
    repeats: Repeats = 1,
    steps: Steps = None,
    guidance_scale: GuidanceScale = None,
    height: Height = None,
    width: Width = None,
    negative_prompt: NegativePrompt = None,
    interpolate: Interpolate = False,
    device: Device = "auto",
    dtype: DtypeOption = Dtype.auto,
) -> None:
    """Measure how good clips are, side by side: do frames hang together, follow the prompt, move, flicker.

    Clips that are there, against true ones:

        $ landscape-video evaluate --videos mine=clips --videos theirs=others --reference paintings

    The small model that came with the program, painting every line of a file:

        $ landscape-video evaluate --prompts views.txt --output tiny

    An adapter of yours beside stock AnimateDiff, with the papers' CLIP and I3D, all in folders here:

        $ landscape-video evaluate --prompts views.txt --model stable-diffusion-v1-5 --motion-adapter my-mountains
        --baseline animatediff=stable-diffusion-v1-5,adapter=animatediff-motion-adapter-v1-5-2
        --reference paintings --i3d i3d_torchscript.pt --clip clip-vit-large-patch14

    On every GPU of a machine write `accelerate launch -m landscape_video evaluate` in place of the first two words.

    CLIP-temp rewards clips that stand still: read it beside the dynamic degree and the row "still", the first frame
    repeated. FVD of few clips is too high, and compares only between the same number of clips with the same weights:
    those, and all else the numbers depend on, are printed below the table.
    """
    # 1. Everything that can be wrong without loading a model
    all_prompts = [] if prompts is None else read_prompts(None, prompts)
    for name, size in (("height", height), ("width", width)):
        if size is not None and size % 8:
            raise ValueError(f"--{name} is {size}, but must be a multiple of 8.")
    folders = {}
    for given in videos or []:
        name, equals, folder = given.partition("=")
        folder = Path(folder if equals else given)
        name = name if equals else folder.resolve().name
        if name in folders:
            raise ValueError(f"--videos: two folders are called {name!r}; write --videos NAME=FOLDER.")
        folders[name] = folder

    from landscape_video.evaluation.evaluate import Plan, start_processes
    from landscape_video.evaluation.evaluate import evaluate as run
    from landscape_video.evaluation.metrics.registry import Measurers
    from landscape_video.evaluation.report.table import markdown
    from landscape_video.evaluation.systems.text_to_video import Settings, SystemSpec, parse_system
    from pipeline_landscape_video.quiet_loading import less_chatter

    state = start_processes(device)
    target = state.device if state.num_processes > 1 else pick_device(device)
    if dtype is Dtype.auto:
        dtype = Dtype.float32 if target.type == "cpu" else Dtype.float16
    shared = Settings(
        num_frames=num_frames, height=height, width=width, negative_prompt=negative_prompt, dtype=dtype.value
    )
    systems = []
    if model is None and (motion_adapter or lora):
        raise ValueError("--motion-adapter and --lora belong to a --model.")
    if model is None and all_prompts and not baseline:
        model = EMBEDDED_MODEL
    if model is not None:
        own = {"steps": steps, "guidance_scale": guidance_scale, "interpolate": interpolate}
        name = Path(motion_adapter or model).name
        systems.append(SystemSpec(name, "landscape", model, motion_adapter, lora, replace(shared, **own)))
    systems += [parse_system(text, replace(shared, interpolate=interpolate)) for text in baseline or []]
    plan = Plan(
        output, folders, systems, all_prompts, reference, images, num_frames, frame_stride, seed=seed, repeats=repeats
    )
    plan.check()

    # 2. Load what measures, then paint, measure and tell
    with less_chatter():
        measurers = Measurers.load(clip, clip_sim, i3d, i3d_preset.value, video_classifier, target)
    results = run(plan, measurers, target, state)
    if results is not None:
        typer.echo(markdown(results))
        typer.echo(f"{output / 'results.json'}, {output / 'results.md'}", err=True)
