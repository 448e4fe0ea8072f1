"""Measure how close interpolated frames are to true ones.

    python benchmarks/sofp.py --output benchmarks/results/sofp.json

Rendered clips can be drawn at any instant, so their half-time frames are true ones. Of natural clips, every second
frame is held out. Each motif is rendered at each speed under each of the five camera moves; `--rounds 1` takes one of
them in turn, in a fifth of the time. Every clip is written to the output as soon as it is measured, so that a stopped
run can resume and one of fewer rounds can be extended. The tables beside the output (`.md`) are made from it;
`--table-only` makes nothing else. Run `python benchmarks/assets.py` first: it fetches third-party weights and clips.
"""

import argparse
import json
import platform
from collections.abc import Iterator
from dataclasses import asdict, astuple, dataclass
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import skimage
import torch
from torch import Tensor
from tqdm import tqdm

import sofp_table
from assets import ASSETS, WHEELS
from interpolators import Comparison
from landscape_video.evaluation.metrics.clip_metrics import ssim
from landscape_video.files import hash_file, write_text
from pipeline_landscape_video.video_io import iterate_video
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import CAMERAS, PALETTES, Scene


ROOT = Path(__file__).resolve().parents[1]

SIZE = 128  # pixels: height and width of rendered clips, as the bundled model generates them
NUM_FRAMES = 9  # given frames; the 8 between them are held out
FRAME_RATE = 8  # given frames per second at even speed, as the pipeline samples them
SEED = 1_000  # interpolation was tuned on clips of other seeds
ROUNDS = 5
MOTIFS = {
    "mountains": {},
    "mist": {"mist": "right"},
    "lake": {"water": "lake"},
    "river": {"water": "river"},
    "boat": {"water": "lake", "boat": "right"},
    "waterfall": {"waterfall": True},
    "rain": {"weather": "rain"},
    "snowfall": {"weather": "snowfall"},
    "petals": {"weather": "petals"},
    "birds": {"birds": "left"},
    "pines": {"trees": "pines"},
    "bamboo": {"trees": "bamboo"},
    "pavilion": {"pavilion": True},
    "sun": {"light": "sun"},
    "moon": {"light": "moon"},
}
# Time in the scene at the share u of the playing time: the same way in the same time, beginning or ending at rest.
SPEEDS = {"even": lambda u: u, "rising": lambda u: u**2, "falling": lambda u: 1 - (1 - u) ** 2}
STILL_MOTIFS = ("mountains", "pavilion", "sun", "moon")  # not measured under a still camera, where nothing moves
NATURAL_STARTS = {"carphone": (0, 30, 60, 90), "bikes": (0, 120)}  # frames
RAFT_MOTIF = "pines"  # RAFT takes half a minute per clip on a CPU core: this motif, and the start of natural clips


@dataclass(frozen=True)
class Clip:
    """A clip to measure.

    Args:
        kind: "rendered" or "natural".
        motif: Key of `MOTIFS`, or name of the natural video.
        camera: Camera move, or first frame of a natural clip.
        speed: Key of `SPEEDS`; "" for a natural clip.
    """

    kind: str
    motif: str
    camera: str
    speed: str

    @property
    def with_raft(self) -> bool:
        """Whether RAFT is measured on it, too."""
        if self.kind == "natural":
            return self.camera == "0"
        return self.motif == RAFT_MOTIF and self in rendered_clips(0)


def rendered_clips(round_number: int) -> list[Clip]:
    """Every motif at every speed under one camera move; five rounds cover every move."""
    return [
        Clip("rendered", motif, camera, speed)
        for place, motif in enumerate(MOTIFS)
        for camera in [CAMERAS[(place + round_number + 1) % len(CAMERAS)]]
        if camera != "still" or motif not in STILL_MOTIFS
        for speed in SPEEDS
    ]


def all_clips(rounds: int) -> list[Clip]:
    """All clips of the first rounds and all natural ones, the slow ones last."""
    natural = [Clip("natural", name, str(start), "") for name, starts in NATURAL_STARTS.items() for start in starts]
    clips = [clip for round_number in range(rounds) for clip in rendered_clips(round_number)] + natural
    return sorted(clips, key=lambda clip: clip.with_raft)


def load_clip(clip: Clip, size: int, seed: int = SEED) -> Tensor:
    """Frames `(2 * NUM_FRAMES - 1, 3, height, width)` in [0, 1]: even ones are given, odd ones are held out."""
    if clip.kind == "natural":
        start, count = int(clip.camera), 2 * NUM_FRAMES - 1
        pixels = [frame.pixels for frame in islice(iterate_video(ASSETS / f"{clip.motif}.mp4"), start, start + count)]
    else:
        motif, camera = list(MOTIFS).index(clip.motif), CAMERAS.index(clip.camera)
        place = motif * len(CAMERAS) + camera
        scene = Scene(
            palette=PALETTES[(2 * motif + camera) % len(PALETTES)],
            layers=2 + place % 4,
            camera=clip.camera,
            seed=seed + place,
            **MOTIFS[clip.motif],
        )
        share = np.linspace(0, 1, 2 * NUM_FRAMES - 1)
        pixels = render_clip(scene, SPEEDS[clip.speed](share) * (NUM_FRAMES - 1) / FRAME_RATE, size, size)
    return torch.from_numpy(np.asarray(pixels)).movedim(-1, 1).float() / 255


def score(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Means over frames of PSNR in dB and of SSIM, after rounding to 8 bits."""
    predicted, truth = (predicted.clamp(0, 1) * 255).round(), (truth * 255).round()
    error = (predicted - truth).square().flatten(1).mean(1)
    psnr = 10 * torch.log10(255**2 / error.clamp_min(1e-3))
    pairs = zip(predicted.movedim(1, -1).numpy(), truth.movedim(1, -1).numpy(), strict=True)
    similarity = float(np.mean([ssim(*pair) for pair in pairs]))
    return {"psnr": round(psnr.mean().item(), 3), "ssim": round(similarity, 5)}


def measure(pending: list[Clip], size: int) -> Iterator[dict]:
    """Give one record for each clip: what it is, and the score of each method."""
    compare = Comparison(with_raft=any(clip.with_raft for clip in pending))
    progress = tqdm(pending, unit="clip")
    for clip in progress:
        progress.set_postfix_str("/".join(filter(None, astuple(clip))))
        frames = load_clip(clip, size)
        middles = compare(frames[::2], clip.with_raft)
        scores = {name: score(predicted, frames[1::2]) for name, predicted in middles.items()}
        yield asdict(clip) | {"scores": scores}


def settings(size: int) -> dict:
    """Everything that the scores depend on."""
    names = [name for wheel in WHEELS for name in wheel.members.values()]
    return {
        "size": size,
        "num_frames": NUM_FRAMES,
        "frame_rate": FRAME_RATE,
        "seed": SEED,
        "device": f"CPU, {platform.machine()}",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "opencv": cv2.__version__,
            "scikit-image": skimage.__version__,
        },
        "sha256": {name: hash_file(ASSETS / name) for name in names},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = ROOT / "benchmarks" / "results" / "sofp.json"
    parser.add_argument(
        "--output", type=Path, default=results, help="results file (default: benchmarks/results/sofp.json)"
    )
    parser.add_argument(
        "--size", type=int, default=SIZE, help="height and width of rendered clips (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=ROUNDS, help="camera moves of each motif, 1 to 5 (default: %(default)s)"
    )
    parser.add_argument("--clips", type=int, help="measure at most this many clips now (default: all)")
    parser.add_argument("--table-only", action="store_true", help="only make the tables from the results file")
    args = parser.parse_args()
    if not 1 <= args.rounds <= len(CAMERAS):
        parser.error(f"--rounds must be from 1 to {len(CAMERAS)}, the number of camera moves, got {args.rounds}.")
    known = json.loads(args.output.read_text()) if args.output.exists() else {"settings": {}, "clips": []}
    if args.table_only and not known["clips"]:
        parser.error(f"--output must have results to make tables from, got none in {args.output}.")

    if not args.table_only:
        try:
            current = settings(args.size)
        except FileNotFoundError as error:
            parser.error(f"{error.filename}: no such file; run `python benchmarks/assets.py` first.")
        if known["clips"] and known["settings"] != current:
            parser.error(f"{args.output} was measured with other settings or versions; move it, or choose another.")
        known["settings"] = current
        done = [{key: value for key, value in record.items() if key != "scores"} for record in known["clips"]]
        pending = [clip for clip in all_clips(args.rounds) if asdict(clip) not in done][: args.clips]
        args.output.parent.mkdir(parents=True, exist_ok=True)
        for record in measure(pending, args.size):
            known["clips"].append(record)
            write_text(args.output, _one_clip_a_line(known))
    write_text(args.output.with_suffix(".md"), sofp_table.markdown(known))


def _one_clip_a_line(results: dict) -> str:
    lines = ",\n".join(json.dumps(record) for record in results["clips"])
    return f'{{"settings": {json.dumps(results["settings"], indent=1)},\n"clips": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    main()
