"""Compare solvers, steps and guidance of shanshui-tiny by the figures of its card: `python benchmarks/few_steps.py`.

All rows generate clips of the same held-out prompts from the same noise. An evaluation is one pass of the UNet for one
clip; guidance takes two in each step. The scene classifier is that of `training/shanshui/measure.py`, which must have
run into the same folder. Clips are kept there, so a run that was stopped resumes.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import diffusers
import numpy as np
import torch
from tqdm import tqdm

from landscape_video.evaluation.metrics.scene_classifier import SceneClassifier
from landscape_video.evaluation.metrics.video_features import ClipScorer
from landscape_video.evaluation.systems.clips import clip_seed
from landscape_video.files import write_file, write_text
from landscape_video.generation.generate_clip import run_pipeline
from landscape_video.generation.models import load_pipeline
from landscape_video.generation.settings import ModelSettings, TextToVideoSettings
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoPipeline
from shanshui.measuring.measured_clips import prompts_of
from shanshui.measuring.predictions import Labels, clip_scores, predict, scores_beside
from shanshui.renderer.dataset import render_dataset
from shanshui.renderer.scene import FPS, PROMPTS_SEED


RESULTS = Path(__file__).resolve().parent / "results" / "few_steps.md"
FIGURES = {
    "palette": "palette",
    "camera": "camera",
    "motifs, mean": "motifs",
    "CLIP-text": "CLIP-text",
    "motion, relative to rendered": "motion",
    "flicker, relative to rendered": "flicker",
}


@dataclass(frozen=True)
class Row:
    """A way to sample.

    Args:
        name: Its name in the table.
        steps: Denoising steps.
        guidance_scale: Guidance scale.
        eta: Fresh noise of DDIM.
        scheduler: Class of diffusers.
        dtype: Precision.
    """

    name: str
    steps: int
    guidance_scale: float = 2.0
    eta: float = 0.0
    scheduler: str = "DDIMScheduler"
    dtype: str = "bfloat16"

    @property
    def evaluations(self) -> int:
        """Passes of the UNet."""
        return self.steps * (2 if self.guidance_scale > 1 else 1)


ROWS = (
    Row("DDIM, eta 1: the model's own", 25, eta=1.0),
    Row("DDIM, eta 1 (`--preset standard`)", 10, eta=1.0),
    Row("DPM++ 2M", 10, scheduler="DPMSolverMultistepScheduler"),
    Row("DDIM, eta 0", 8),
    Row("DDIM, eta 0, guidance 3", 8, guidance_scale=3.0),
    Row("DDIM, eta 0 (`--preset draft`)", 4),
    Row("DDIM, eta 0, guidance 3", 4, guidance_scale=3.0),
)


def make_clips(row: Row, pipe: LandscapeVideoPipeline, prompts: list[str], folder: Path) -> list[np.ndarray]:
    """Generate the clips of a row, uint8 (num_frames, height, width, 3) each; those in the folder are read."""
    own = pipe.scheduler
    pipe.scheduler = getattr(diffusers, row.scheduler).from_config(own.config)
    guidance = {"guidance_scale": row.guidance_scale, "eta": row.eta}
    settings = TextToVideoSettings(steps=row.steps, interpolate=False, **guidance)
    folder.mkdir(parents=True, exist_ok=True)
    clips = []
    for index, prompt in enumerate(tqdm(prompts, desc=f"{row.name}, {row.steps} steps")):
        path = folder / f"{index:03d}.npy"
        if not path.exists():
            frames = run_pipeline(pipe, settings, [clip_seed(PROMPTS_SEED, 0, index)], prompt=[prompt])[0]
            with write_file(path) as unfinished:
                np.save(unfinished, (np.clip(frames, 0, 1) * 255).round().astype(np.uint8))
        clips.append(np.load(path))
    pipe.scheduler = own
    return clips


def measure_rows(folder: Path, count: int) -> list[list[Any]]:
    """Generate and measure all rows on `count` prompts; return the rows of the table."""
    classifier = SceneClassifier.load(folder / "classifier" / "classifier.safetensors", "cpu")
    rendering = {"fps": FPS, "size": 128, "fine_motifs": False}
    rendered, scenes = render_dataset(folder / f"few-steps-{count}.npy", count, PROMPTS_SEED, **rendering)
    prompts, labels = prompts_of(scenes, PROMPTS_SEED, "en"), Labels.of(scenes)
    scorer = ClipScorer(SHANSHUI_TINY / "clip", "cpu")
    beside = predict(rendered, classifier, scorer, prompts)
    table, pipes = [], {}
    for row in ROWS:
        if row.dtype not in pipes:
            pipes[row.dtype] = load_pipeline(ModelSettings(decoder="native", device="cpu", dtype=row.dtype))
            pipes[row.dtype].set_progress_bar_config(disable=True)
        name = f"{row.scheduler}-{row.steps}-guidance{row.guidance_scale:g}-eta{row.eta:g}-{row.dtype}"
        seen = predict(
            make_clips(row, pipes[row.dtype], prompts, folder / "few-steps" / name), classifier, scorer, prompts
        )
        scores = clip_scores(seen, labels) | scores_beside(seen, beside, labels)
        values = [scores[figure].text(1 if figure == "CLIP-text" else 2) for figure in FIGURES]
        table.append([row.name, row.steps, row.evaluations, *values])
    return table


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=32, help="held-out scenes (default: 32)")
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("runs/shanshui/measure"),
        help="folder of measure.py (default: %(default)s)",
    )
    parser.add_argument("--output", type=Path, default=RESULTS, help="page to write (default: results/few_steps.md)")
    return parser.parse_args()


@torch.no_grad()
def main() -> None:
    args = parse_args()
    cv2.setNumThreads(1)  # frames are small: starting threads takes longer than the work itself
    torch.set_num_threads(1)
    table = markdown_table(
        ["sampling", "steps", "evaluations", *FIGURES.values()], measure_rows(args.folder, args.prompts)
    )
    note = f"{args.prompts} held-out prompts in English, one CPU thread, bfloat16, seed {PROMPTS_SEED}."
    write_text(args.output, f"# Fewer evaluations\n\n{note} 95 % bootstrap intervals in brackets.\n\n{table}\n")
    print(table)


if __name__ == "__main__":
    main()
