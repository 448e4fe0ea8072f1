"""Compare the modules of Consistency tuning, each on and off, on rendered clips whose objects are known exactly.

    python benchmarks/consistency.py --clips 3 --seeds 3 --output_dir runs/consistency

Every clip is turned into another palette by every way, with the same prompts and seeds. A clip that is measured
already is not generated again, so the command can be stopped and repeated; `--ways` chooses some. It writes
`clips.jsonl`, a contact sheet per clip, and `table.md` with paired intervals.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import count, islice, product
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from landscape_video.cli.consistent import tune_and_load
from landscape_video.evaluation.metrics.clip_metrics import clip_text, frame_consistency
from landscape_video.evaluation.metrics.intervals import bootstrap, mean
from landscape_video.evaluation.metrics.video_features import ClipScorer
from landscape_video.files import write_text
from landscape_video.generation.consistent_clip import Modules, SourceClip, consistent_clip
from landscape_video.generation.consistent_settings import ConsistentClipSettings
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import ModelSettings
from long_video import gen_l_windows, replaced, write_sheet
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video.landscape_windows import WindowPlan
from shanshui.renderer.captions import caption
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.rendering import GroundTruth, render_ground_truth
from shanshui.renderer.scene import FPS, PALETTES, SIZE, Scene


OBJECTS = ("boat", "birds")
SCENES_SEED = 5

# Settings by way. The source and each way without module 3 need no training.
SOURCE, ALL, UNTUNED = "rendered source", "all modules", "without 3, combined tuning"
WAYS: dict[str, dict[str, Any]] = {
    SOURCE: {"tune": False},
    ALL: {},
    "without 1, separate tuning": {"separate": False},
    "without 2, average fusion": {"fuse": False},
    UNTUNED: {"tune": False},
    "without 4, windows": {"windows": False, "tune": False},
    "without 1 and 3": {"separate": False, "tune": False},
    "without 2 and 3": {"fuse": False, "tune": False},
    "without 2, 3 and 4": {"fuse": False, "tune": False, "windows": False},
    "without 3, fusion of x_t": {"tune": False, "fusion_space": "xt"},
    "without 3, one noise for all frames": {"tune": False, "frame_noise": "shared"},
    "Gen-L-Video": {"separate": False, "fuse": False, "tune": False, "context_weights": "flat"},
}
FIGURES = {
    "background": "background change, ΔE",
    "background_flicker": "background flicker, ΔE",
    "object": "object change, CLIP",
    "flicker": "flicker, gray levels",
    "text": "CLIP-text",
    "structure": "edges kept",
}


def scenes(still: bool) -> Iterator[Scene]:
    """Yield scenes with a moving boat, for a still camera, or one that pans."""
    for index in count():
        scene = scene_of(index, SCENES_SEED, fine_motifs=False)
        if scene.boat in ("left", "right") and (
            scene.camera == "still" if still else scene.camera in ("left", "right")
        ):
            yield scene


def repainted(scene: Scene) -> str:
    """Return the caption of a scene in the next palette."""
    palette = PALETTES[(PALETTES.index(scene.palette) + 1) % len(PALETTES)]
    return caption(replace(scene, palette=palette), np.random.default_rng(0), "en")


def source_of(truth: GroundTruth) -> SourceClip:
    """Return a rendered clip with the masks of its objects."""
    frames = torch.from_numpy(truth.frames).permute(0, 3, 1, 2) / 255
    masks = [torch.from_numpy(truth.masks[name]) / 255 for name in OBJECTS if name in truth.masks]
    return SourceClip(frames, torch.stack(masks))


def measure(frames: np.ndarray, source: SourceClip, prompt: str, scorer: ClipScorer) -> dict[str, float]:
    """Measure a clip whose objects are where they are in the source.

    Args:
        frames: uint8 (num_frames, height, width, 3).
        source: The rendered clip with its masks.
        prompt: The prompt.
        scorer: CLIP.

    Returns:
        `"background"`: Lab distance of a background pixel from its mean over time; `"background_flicker"`: from the
        frame before. `"object"`: 1000 (1 - c), with c the mean cosine of CLIP embeddings of the masked objects over
        all pairs of frames.
        `"flicker"`: mean absolute difference of neighboring frames. `"text"`: CLIP-text. `"structure"`: correlation
        of the edges with those of the source.
    """
    covered = source.masks.sum(dim=0).clamp(max=1).numpy()
    behind = (covered < 0.05)[..., None]
    lab = np.stack([cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) for frame in frames])
    center = (lab * behind).sum(axis=0) / np.maximum(behind.sum(axis=0), 1)
    change = np.linalg.norm(lab - center, axis=-1)[behind[..., 0]].mean()
    both = (behind[1:] & behind[:-1])[..., 0]
    objects = np.stack([cut_out(*pair) for pair in zip(frames, covered, strict=True) if pair[1].max() > 0.5])
    edges = [edges_of(clip) for clip in (frames, source.frames.permute(0, 2, 3, 1).mul(255).byte().numpy())]
    return {
        "background": float(change),
        "background_flicker": float(np.linalg.norm(np.diff(lab, axis=0), axis=-1)[both].mean()),
        "object": 1000 * (1 - frame_consistency(scorer.frames(objects))),
        "flicker": float(np.abs(np.diff(frames.astype(np.float32), axis=0)).mean()),
        "text": clip_text(scorer.frames(frames), scorer.texts([prompt])[0]),
        "structure": float(np.corrcoef(edges[0].ravel(), edges[1].ravel())[0, 1]),
    }


def cut_out(frame: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return the square around the masked objects on gray, uint8 (64, 64, 3)."""
    rows, columns = np.nonzero(mask > 0.5)
    half = max(np.ptp(rows), np.ptp(columns)) // 2 + 3
    center = (int(columns.mean()), int(rows.mean()))
    gray = (mask[..., None] * frame + (1 - mask[..., None]) * 128).astype(np.uint8)
    padded = cv2.copyMakeBorder(gray, half, half, half, half, cv2.BORDER_CONSTANT, value=(128, 128, 128))
    square = padded[center[1] : center[1] + 2 * half, center[0] : center[0] + 2 * half]
    return cv2.resize(square, (64, 64), interpolation=cv2.INTER_AREA)


def edges_of(clip: np.ndarray) -> np.ndarray:
    """Return the strength of the edges of each frame."""
    gray = [cv2.GaussianBlur(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1) for frame in clip]
    return np.stack([np.hypot(cv2.Sobel(one, -1, 1, 0), cv2.Sobel(one, -1, 0, 1)) for one in gray])


def generate(way: str, source: SourceClip, prompt: str, seed: int, args: argparse.Namespace) -> np.ndarray:
    """Generate a clip in one way, uint8 (num_frames, height, width, 3)."""
    if way == SOURCE:
        return source.frames.permute(0, 2, 3, 1).mul(255).round().byte().numpy()
    models = ModelSettings(decoder="native")
    settings = ConsistentClipSettings(
        steps=args.steps, seed=seed, fps=FPS, tune_steps=args.tune_steps, **WAYS[way]
    ).with_seed()
    pipe = load_pipeline(models)
    pipe.set_progress_bar_config(disable=True)
    modules = Modules()
    if settings.tune:
        modules = Modules(tune=partial(tune_and_load, models, settings, {0: prompt}))
    windows = gen_l_windows if way == "Gen-L-Video" else WindowPlan.windows
    with replaced(WindowPlan, "windows", windows):
        clip = consistent_clip(pipe, source, prompt, settings, modules)
    return torch.stack(list(clip.frames)).permute(0, 2, 3, 1).mul(255).round().byte().numpy()


def generate_and_measure(args: argparse.Namespace) -> None:
    """Generate and measure what is missing, and write the table after each clip."""
    args.output_dir.mkdir(parents=True, exist_ok=True)
    records_file = args.output_dir / "clips.jsonl"
    records = [json.loads(line) for line in records_file.read_text().splitlines()] if records_file.exists() else []
    scorer = ClipScorer()
    chosen = [
        (f"{camera} {index}", scene)
        for camera, number in (("still", args.clips), ("panning", args.panning_clips))
        for index, scene in enumerate(islice(scenes(camera == "still"), number))
    ]
    times = [step / FPS for step in range(args.num_frames)]
    for seed, (name, scene), way in product(range(args.seeds), chosen, args.ways):
        key = {"way": way, "clip": name, "seed": seed, "steps": args.steps, "num_frames": args.num_frames}
        key["tune_steps"] = args.tune_steps
        if any(key.items() <= record.items() for record in records):
            continue
        source, prompt = source_of(render_ground_truth(scene, times, SIZE, SIZE)), repainted(scene)
        frames = generate(way, source, prompt, seed, args)
        records.append(key | measure(frames, source, prompt, scorer))
        pixels = torch.from_numpy(frames).permute(0, 3, 1, 2) / 255
        write_sheet(args.output_dir / f"{name} {seed} {way}.png", pixels, min(12, len(frames)))
        with records_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(records[-1], ensure_ascii=False) + "\n")
        write_text(args.output_dir / "table.md", table(records))


def reference_of(way: str) -> str:
    """Return the way that a way is compared with: one with module 3 only if it has module 3 itself."""
    return ALL if way == UNTUNED or WAYS[way].get("tune", True) else UNTUNED


def table(records: list[dict[str, Any]]) -> str:
    """Make the Markdown tables: means, and paired differences of the same clips and seeds, with intervals."""
    parts = []
    for camera in ("still", "panning"):
        of_camera = [record for record in records if record["clip"].startswith(camera)]
        by_way = {way: [record for record in of_camera if record["way"] == way] for way in WAYS}
        means, differences = [], []
        for way, rows in by_way.items():
            if not rows:
                continue
            values = {figure: np.array([row[figure] for row in rows]) for figure in FIGURES}
            means.append([way, str(len(rows)), *(bootstrap(mean, column).text() for column in values.values())])
            reference = reference_of(way)
            others = {(record["clip"], record["seed"]): record for record in by_way[reference]}
            pairs = [(row, others[key]) for row in rows if (key := (row["clip"], row["seed"])) in others]
            if way not in (SOURCE, reference) and pairs:
                columns = [np.array([one[figure] - other[figure] for one, other in pairs]) for figure in FIGURES]
                name = f"{way} - {reference}"
                differences.append([name, str(len(pairs)), *(bootstrap(mean, column).text() for column in columns)])
        for name, lines in (("means", means), ("paired differences", differences)):
            if lines:
                header = ["way", "clips", *FIGURES.values()]
                parts.append(f"Camera {camera}, {name}:\n\n{markdown_table(header, lines)}\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clips", type=int, default=3, help="Clips with a still camera (default: 3)")
    add("--panning_clips", type=int, default=1, help="Clips with a panning camera (default: 1)")
    add("--seeds", type=int, default=3, help="Seeds of each clip (default: 3)")
    add("--num_frames", type=int, default=24, help="Frames per clip (default: 24)")
    add("--steps", type=int, default=12, help="Denoising steps (default: 12)")
    add("--tune_steps", type=int, default=60, help="Training steps of module 3 (default: 60)")
    add("--ways", nargs="+", choices=list(WAYS), default=list(WAYS), metavar="WAY", help="Ways (default: all)")
    add("--output_dir", type=Path, default=Path("runs/consistency"), help="Results (default: runs/consistency)")
    generate_and_measure(parser.parse_args())


if __name__ == "__main__":
    main()
