"""How close interpolated frames come to true ones: `python benchmarks/sofp.py --output benchmarks/results/sofp.json`.

Rendered clips are drawn at any instant, so that their half-time frames are true ones; of two natural clips every
second frame is held out. Each clip is written to the output as soon as it is measured, and a run that was stopped
goes on where it was. The table beside the output (`.md`) is made from it; `--table-only` makes nothing else.
`python benchmarks/assets.py` fetches the weights and clips of others first.
"""

import argparse
import json
import logging
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor


ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "training" / "shanshui"), str(ROOT / "benchmarks")]

import sofp_table  # noqa: E402
from assets import ASSETS, sha256  # noqa: E402
from interpolators import interpolators, raft_interpolators  # noqa: E402

from painting import render_clip  # noqa: E402
from pipeline_landscape_video.video_io import iterate_video  # noqa: E402
from scene import CAMERAS, PALETTES, Scene  # noqa: E402


logger = logging.getLogger("sofp")

NUM_FRAMES = 9  # that are given; 8 between them are held out
FRAME_RATE = 8  # of those given, at even speed: what the pipeline samples
SEED = 1_000  # interpolation was tuned on clips of other seeds
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
# The clip's own time at the share u of the playing time: the same way in the same time, begun or ended at rest.
SPEEDS = {"even": lambda u: u, "rising": lambda u: u**2, "falling": lambda u: 1 - (1 - u) ** 2}
RAFT_EVERY = 15  # clips; one for each motif, with cameras and speeds in turn
NATURAL = {"bikes": "bikes.mp4", "carphone": "carphone.mp4"}
NATURAL_FRAMES = 65


@dataclass(frozen=True)
class Clip:
    kind: str  # "rendered" or "natural"
    motif: str
    camera: str
    speed: str
    raft: bool

    @property
    def key(self) -> str:
        return "/".join((self.kind, self.motif, self.camera, self.speed))


def clips() -> list[Clip]:
    """Every motif with every camera at every speed, in an order that mixes them: a part of it is a fair sample."""
    rendered = [
        Clip("rendered", motif, camera, speed, raft=False)
        for motif in MOTIFS
        for camera in CAMERAS
        for speed in SPEEDS
    ]
    order = np.random.default_rng(SEED).permutation(len(rendered))
    rendered = [replace(rendered[i], raft=place % RAFT_EVERY == 0) for place, i in enumerate(order)]
    return [Clip("natural", name, "", "", raft=True) for name in NATURAL] + rendered


def load_clip(clip: Clip, size: int) -> Tensor:
    """`(2 * given - 1, 3, height, width)` in [0, 1]; the even ones are given, the odd ones held out."""
    if clip.kind == "natural":
        pixels = _read(ASSETS / NATURAL[clip.motif], NATURAL_FRAMES)
    else:
        place = list(MOTIFS).index(clip.motif) * len(CAMERAS) + CAMERAS.index(clip.camera)
        scene = Scene(
            palette=PALETTES[place % len(PALETTES)],
            layers=2 + place % 4,
            camera=clip.camera,
            seed=SEED + place,
            **MOTIFS[clip.motif],
        )
        share = np.linspace(0, 1, 2 * NUM_FRAMES - 1)
        pixels = render_clip(scene, SPEEDS[clip.speed](share) * (NUM_FRAMES - 1) / FRAME_RATE, size, size)
    return torch.from_numpy(np.asarray(pixels)).movedim(-1, 1).float() / 255


def _read(path: Path, count: int) -> list[np.ndarray]:
    frames = []
    for frame in iterate_video(path):
        frames.append(frame.pixels)
        if len(frames) == count:
            break
    return frames


def score(predicted: Tensor, truth: Tensor) -> dict[str, float]:
    """Means over frames of PSNR in dB and of SSIM (Gaussian window, RGB), after rounding to 8 bits."""
    predicted = (predicted.clamp(0, 1) * 255).round()
    truth = (truth * 255).round()
    error = (predicted - truth).square().flatten(1).mean(1)
    psnr = 10 * torch.log10(255**2 / error.clamp_min(1e-3))
    ssim = [
        structural_similarity(
            a, b, channel_axis=0, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(predicted.numpy(), truth.numpy(), strict=True)
    ]
    return {"psnr": round(psnr.mean().item(), 3), "ssim": round(float(np.mean(ssim)), 5)}


def measure(pending: list[Clip], size: int) -> Iterator[dict]:
    """One record for each clip: what it is, and the score of each method."""
    methods = interpolators()
    raft_methods = raft_interpolators() if any(clip.raft for clip in pending) else {}
    for clip in pending:
        frames = load_clip(clip, size)
        used = {**methods, **(raft_methods if clip.raft else {})}
        scores = {name: score(method(frames[::2]), frames[1::2]) for name, method in used.items()}
        yield {"kind": clip.kind, "motif": clip.motif, "camera": clip.camera, "speed": clip.speed, "scores": scores}
        quadratic, mean = scores["sofp_quadratic"]["psnr"], scores["average"]["psnr"]
        logger.info("%s: average %.2f dB, quadratic %.2f dB", clip.key, mean, quadratic)


def settings(size: int) -> dict:
    return {
        "size": size,
        "num_frames": NUM_FRAMES,
        "frame_rate": FRAME_RATE,
        "seed": SEED,
        "natural_frames": NATURAL_FRAMES,
        "versions": {"torch": torch.__version__, "opencv": cv2.__version__},
        "sha256": {path.name: sha256(path) for path in sorted(ASSETS.iterdir()) if path.suffix != ".whl"},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "sofp.json")
    parser.add_argument("--size", type=int, default=256, help="height and width of rendered clips (256)")
    parser.add_argument("--clips", type=int, help="at most so many clips in this run (all)")
    parser.add_argument("--table-only", action="store_true", help="make the table from the output as it is")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")

    known = json.loads(args.output.read_text()) if args.output.exists() else {"clips": []}
    if not args.table_only:
        known["settings"] = settings(args.size)
        done = {"/".join(record[key] for key in ("kind", "motif", "camera", "speed")) for record in known["clips"]}
        pending = [clip for clip in clips() if clip.key not in done][: args.clips]
        args.output.parent.mkdir(parents=True, exist_ok=True)
        for record in measure(pending, args.size):
            known["clips"].append(record)
            unfinished = args.output.with_suffix(".tmp")
            unfinished.write_text(_one_clip_a_line(known))
            unfinished.replace(args.output)
    args.output.with_suffix(".md").write_text(sofp_table.markdown(known))


def _one_clip_a_line(results: dict) -> str:
    lines = ",\n".join(json.dumps(record) for record in results["clips"])
    return f'{{"settings": {json.dumps(results["settings"], indent=1)},\n"clips": [\n{lines}\n]}}\n'


if __name__ == "__main__":
    main()
