"""`landscape-video study`: the paper's user study, from clips to a page, and from answers to percentages."""

from pathlib import Path
from typing import Annotated

import typer


study = typer.Typer(
    no_args_is_help=True,
    help="""Ask people which clips they like better, as the NADM paper did: blinded pairs and four questions.

    First a folder with a page and its clips, for raters, and a key, for you:

        $ landscape-video study build measured --output study --ours shanshui-tiny

    Then the answers that came back:

        $ landscape-video study count answers --key study-key.json
    """,
)

ResultFiles = Annotated[
    list[Path],
    typer.Argument(
        metavar="RESULTS",
        show_default=False,
        help="What `landscape-video evaluate` wrote: results.json files, or the folders they are in.",
    ),
]
Output = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="A new folder, for raters.")]
KeyOut = Annotated[
    Path | None,
    typer.Option("--key", metavar="FILE.json", help="A new file that says whose clips are whose; OUTPUT-key.json."),
]
Systems = Annotated[
    list[str] | None,
    typer.Option(
        "--system",
        metavar="NAME",
        help="Compare this one; give it several times. Without: all but still baselines and references.",
    ),
]
Ours = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Compare this system with each of the others only, as the paper does."),
]
Pairs = Annotated[
    int, typer.Option(min=1, metavar="NUMBER", help="Pairs that one rater sees, of four questions each.")
]
Raters = Annotated[int, typer.Option(min=1, max=2000, metavar="NUMBER", help="How many different sessions to draw.")]
Seed = Annotated[int, typer.Option(min=0, help="Draws pairs, sides, order and file names.")]
Contact = Annotated[str, typer.Option(metavar="TEXT", help="What the last page says about where to send the answers.")]
AnswerFiles = Annotated[
    list[Path],
    typer.Argument(metavar="ANSWERS", show_default=False, help="Files that raters sent, or folders of them."),
]
KeyIn = Annotated[Path, typer.Option("--key", metavar="FILE.json", show_default=False, help="The key of the study.")]
CountsOut = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE.json", help="The same figures for other programs.")
]


@study.command(no_args_is_help=True)
def build(
    results: ResultFiles,
    output: Output = Path("study"),
    key: KeyOut = None,
    system: Systems = None,
    ours: Ours = None,
    pairs: Pairs = 20,
    raters: Raters = 100,
    seed: Seed = 0,
    contact: Contact = "",
) -> None:
    """Make a folder with a page that asks, and the key to its answers.

    Every pair of systems:

        $ landscape-video study build measured --output study

    One system with each of the others, for 500 raters, and where their answers go:

        $ landscape-video study build measured --ours shanshui-tiny --raters 500 --contact "Mail them to me@here."

    Put the folder on any web server, or send it as it is: the page runs from a file too, asks no server and tracks
    nobody. Rater 17 opens index.html?rater=17; without a number a session is drawn. All clips are brought to one
    size, length and frame rate, lose their metadata, and get random names. Keep the key to yourself.
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
        typer.echo(f"The clips differed in {', '.join(made.differed)}; now they are alike.", err=True)
    typer.echo(
        f"{output}: {made.num_pairs} pairs, {made.pairs_per_rater} for each of {made.num_raters} raters; clips of "
        f"{form.width} x {form.height}, {float(form.seconds):.2f} s at {float(form.fps):g} frames a second"
    )
    typer.echo(f"{key}: whose clips they are; not for raters")


@study.command(no_args_is_help=True)
def count(answers: AnswerFiles, key: KeyIn, output: CountsOut = None) -> None:
    """Print who was preferred how often, for every question and pair of systems.

    All answers of a folder:

        $ landscape-video study count answers --key study-key.json

    Two files, and the figures as JSON:

        $ landscape-video study count anna.json wei.json --key study-key.json --output counts.json

    The interval (95 %) is Wilson's for a share, with as many answers as the raters' are worth: answers of one person
    resemble each other, so their number is divided by the design effect of raters (Korn and Graubard, 1998). Where
    everyone answered once it is Wilson's interval as it stands in books.
    """
    from landscape_video.evaluation.study.study_count import count_answers, markdown, write_counts

    counts = count_answers(answers, key)
    if output is not None:
        write_counts(counts, output)
    for line in counts.remarks:
        typer.echo(line, err=True)
    typer.echo(markdown(counts))
