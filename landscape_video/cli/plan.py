"""`landscape-video plan`: show the windows in which a long clip is sampled."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from landscape_video.cli.options import option_of
from landscape_video.generation.setting_fields import LONG_CLIPS
from landscape_video.generation.settings import TextToVideoSettings


if TYPE_CHECKING:
    from pipeline_landscape_video.landscape_windows import WindowPlan

COLUMNS = 96  # of the picture in the terminal
FRAME, LANE, MARGIN = 8, 10, 64  # pixels of the drawing: width of a frame, height of a row, space at the left
COLORS = ("#3b6e8f", "#c0793a")  # of neighboring windows


def plan(
    num_frames: option_of(TextToVideoSettings, "num_frames", rich_help_panel=LONG_CLIPS) = 16,
    context_length: option_of(TextToVideoSettings, "context_length") = None,
    context_overlap: option_of(TextToVideoSettings, "context_overlap") = None,
    context_schedule: option_of(TextToVideoSettings, "context_schedule") = "moved",
    closed_loop: option_of(TextToVideoSettings, "closed_loop") = False,
    steps: Annotated[int, typer.Option(min=1, metavar="NUMBER", help="Steps to show.")] = 4,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE.svg", help="Drawing of the plan.", show_default="the text alone"),
    ] = None,
) -> None:
    """Show which windows of frames are sampled together in which step.

    Every frame of a step is in at least one window. Where windows overlap, their predictions are averaged. In the next
    step all windows have moved, so that no seam stays at its place.

        $ landscape-video plan --num-frames 96

        $ landscape-video plan --num-frames 48 --closed-loop --output plan.svg
    """
    if output is not None and (output.suffix.lower() != ".svg" or not output.parent.is_dir()):
        raise ValueError(f"`output` must be an .svg file in an existing folder, got {output}.")
    # Checks the values as `generate` does. Its ranges are in the settings.
    settings = TextToVideoSettings(
        num_frames=num_frames,
        context_length=context_length,
        context_overlap=context_overlap,
        context_schedule=context_schedule,
        closed_loop=closed_loop,
    )
    from pipeline_landscape_video.landscape_windows import WindowPlan

    length = settings.context_length or 16
    overlap = length // 4 if settings.context_overlap is None else settings.context_overlap
    windows = WindowPlan(num_frames, length, overlap, settings.context_schedule, closed_loop=closed_loop)
    typer.echo(describe_plan(windows))
    typer.echo(draw_text(windows, steps))
    if output is not None:
        from landscape_video.files import write_text

        write_text(output, draw_svg(windows, steps))
        typer.echo(str(output))


def describe_plan(plan: "WindowPlan") -> str:
    """Return a line with the number of windows and what they cost."""
    if plan.is_plain:
        return f"{plan.length} frames in one window: there is nothing to average."
    counts = [len(plan.windows(step)) for step in range(plan.stride)]
    mean = sum(counts) / len(counts)
    return (
        f"{plan.length} frames in windows of {plan.size} that share at least {plan.size - plan.stride} frames, "
        f"{plan.schedule}: {mean:.3g} windows a step, {mean * plan.size / plan.length:.2f} times the cost."
    )


def lanes_of(windows: list[list[int]], length: int) -> list[list[list[tuple[int, int]]]]:
    """Lay windows out in rows in which none overlaps another.

    Args:
        windows: Positions of each window; one that continues at the first frame is drawn in two parts.
        length: Number of frames.

    Returns:
        Rows of windows, each a list of parts, (first frame, frame after the last one).
    """
    rows: list[list[list[tuple[int, int]]]] = []
    for window in windows:
        start, size = window[0], len(window)
        parts = [(start, min(start + size, length))] + ([(0, start + size - length)] if start + size > length else [])
        for row in rows:
            if all(a[1] <= b[0] or b[1] <= a[0] for other in row for a in other for b in parts):
                row.append(parts)
                break
        else:
            rows.append([parts])
    return rows


def draw_text(plan: "WindowPlan", steps: int) -> str:
    """Return a picture of the plan in letters: a bar for each window, as in `[======]`."""
    scale = min(1.0, COLUMNS / plan.length)
    width = round(plan.length * scale)
    lines = ["frame    0" + f"{plan.length - 1}".rjust(width - 1)]
    for step in range(steps):
        for index, row in enumerate(lanes_of(plan.windows(step), plan.length)):
            line = [" "] * width
            for start, end in (part for parts in row for part in parts):
                first, last = round(start * scale), max(round(start * scale), round(end * scale) - 1)
                line[first : last + 1] = "[" + "=" * (last - first - 1) + "]" if last > first else "="
            lines.append((f"step {step}" if index == 0 else "").ljust(9) + "".join(line).rstrip())
    return "\n".join(lines)


def draw_svg(plan: "WindowPlan", steps: int) -> str:
    """Return a drawing of the plan: a row of windows for each step, with the frames from left to right."""
    bars, y = [], 62
    for step in range(steps):
        bars.append(f'<text x="8" y="{y + LANE - 1}">step {step}</text>')
        numbers = {window[0]: number for number, window in enumerate(plan.windows(step))}
        for row in lanes_of(plan.windows(step), plan.length):
            for parts in row:
                color = COLORS[numbers[parts[0][0]] % len(COLORS)]
                for start, end in parts:
                    bars.append(
                        f'<rect x="{MARGIN + start * FRAME}" y="{y}" width="{(end - start) * FRAME - 1}" '
                        f'height="{LANE - 2}" rx="2" fill="{color}"><title>frames {start} to {end - 1}</title></rect>'
                    )
            y += LANE
        y += LANE
    marks = [
        f'<line x1="{x}" y1="54" x2="{x}" y2="{y}" stroke="#ddd"/><text x="{x + 2}" y="52">{frame}</text>'
        for frame in range(0, plan.length, max(1, plan.size // 2))
        for x in [MARGIN + frame * FRAME]
    ]
    width = max(MARGIN + plan.length * FRAME + 16, 420)
    what, _, cost = describe_plan(plan).partition(": ")
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{y}" font-family="sans-serif" '
            'font-size="10">',
            '<rect width="100%" height="100%" fill="white"/>',
            f'<text x="8" y="16" font-size="12">{escape(what)}</text><text x="8" y="32">{escape(cost)}</text>',
            *marks,
            *bars,
            "</svg>\n",
        ]
    )
