"""Compare settings of one-shot tuning on shanshui-tiny: learning rate, temporal loss, what trains.

Every row tunes on rendered held-out clips of 8 frames and measures predictions at fixed noise, for the source with its
prompt, and for the same scene that the renderer draws in another palette, with the prompt for that: the true edited
clip, which tuning has not seen. A row that lowers the second error has learned shape and motion instead of colors.

- error: mean squared error of the prediction, as a ratio to the untuned model's on the same clip;
- motion: changes between neighboring frames of the clean clip that a prediction implies, relative to the true ones.
"""

import argparse
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from landscape_video.files import hash_json, write_json, write_text
from landscape_video.training.objectives.one_shot_recipe import OneShotRecipe, TunedClip, TuningModels
from landscape_video.training.objectives.recipe import TrainingRecord
from landscape_video.training.run.one_shot_tuning import prepare_clip, tunable, tune_one_shot
from landscape_video.training.settings.one_shot import OneShotTuning
from motion_adapter.markdown import markdown_table
from pipeline_landscape_video import SHANSHUI_TINY, LandscapeVideoPipeline
from pipeline_landscape_video.landscape_spatio_temporal_attention import load_tuned, remove_spatio_temporal_attention
from result_pages import RESULTS
from shanshui.renderer.captions import caption
from shanshui.renderer.dataset import scene_of
from shanshui.renderer.rendering import render_clip
from shanshui.renderer.scene import FPS, HELD_OUT_SEED, PALETTES, Scene


FRAMES = 8
# Rows by name: options of `tune_one_shot` that differ from those of the preset tiny.
ROWS = {
    "learning rate 3e-5": {"learning_rate": 3e-5},
    "learning rate 1e-4": {"learning_rate": 1e-4},
    "learning rate 3e-4": {"learning_rate": 3e-4},
    "learning rate 1e-3": {"learning_rate": 1e-3},
    "learning rate 3e-3": {"learning_rate": 3e-3},
    "no temporal loss": {"temporal_weight": 0.0},
    "temporal loss, literal": {"temporal_target": "literal"},
    "temporal loss x 10": {"temporal_weight": 1.0},
    "temporal loss x 10, literal": {"temporal_weight": 1.0, "temporal_target": "literal"},
    "the adapter's temporal attention": {"temporal_attention": "adapter"},
}
COLUMNS = ("source: error", "motion", "edited: error", "motion")


def draw_clip(scene: Scene) -> tuple[np.ndarray, str]:
    """Render a clip, and return it with its English caption, in the same words for every palette."""
    prompt = caption(scene, np.random.default_rng(0), "en")
    return render_clip(scene, [index * 2 / FPS for index in range(FRAMES)]), prompt


def encode_pair(models: TuningModels, index: int) -> tuple[np.ndarray, str, TunedClip, TunedClip]:
    """Return the frames and the prompt of a scene, and the encoded source and true edited clip."""
    scene = scene_of(index, HELD_OUT_SEED, fine_motifs=False)
    other = PALETTES[(PALETTES.index(scene.palette) + 1 + index % 4) % len(PALETTES)]
    video, prompt = draw_clip(scene)
    clips = []
    for frames, text in ((video, prompt), draw_clip(replace(scene, palette=other))):
        clips.append(TunedClip.encode(models, *prepare_clip(models, frames, None, FRAMES), text))
    return video, prompt, *clips


def measure(models: TuningModels, settings: OneShotTuning, clips: tuple[TunedClip, TunedClip], tuned: Path | None):
    """Return error and motion of the source and of the true edited clip; without a tuned file, of the plain model."""
    record = TrainingRecord(settings, 1, 1)
    if tuned is None:
        with tunable(models.unet, settings):
            recipe = OneShotRecipe(models, clips[0], record, 0.0, "match_source")
        figures = [recipe.measure(clip) for clip in clips]
    else:
        load_tuned(models.unet, tuned)
        recipe = OneShotRecipe(models, clips[0], record, 0.0, "match_source")
        figures = [recipe.measure(clip) for clip in clips]
        remove_spatio_temporal_attention(models.unet)
    return [figure[name] for figure in figures for name in ("error", "motion")]


def format_row(name: str, rows: list[list[float]], plain: list[list[float]], minutes: float) -> tuple[str, ...]:
    """Return a row of the table: means over clips, errors as ratios."""
    figures = np.array(rows)
    figures[:, ::2] /= np.array(plain)[:, ::2]
    return (name, *(f"{value:.3f}" for value in figures.mean(axis=0)), f"{minutes:.1f}" if minutes else "")


def tune_row(pipe: LandscapeVideoPipeline, options: dict, pairs: list[tuple], work_dir: Path) -> dict:
    """Return figures of each clip and CPU minutes per clip; results that `work_dir` holds are not computed again."""
    results = work_dir / f"{hash_json([options, len(pairs)])[:16]}.json"
    if not results.exists():
        models, settings = TuningModels.of(pipe), OneShotTuning.from_options("tiny")
        rows, start = [], time.process_time()
        for video, prompt, *clips in pairs:
            tuned = tune_one_shot(pipe, video, prompt, cache_dir=work_dir, callback=lambda *_: None, **options)
            rows.append(measure(models, settings, clips, tuned))
        write_json(results, {"rows": rows, "minutes": (time.process_time() - start) / 60 / len(pairs)})
    return json.loads(results.read_text())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--clips", type=int, default=2, help="held-out clips (default: %(default)s)")
    add("--steps", type=int, default=300, help="steps of tuning (default: %(default)s)")
    add("--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="rows to run (default: all)")
    work_dir = Path("runs/one_shot_tuning")
    add("--work_dir", type=Path, default=work_dir, help="folder of results that are reused (default: %(default)s)")
    page = RESULTS / "one_shot_tuning.md"
    text = "Markdown file to write (default: benchmarks/results/one_shot_tuning.md)"
    add("--output", type=Path, default=page, help=text)
    args = parser.parse_args()
    args.work_dir.mkdir(parents=True, exist_ok=True)
    pipe = LandscapeVideoPipeline.from_pretrained(SHANSHUI_TINY)
    models, settings = TuningModels.of(pipe), OneShotTuning.from_options("tiny")
    pairs = [encode_pair(models, index) for index in range(args.clips)]
    plain = [measure(models, settings, clips, None) for _, _, *clips in pairs]
    usual = OneShotTuning.PRESETS["tiny"] | {"max_train_steps": args.steps, "num_frames": FRAMES}
    table = [format_row("untuned", plain, plain, 0.0)]
    for name in args.rows:
        row = tune_row(pipe, usual | ROWS[name], pairs, args.work_dir)
        table.append(format_row(name, plain=plain, **row))
        print(*table[-1], sep=" | ", flush=True)
    text = (
        f"{args.clips} held-out clips, {args.steps} steps, seed 0, torch {torch.__version__}, CPU,"
        f" {os.environ.get('OMP_NUM_THREADS', 'all')} threads. Minutes are CPU time per clip.\n\n"
    )
    write_text(args.output, text + markdown_table(("", *COLUMNS, "minutes"), table) + "\n")


if __name__ == "__main__":
    main()
