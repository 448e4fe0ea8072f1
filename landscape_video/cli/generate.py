"""`landscape-video generate`: generate a clip for each prompt."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape_video.cli.options import with_settings
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.presets import check_preset
from landscape_video.generation.setting_fields import DEVICE
from landscape_video.generation.settings import CONTENT, ModelSettings, TextToVideoSettings
from landscape_video.generation.vocabulary import unknown_words
from motion_adapter.sources import local_path


if TYPE_CHECKING:
    from landscape_video.generation.generate_clip import Clip, ClipStream
    from pipeline_landscape_video import LandscapeImageToVideoPipeline, LandscapeVideoPipeline


@with_settings
def generate(
    prompts: Annotated[
        list[str] | None,
        typer.Argument(metavar="PROMPT...", help="What to generate; several prompts give several clips."),
    ] = None,
    prompts_file: Annotated[
        Path | None,
        typer.Option(
            "--prompts", metavar="FILE", help="Prompts from a UTF-8 text file, one per line.", rich_help_panel=CONTENT
        ),
    ] = None,
    prompts_over_time: Annotated[
        Path | None,
        typer.Option(
            "--prompts-over-time",
            metavar="FILE",
            help="Prompts of one clip from a UTF-8 text file, one per line after the frame at which it begins and a "
            'colon: "0: snow on the hills", "48: the snow melts".',
            rich_help_panel=CONTENT,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE|FOLDER",
            help="The clip: .mp4, .gif, .webp, or a name without a suffix for a folder of PNG files. Several prompts "
            "give numbered names: mist-01.mp4, mist-02.mp4, ...",
            rich_help_panel=CONTENT,
        ),
    ] = Path("landscape.mp4"),
    jobs: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="NUMBER",
            help="Processes that generate several prompts side by side; with GPUs, they share them out.",
            rich_help_panel=DEVICE,
        ),
    ] = 1,
    *,
    settings: TextToVideoSettings,
    models: ModelSettings,
) -> None:
    """Generate a clip for each prompt.

    A first clip, with the bundled model:

        $ landscape-video generate "mist drifting over layered mountains" --output mist.mp4

    The same clip as GIF, with the seed that was printed:

        $ landscape-video generate "mist drifting over layered mountains" --seed 7 --output mist.gif

    One clip for each line of a file, clips/view-01.mp4, clips/view-02.mp4, ...:

        $ landscape-video generate --prompts views.txt --output clips/view.mp4

    The same in two processes; if one is killed, another makes its clip:

        $ landscape-video generate --prompts views.txt --output clips/view.mp4 --jobs 2

    A longer clip, six seconds without an end:

        $ landscape-video generate "clouds drifting over layered mountains" --num-frames 48 --closed-loop

    A clip that changes, with the lines "0: snow on pines" and "48: rain on a river" in seasons.txt:

        $ landscape-video generate --prompts-over-time seasons.txt --num-frames 96 --output seasons.mp4

    Stable Diffusion 1.5 with motion modules:

        $ landscape-video generate "a boat on a calm lake" --model stable-diffusion-v1-5/stable-diffusion-v1-5
        --motion-adapter FOLDER

    Prompt, seed, settings and versions are stored in the clip. The same seed gives the same frames with the same
    versions, threads, device and flow estimator.
    """
    # 1. Check everything that can be wrong without loading a model
    from pipeline_landscape_video.video_writing import check_output

    if prompts_over_time is not None and (prompts or prompts_file is not None):
        raise ValueError("give prompts over time with `prompts_over_time` alone, without other prompts.")
    all_prompts = (
        read_prompts(prompts, prompts_file)
        if prompts_over_time is None
        else [read_prompts_over_time(prompts_over_time, settings.num_frames)]
    )
    outputs = numbered_outputs(output, len(all_prompts))
    # An .mp4 or a folder is written while frames are decoded.
    settings.check_memory(is_streamed=output.suffix.lower() not in (".gif", ".webp"))
    for path in outputs:
        check_output(path, settings.frame_rate)
    check_preset(settings, models)
    warn_about_unknown_words(all_prompts, models.model)

    settings = settings.with_seed()
    if jobs > 1 and len(outputs) > 1:
        from landscape_video.generation.workers import run_in_processes

        tasks = list(zip(all_prompts, outputs, strict=True))
        for _, line in run_in_processes(start_worker, (jobs, settings, models), tasks, jobs):
            typer.echo(line)
        return

    # 2. Load
    pipe = load_pipeline(models)
    announce(pipe, settings)

    # 3. Generate and write, clip by clip
    # Imported here: neither --help nor a wrong path may wait for torch.
    from landscape_video.generation.generate_clip import stream_clip

    for index, (prompt, path) in enumerate(zip(all_prompts, outputs, strict=True), start=1):
        label = path.name if len(outputs) == 1 else f"{index}/{len(outputs)} {path.name}"
        pipe.set_progress_bar_config(desc=label, file=sys.stderr)
        write_clip(path, stream_clip(pipe, prompt, settings), models)


def start_worker(
    number: int, jobs: int, settings: TextToVideoSettings, models: ModelSettings
) -> Callable[[tuple[str, Path]], str]:
    """Load the pipeline of a process of `--jobs`; return the function that writes the clip of a prompt."""
    import torch

    from landscape_video.generation.generate_clip import stream_clip

    torch.set_num_threads(max(1, torch.get_num_threads() // jobs))
    if models.device in ("auto", "cuda") and torch.cuda.is_available():
        models = replace(models, device=f"cuda:{number % torch.cuda.device_count()}")
    pipe = load_pipeline(models)
    pipe.set_progress_bar_config(disable=True)
    if number == 0:
        announce(pipe, settings)

    def write_prompt(task: tuple[str, Path]) -> str:
        prompt, path = task
        return save_clip(path, stream_clip(pipe, prompt, settings), models)

    return write_prompt


def announce(pipe: "LandscapeVideoPipeline | LandscapeImageToVideoPipeline", settings: TextToVideoSettings) -> None:
    """Print seed, device and dtype, which reproduce the clip, before the slow part starts; and whether it is long."""
    dtype = str(pipe.unet.dtype).removeprefix("torch.")
    typer.echo(f"seed {settings.seed}, {pipe._execution_device}, {dtype}", err=True)
    window = settings.context_length or min(16, pipe.max_num_frames)
    if settings.num_frames > window:
        typer.echo(f"{settings.num_frames} frames in overlapping windows of {window}", err=True)


def write_clip(path: Path, clip: "Clip | ClipStream", models: ModelSettings) -> None:
    """Write a clip with the metadata that reproduces it, and print its path, size, rate and seed."""
    typer.echo(save_clip(path, clip, models))


def save_clip(path: Path, clip: "Clip | ClipStream", models: ModelSettings) -> str:
    """Write a clip with the metadata that reproduces it, and return its path, size, rate and seed in a line."""
    from pipeline_landscape_video.video_writing import write_video

    metadata = models.as_metadata() | clip.metadata  # the device and dtype in use, not "auto"
    write_video(path, clip.frames, clip.fps, metadata)
    height, width = clip.size
    return f"{path}: {clip.num_frames} frames of {width} x {height}, {clip.fps:g} fps, seed {metadata['seed']}"


def read_prompts(prompts: list[str] | None, prompts_file: Path | None) -> list[str]:
    """Return the prompts of the command line or of a file. Raises `ValueError` for both, none, or empty ones."""
    if prompts and prompts_file is not None:
        raise ValueError("give prompts either as arguments or with `prompts_file`, not both.")
    if prompts_file is not None:
        return read_prompts_file(prompts_file)
    if not prompts:
        raise ValueError("a prompt is required: give one, or a file of them with `prompts_file`.")
    if any(not prompt.strip() for prompt in prompts):
        raise ValueError("a prompt must not be empty.")
    return prompts


def read_prompts_file(path: Path) -> list[str]:
    """Return the non-empty lines of a text file. Raises `ValueError` for an empty file or one that is not UTF-8."""
    return read_lines("prompts_file", path)


def read_prompts_over_time(path: Path, num_frames: int) -> dict[int, str]:
    """Return the prompts of a text file by the frame at which they begin.

    Raises:
        ValueError: The file is not UTF-8 text, a line is not "FRAME: PROMPT", or a frame is out of order or of range.
    """
    prompts: dict[int, str] = {}
    for line in read_lines("prompts_over_time", path):
        frame, _, prompt = line.partition(":")
        if not frame.strip().isdecimal() or not prompt.strip():
            raise ValueError(f'`prompts_over_time` {path}: a line must be like "48: the snow melts", got {line!r}.')
        if prompts and int(frame) <= max(prompts):
            raise ValueError(
                f"`prompts_over_time` {path}: frames must increase, got {int(frame)} after {max(prompts)}."
            )
        prompts[int(frame)] = prompt.strip()
    if min(prompts) != 0:
        raise ValueError(f"`prompts_over_time` {path}: must begin with frame 0, got {min(prompts)}.")
    if max(prompts) >= num_frames:
        raise ValueError(
            f"`prompts_over_time` {path}: frames must be below `num_frames`, {num_frames}, got {max(prompts)}."
        )
    return prompts


def read_lines(option: str, path: Path) -> list[str]:
    if not path.is_file():
        raise ValueError(f"`{option}` {path}: no such file.")
    try:
        text = path.read_text(encoding="utf-8-sig")  # with or without the byte-order mark of Windows' editors
    except UnicodeDecodeError as error:
        raise ValueError(f"`{option}` {path}: must be UTF-8 text ({error}).") from error
    if "\0" in text:
        raise ValueError(f"`{option}` {path}: must be text, but it contains a NUL byte.")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        raise ValueError(f"`{option}` {path}: contains no prompt.")
    return lines


def warn_about_unknown_words(prompts: list[str | dict[int, str]], model: str) -> None:
    """Warn, in one line, about words that are not in the training captions of a model with a `words.json`."""
    folder = local_path(model)
    texts = [text for one in prompts for text in (one.values() if isinstance(one, dict) else [one])]
    unknown = unknown_words("\n".join(texts), folder)
    if unknown:
        typer.echo(
            f"warning: this model was not trained on: {', '.join(unknown)}; see words.json in {folder}", err=True
        )


def numbered_outputs(output: Path, count: int) -> list[Path]:
    """`mist.mp4` for one prompt; `mist-01.mp4`, `mist-02.mp4`, ... for several."""
    if count == 1:
        return [output]
    digits = max(2, len(str(count)))
    return [output.with_name(f"{output.stem}-{index:0{digits}d}{output.suffix}") for index in range(1, count + 1)]
