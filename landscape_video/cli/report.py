"""`landscape-video report`: results as one page that anyone can open."""

from pathlib import Path
from typing import Annotated

import typer


ResultFiles = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULTS",
        show_default=False,
        help="What `landscape-video evaluate` wrote: results.json files, or the folders they are in.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page.")]
Title = Annotated[str, typer.Option(help="What stands at its top.")]
Sofp = Annotated[
    Path | None,
    typer.Option(metavar="FILE.json", help="Results of benchmarks/sofp.py, for a section on interpolation."),
]
MaxSize = Annotated[
    float,
    typer.Option(
        min=0.01,
        metavar="MB",
        help="The most the page may weigh. Prompts are shown, always with the clips of all systems, while they fit; "
        "the page says how many were left out.",
    ),
]
ClipWidth = Annotated[
    int, typer.Option(min=32, max=1920, metavar="PIXELS", help="Clips wider than this are shrunk to it.")
]
ClipsPerPrompt = Annotated[
    int,
    typer.Option(min=0, metavar="NUMBER", help="Of each system, the first so many; 0 for a page without clips."),
]


def report(
    results: ResultFiles,
    output: Output = Path("report.html"),
    title: Title = "Evaluation",
    sofp: Sofp = None,
    max_size: MaxSize = 20,
    clip_width: ClipWidth = 192,
    clips_per_prompt: ClipsPerPrompt = 1,
) -> None:
    """Make one HTML page of what was measured: tables, bars with their spread, and the clips side by side.

    After `landscape-video evaluate ... --output measured`:

        $ landscape-video report measured --output report.html

    Several runs on one page, small enough to be sent by mail, with the benchmark of the interpolation:

        $ landscape-video report run-a run-b --sofp benchmarks/results/sofp.json --max-size 3

    The page holds everything and loads nothing. How the numbers were measured (weights, preprocessing, samples,
    seeds) stands beside them; where two runs were not measured alike, it says in what they differ.
    """
    import math

    from tqdm import tqdm

    from landscape_video.evaluation.report.page import megabytes, write_report

    if not math.isfinite(max_size):
        raise typer.BadParameter(f"must be a finite number, not {max_size:g}.", param_hint="--max-size")
    left_out = write_report(
        results,
        output,
        title,
        sofp,
        max_bytes=int(max_size * 1e6),
        clip_width=clip_width,
        clips_per_prompt=clips_per_prompt,
        progress=lambda prompts: tqdm(prompts, desc="prompts", leave=False),
    )
    for line in left_out:
        typer.echo(line, err=True)
    typer.echo(f"{output}: {megabytes(output.stat().st_size)}")
