"""`landscape-video study`: build the user study of the NADM paper, and count its answers."""

from pathlib import Path
from typing import Annotated

import typer

from landscape_video.cli.options import Command


study = typer.Typer(
    no_args_is_help=True,
    help="""Ask people which clips they prefer, as the NADM paper did: blinded pairs and four questions.

    First, make a folder with a page and its clips for the raters, and a key for yourself:

        $ landscape-video study build measured --output study --ours shanshui-tiny

    Then, count the answers that you receive:

        $ landscape-video study count answers --key study-key.json
    """,
)


@study.command(cls=Command, no_args_is_help=True)
def build(
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULTS",
            show_default=False,
            help="Output of `landscape-video evaluate`: results.json files, or their folders.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FOLDER", help="New folder for the raters.")
    ] = Path("study"),
    key: Annotated[
        Path | None,
        typer.Option(
            "--key",
            metavar="FILE.json",
            help="New file that says which system made which clip.",
            show_default="OUTPUT-key.json",
        ),
    ] = None,
    system: Annotated[
        list[str] | None,
        typer.Option(
            "--system",
            metavar="NAME",
            help="System to compare; may be repeated.",
            show_default="all but still baselines and references",
        ),
    ] = None,
    ours: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Compare only this system with each of the others, as the paper does.",
            show_default="all pairs",
        ),
    ] = None,
    pairs: Annotated[
        int, typer.Option(min=1, metavar="NUMBER", help="Pairs that one rater sees, with four questions each.")
    ] = 20,
    raters: Annotated[
        int, typer.Option(min=1, max=2000, metavar="NUMBER", help="Number of different sessions to draw.")
    ] = 100,
    seed: Annotated[
        int, typer.Option(min=0, metavar="NUMBER", help="Seed of pairs, sides, order and file names.")
    ] = 0,
    contact: Annotated[
        str, typer.Option(metavar="TEXT", help="Where to send the answers, for the last page.", show_default="nothing")
    ] = "",
) -> None:
    """Make a folder with the page of questions, and the key to its answers.

    Every pair of systems:

        $ landscape-video study build measured --output study

    One system with each of the others, for 500 raters, and where their answers go:

        $ landscape-video study build measured --ours shanshui-tiny --raters 500 --contact "Mail them to me@here."

    Put the folder on any web server, or send it as it is: the page also runs from a file, contacts no server and
    tracks nobody. Rater 17 opens index.html?rater=17; without a number, a session is drawn at random. All clips get
    the same size, length and frame rate, random names and no metadata. Keep the key to yourself.
    """
    from tqdm import tqdm

    from landscape_video.evaluation.study.build import build_study

    key = key or output.with_name(f"{output.name}-key.json")
    made = build_study(
        results,
        output,
        key,
        system or (),
        ours,
        raters,
        pairs,
        seed,
        contact,
        progress=lambda clips: tqdm(clips, desc="clips", leave=False),
    )
    form = made.form
    if made.differed:
        typer.echo(f"The clips differed in {', '.join(made.differed)}; they were converted to one format.", err=True)
    typer.echo(
        f"{output}: {made.num_pairs} pairs, {made.pairs_per_rater} for each of {made.num_raters} raters; clips of "
        f"{form.width} x {form.height}, {float(form.seconds):.2f} s at {float(form.fps):g} frames a second"
    )
    typer.echo(f"{key}: tells which system made which clip; not for raters")


@study.command(cls=Command, no_args_is_help=True)
def count(
    answers: Annotated[
        list[Path],
        typer.Argument(metavar="ANSWERS", show_default=False, help="Files from raters, or folders of them."),
    ],
    key: Annotated[Path, typer.Option("--key", metavar="FILE.json", show_default=False, help="The key of the study.")],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE.json", help="Also write the figures as JSON.")
    ] = None,
) -> None:
    """Print how often each system was preferred, for every question and pair of systems.

    All answers of a folder:

        $ landscape-video study count answers --key study-key.json

    Two files, and the figures as JSON:

        $ landscape-video study count anna.json wei.json --key study-key.json --output counts.json

    The 95 % interval is Wilson's. Answers of one person resemble each other, so their number is first divided by the
    design effect of raters (Korn and Graubard, 1998); if everyone answered once, that changes nothing.
    """
    from landscape_video.evaluation.study.study_count import count_answers, markdown, write_counts

    counts = count_answers(answers, key)
    if output is not None:
        write_counts(counts, output)
    for line in counts.remarks:
        typer.echo(line, err=True)
    typer.echo(markdown(counts))
