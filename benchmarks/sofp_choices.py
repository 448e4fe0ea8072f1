"""Choose SOFP's defaults: `python benchmarks/sofp_choices.py` writes `results/sofp_choices.md`.

Quadratic SOFP runs with one default changed at a time: the window, or the resolution of DIS. Clips are like those of
`sofp.py`, but with another seed and 256 x 256 pixels: defaults are chosen here and judged there.
"""

from pathlib import Path

import numpy as np
from tqdm import tqdm

from interpolators import CachedFlow, sofp
from landscape_video.files import write_text
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator
from result_pages import parse_output
from sofp import load_clip, rendered_clips, score


SEED = 5_000
SIZE = 256
EVERY = 3  # clips of the first round: each motif at one speed


def main() -> None:
    output = parse_output(__doc__, "sofp_choices.md")
    dis, coarse, sparse = CachedFlow(DISFlowEstimator()), DISFlowEstimator(1, 3), DISFlowEstimator(0, 3)
    choices = {
        "defaults": sofp(dis, "quadratic"),
        "window 6": sofp(dis, "quadratic", window=6),
        "window 8": sofp(dis, "quadratic", window=8),
        "DIS to half resolution, stride 3": sofp(coarse, "quadratic"),
        "DIS with stride 3": sofp(sparse, "quadratic"),
    }
    clips = rendered_clips(0)
    # The speeds of a motif follow each other: shifting by one after every motif takes them in turn.
    clips = [clip for i, clip in enumerate(clips) if i % EVERY == (i // EVERY) % EVERY]
    figures: dict[str, list[np.ndarray]] = {}
    for clip in tqdm(clips, unit="clip"):
        frames = load_clip(clip, SIZE, SEED)
        row = [score(method(frames[::2]), frames[1::2])["psnr"] for method in choices.values()]
        figures.setdefault(clip.speed, []).append(np.array(row))
        dis.forget()
    heads = ["speed (clips)", *choices]
    means = {f"{speed} ({len(rows)})": np.mean(rows, axis=0) for speed, rows in figures.items()}
    rows = [[speed, *(f"{figure:.2f}" for figure in row)] for speed, row in means.items()]
    title = f"# SOFP's defaults, one changed at a time\n\nPSNR in dB, seed {SEED}, `{Path(__file__).name}`.\n\n"
    write_text(output, title + markdown_table(heads, rows) + "\n")


if __name__ == "__main__":
    main()
