"""`landscape-video evaluate`: measure clips, or the models that generate them."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from landscape_video.cli.generate import read_prompts_file
from landscape_video.cli.options import option_of
from landscape_video.generation.models import pick_device, pick_dtype
from landscape_video.generation.settings import SAMPLING, ModelSettings, TextToVideoSettings
from pipeline_landscape_video.embedded_model import EMBEDDED_MODEL


I3DPreset = Literal["stylegan-v", "center-crop"]

INPUT, MEASUREMENT = "What to evaluate", "Measurement"


def evaluate(
    videos: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]FOLDER",
            help="Existing clips; may be repeated. Prompts come from the clips themselves (those of `generate`), from "
            "CLIP.txt beside each, or from metadata.jsonl (file_name, text).",
            rich_help_panel=INPUT,
        ),
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Real clips, for FVD and KVD: as many as possible, at least hundreds.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    model: option_of(
        ModelSettings,
        "model",
        help="Pipeline that generates clips of --prompts, as in `generate`.",
        show_default=f"{EMBEDDED_MODEL} unless there is a --baseline",
        rich_help_panel=INPUT,
    ) = None,
    motion_adapter: option_of(
        ModelSettings, "motion_adapter", help="Motion modules for --model.", rich_help_panel=INPUT
    ) = None,
    lora: Annotated[
        str | None, typer.Option(metavar="FILE|FOLDER|NAME", help="LoRA weights for --model.", rich_help_panel=INPUT)
    ] = None,
    baseline: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FORM=MODEL,...",
            help="Another pipeline that generates clips of --prompts; may be repeated. FORM is landscape, "
            "animatediff, animatelcm, animatediff-lightning, text2video-zero, or diffusers for any that takes "
            "num_frames (ModelScope, CogVideoX, Wan, ...). Optional, each after a comma: adapter=, lora=, name=, and "
            "steps= and guidance= instead of the settings that its authors publish.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option("--prompts", metavar="FILE", help="UTF-8 text, one prompt a line.", rich_help_panel=INPUT),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Images that the clips of --videos begin with, by the same names: adds first-frame fidelity.",
            rich_help_panel=INPUT,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FOLDER",
            help="Folder for results.json, results.md and the clips. After a stop, the same command resumes there.",
            rich_help_panel=INPUT,
        ),
    ] = Path("evaluation"),
    num_frames: Annotated[
        int,
        typer.Option(
            min=2, metavar="NUMBER", help="Frames of each clip; FVD16 needs 16.", rich_help_panel=MEASUREMENT
        ),
    ] = 16,
    frame_stride: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Frame stride: use every N-th frame of --videos and --reference.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = 1,
    clip: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="CLIP model for CLIP-temp, CLIP-text and frame consistency: openai/clip-vit-large-patch14 gives the "
            "numbers of the papers; numbers of the default model are not comparable with published ones.",
            show_default=f"that of {EMBEDDED_MODEL}",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    clip_sim: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER|NAME",
            help="Another CLIP model for CLIP-SIM, such as openai/clip-vit-base-patch32.",
            show_default="that of --clip",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    i3d: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="I3D of Kinetics-400 for FVD and KVD: i3d_torchscript.pt or a state dict in pytorch-i3d's layout.",
            show_default="features of --clip, labeled as such",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    i3d_preset: Annotated[
        I3DPreset,
        typer.Option(help="How frames become I3D's 224 x 224: stretched, or cropped.", rich_help_panel=MEASUREMENT),
    ] = "stylegan-v",
    video_classifier: Annotated[
        str | None,
        typer.Option(
            "--video-classifier",
            metavar="FOLDER|NAME",
            help="Video classifier such as VideoMAE, for the inception score (IS); needs 10 clips.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            metavar="NAME,...",
            help="Metrics to measure, by name or prefix: fvd,camera for FVD and all metrics of the camera. The "
            "accuracy of camera, palette and motifs needs labels, which are columns of metadata.jsonl.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = "default",
    scene_classifier: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Scene classifier for the accuracy of palette and motifs; training/shanshui/measure.py writes one.",
            rich_help_panel=MEASUREMENT,
        ),
    ] = None,
    seed: option_of(
        TextToVideoSettings, "seed", help="Seed of the noise and of the confidence intervals.", show_default=True
    ) = 0,
    repeats: Annotated[
        int,
        typer.Option(
            min=1, metavar="NUMBER", help="Clips of each prompt, with other noise.", rich_help_panel=SAMPLING
        ),
    ] = 1,
    steps: option_of(TextToVideoSettings, "steps", help="Denoising steps of --model.") = None,
    guidance_scale: option_of(TextToVideoSettings, "guidance_scale", help="Guidance scale of --model.") = None,
    height: option_of(TextToVideoSettings, "height") = None,
    width: option_of(TextToVideoSettings, "width") = None,
    negative_prompt: option_of(TextToVideoSettings, "negative_prompt", rich_help_panel=SAMPLING) = None,
    interpolate: option_of(
        TextToVideoSettings,
        "interpolate",
        help="Sample half as many frames, plus one, and interpolate between them; for our own pipelines.",
        rich_help_panel=SAMPLING,
    ) = False,
    device: option_of(ModelSettings, "device") = "auto",
    dtype: option_of(ModelSettings, "dtype") = "auto",
) -> None:
    """Measure clips side by side: consistency, faithfulness to the prompt, motion, flicker.

    Existing clips, against real ones:

        $ landscape-video evaluate --videos mine=clips --videos theirs=others --reference paintings

    The bundled model, with one clip for each line of a file:

        $ landscape-video evaluate --prompts views.txt --output tiny

    An adapter of your own beside AnimateDiff's, with the CLIP and I3D of the papers, all from local folders:

        $ landscape-video evaluate --prompts views.txt --model stable-diffusion-v1-5 --motion-adapter my-mountains
        --baseline animatediff=stable-diffusion-v1-5,adapter=animatediff-motion-adapter-v1-5-2
        --reference paintings --i3d i3d_torchscript.pt --clip clip-vit-large-patch14

    Where the camera of existing clips goes, and how often that is the camera of metadata.jsonl:

        $ landscape-video evaluate --videos clips --metrics camera

    To use every GPU of a machine, write `accelerate launch -m landscape_video evaluate` instead of the first two
    words.

    CLIP-temp rewards static clips: read it beside the dynamic degree and the row "still", the first frame repeated.
    FVD is biased upwards for few clips, and comparable only for the same number of clips and the same weights. These,
    and everything else the numbers depend on, are printed below the table.
    """
    # 1. Check everything that can be wrong without loading a model
    all_prompts = [] if prompts_file is None else read_prompts_file(prompts_file)
    folders = name_folders(videos or [])
    if model is None and (motion_adapter or lora):
        raise ValueError("`motion_adapter` and `lora` need a `model`.")
    if model is None and all_prompts and not baseline:
        model = EMBEDDED_MODEL
    given = {"num_frames": num_frames, "height": height, "width": width, "negative_prompt": negative_prompt}
    settings = TextToVideoSettings(
        **given, steps=steps, guidance_scale=guidance_scale, seed=seed, interpolate=interpolate
    )

    from landscape_video.evaluation.evaluate import Plan, start_processes
    from landscape_video.evaluation.evaluate import evaluate as run
    from landscape_video.evaluation.metrics.measurements import MetricModels
    from landscape_video.evaluation.results import markdown
    from landscape_video.evaluation.systems.text_to_video import SystemSpec, parse_system
    from pipeline_landscape_video.quiet_loading import less_chatter

    state = start_processes(device)
    target = state.device if state.num_processes > 1 else pick_device(device)
    dtype = pick_dtype(dtype, target)
    systems = []
    if model is not None:
        name = Path(motion_adapter or model).name
        systems.append(SystemSpec(name, "landscape", model, motion_adapter, lora, settings, dtype))
    systems += [parse_system(text, settings, dtype) for text in baseline or []]
    numbers = (num_frames, frame_stride, seed, repeats)
    plan = Plan(output, folders, systems, all_prompts, reference, images, *numbers, metrics.split(","))
    plan.check()

    # 2. Load what measures, then generate, measure and report
    with less_chatter():
        models = MetricModels.load(clip, clip_sim, i3d, i3d_preset, video_classifier, scene_classifier, target)
    results = run(plan, models, target, state)
    if results is not None:
        typer.echo(markdown(results))
        typer.echo(f"{output / 'results.json'}, {output / 'results.md'}", err=True)


def name_folders(videos: list[str]) -> dict[str, Path]:
    """The folders of `--videos` by name. Raises `ValueError` if two have one name."""
    folders = {}
    for given in videos:
        name, equals, folder = given.partition("=")
        folder = Path(folder if equals else given)
        name = name if equals else folder.resolve().name
        if name in folders:
            raise ValueError(f"`videos` must have different names, got {name!r} twice; write NAME=FOLDER.")
        folders[name] = folder
    return folders
