"""`landscape-video report`: show evaluation results on one HTML page."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS",
            show_default=False,
            help="Output of `landscape-video evaluate`: results.json files, or their folders.",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.html", help="The page to write.")] = Path(
        "report.html"
    ),
    title: Annotated[str, typer.Option(help="Title of the page.")] = "Evaluation",
    sofp: Annotated[
        Path | None,
        typer.Option(metavar="FILE.json", help="Output of benchmarks/sofp.py, for a section on interpolation."),
    ] = None,
    max_size: Annotated[
        float,
        typer.Option(
            min=0.01,
            metavar="MB",
            help="Maximum size of the page. Prompts are shown as long as the clips of all systems fit; "
            "the page says how many were omitted.",
        ),
    ] = 20,
    clip_width: Annotated[
        int,
        typer.Option(min=32, max=1920, metavar="PIXELS", help="Maximum width of a clip; wider ones are scaled down."),
    ] = 192,
    clips_per_prompt: Annotated[
        int,
        typer.Option(min=0, metavar="NUMBER", help="Clips to show of each prompt and system; 0 for none."),
    ] = 1,
) -> None:
    """Write one HTML page of results: tables, bars with confidence intervals, and the clips side by side.

    After `landscape-video evaluate ... --output measured`:

        $ landscape-video report measured --output report.html

    Several runs on one page, small enough for an email, with the benchmark of the interpolation:

        $ landscape-video report run-a run-b --sofp benchmarks/results/sofp.json --max-size 3

    The page is self-contained. It states how the numbers were measured (weights, preprocessing, samples, seeds), and
    how runs differ that were not measured in the same way.
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
