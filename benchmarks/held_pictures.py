"""Measure interpolation of animation on twos and threes: `python benchmarks/held_pictures.py`.

Rendered clips like those of `sofp.py`, at even speed, show each picture for two or three frames of 24 per second, and
the frame rate is doubled. All frames between the pictures are held out: their true ones are rendered. Writes
`results/held_pictures.md`. Run `python benchmarks/assets.py` first: it fetches RIFE's weights.
"""

import platform
from importlib.metadata import version

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from interpolators import repeat, rife
from landscape_video.files import write_text
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video import interpolate_frames
from pipeline_landscape_video.landscape_optical_flow import DISFlowEstimator
from result_pages import parse_output
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import CAMERAS, PALETTES, Scene
from sofp import MOTIFS, STILL_MOTIFS, score


SEED = 3_000
SIZE = 128
FPS = 24
PICTURES = 8


def truth_of(motif: str, number: int, hold: int) -> Tensor:
    """Frames of a clip at 48 per second, `(frames, 3, height, width)` in [0, 1]; pictures are `2 * hold` apart."""
    cameras = CAMERAS[1:] if motif in STILL_MOTIFS else CAMERAS
    scene = Scene(
        palette=PALETTES[number % len(PALETTES)],
        layers=2 + number % 4,
        camera=cameras[number % len(cameras)],
        seed=SEED + number,
        **MOTIFS[motif],
    )
    times = np.arange(2 * hold * (PICTURES - 1) + 1) / (2 * FPS)
    return torch.from_numpy(np.asarray(render_clip(scene, times, SIZE, SIZE))).movedim(-1, 1).float() / 255


def with_middles(frames: Tensor, middles: Tensor) -> Tensor:
    """Frames with the middle frames between them."""
    both = torch.stack([frames[:-1], middles], dim=1).flatten(0, 1)
    return torch.cat([both, frames[-1:]])


def measure(hold: int) -> dict[str, float]:
    """Mean PSNR of each method over one clip per motif, in dB."""
    flow, learned = DISFlowEstimator(), rife()
    methods = {
        "repeat": lambda frames: with_middles(frames, repeat(frames)),
        "RIFE": lambda frames: with_middles(frames, learned(frames)),
        "SOFP, duplicates kept": lambda frames: interpolate_frames(frames, flow),
        "SOFP": lambda frames: interpolate_frames(frames, flow, keep_duplicates=False, fps=FPS),
    }
    figures: dict[str, list[float]] = {name: [] for name in methods}
    for number, motif in enumerate(tqdm(MOTIFS, desc=f"{hold} frames a picture")):
        truth = truth_of(motif, number, hold)
        step = 2 * hold
        shown = truth[::step][:-1].repeat_interleave(hold, dim=0)
        frames = torch.cat([shown, truth[-1:]])
        held_out = [index for index in range(len(truth)) if index % step]
        for name, method in methods.items():
            figures[name].append(score(method(frames)[held_out], truth[held_out])["psnr"])
    return {name: float(np.mean(values)) for name, values in figures.items()}


def table(measured: dict[str, dict[str, float]]) -> str:
    """A row for each method, a column for each rhythm."""
    names = next(iter(measured.values()))
    rows = [[name, *(f"{figures[name]:.2f}" for figures in measured.values())] for name in names]
    return markdown_table([f"method ({len(MOTIFS)} clips)", *measured], rows)


def main() -> None:
    output = parse_output(__doc__, "held_pictures.md")
    measured = {"on twos": measure(2), "on threes": measure(3)}
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    setup = f"PSNR of held-out frames in dB. Seed {SEED}, {SIZE} x {SIZE} pixels, {platform.machine()}, {versions}."
    write_text(output, f"# Animation on twos and threes\n\n{setup}\n\n{table(measured)}\n")


if __name__ == "__main__":
    main()
