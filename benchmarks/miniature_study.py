"""Test the claims of the NADM paper (its Tables II to IV) in miniature, on shanshui-tiny's image model.

    python benchmarks/miniature_study.py --run_dir runs/shanshui --output runs/study

trains an adapter from scratch for each row of the tables, on rendered clips and for the same number of steps: as many
as the full model does in `--minutes`. Each adapter generates clips of the same held-out prompts from the same noise.
OUTPUT gets `results.md` (tables, and a sentence for each claim), `results.json` (for `landscape-video report`) and
`report.html`. The study can be stopped at any time; the same command resumes it.
"""

import argparse
import logging
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from landscape_video.evaluation.metrics.measurements import MetricModels
from landscape_video.evaluation.metrics.weights import hash_weights
from landscape_video.evaluation.report.page import write_report
from landscape_video.evaluation.results import FILE_NAME, write_results
from landscape_video.files import write_json, write_text
from miniature_claims import KEYS, MOST_SEEDS, ROWS, Run, runs_of
from miniature_figures import STEPS, HeldOut, load_held_out, measure_run, store_measured
from miniature_tables import RENDERED, STILL, Study, figures_of, markdown, results_of
from miniature_training import (
    BATCH_SIZE,
    MINUTES,
    NEEDED,
    StudyError,
    check_run_dir,
    find_settings,
    train,
    trained_folder,
    usable_cores,
)
from pipeline_landscape_video.video_io import read_video


ROOT = Path(__file__).resolve().parents[1]
SOFP = ROOT / "benchmarks" / "results" / "sofp.json"
REPORT_BYTES = 3_000_000
SETTINGS_FILE = "study.json"
STOPPED = 75  # as train_motion.py: nothing is wrong, start it again

logger = logging.getLogger("miniature_study")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the study and return the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    args = parse_args(arguments)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as Ctrl-C does: child processes are told
    try:
        study(args)
    except StudyError as error:
        print(f"miniature_study.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("miniature_study.py: stopped; the same command resumes the study.", file=sys.stderr)
        return STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def study(args: argparse.Namespace) -> None:
    """Run all stages; each keeps what earlier calls have done. Raises `StudyError`."""
    cv2.setNumThreads(1)

    # 1. Check what the study is made of, and choose its settings
    check_run_dir(args.run_dir)
    base, output = args.run_dir / "base", args.output
    made_of = {part: hash_weights(base / part) for part in ("unet", "text_encoder", "vae")}
    made_of["latents"] = hash_weights(args.run_dir / "latents" / NEEDED["latents"][0])
    settings = find_settings(output / SETTINGS_FILE, args, made_of)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / SETTINGS_FILE, asdict(settings))

    # 2. Train
    runs = runs_of(args.rows, args.seeds)
    logger.info("%d runs of %s, %d at a time", len(runs), settings.budget(), args.workers)
    train(runs, args.run_dir, output, settings, args.workers)

    # 3. Generate and measure
    held_out = load_held_out(base, output, args.held_out_clips, settings.device, args.workers)
    prompts, models = held_out.prompts[: args.prompts], MetricModels.load(device=settings.device)
    rows = {row: [run for run in runs if run.row == row] for row in ROWS if row.key in args.rows}
    found = Study(output, settings, prompts, args.held_out_clips, args.sampling_steps, rows, models)
    dtype = "bfloat16" if settings.mixed_precision == "bf16" else "float32"
    sampling = (settings.device, dtype, args.sampling_steps, args.workers)
    for run in tqdm(runs, desc="measuring", unit="run"):
        adapter = trained_folder(output, run) / "motion_adapter"
        measure_run(adapter, base, output, held_out, args.prompts, models, *sampling)
    measure_baselines(found, held_out, runs[0])

    # 4. Report
    figures, sofp = figures_of(found), SOFP if SOFP.exists() else None
    write_results(results_of(found, figures), output / FILE_NAME)
    write_text(output / "results.md", markdown(found, figures, sofp))
    title = "The paper's claims in miniature"
    for line in write_report([output], output / "report.html", title, sofp, max_bytes=REPORT_BYTES):
        logger.info("%s", line)
    logger.info("written to %s", output / "results.md")


def measure_baselines(found: Study, held_out: HeldOut, run: Run) -> None:
    """Measure the rendered clips of the same scenes, and the first frames of a run's clips, repeated."""
    count = len(found.prompts)
    if not found.file(RENDERED).exists():
        store_measured(held_out.clips[:count], held_out, found.models, found.file(RENDERED))
    if not found.file(STILL).exists():
        folder = found.file(run.name).with_suffix("")
        firsts = [np.asarray(read_video(folder / f"{index:04d}.mp4").frames[:1]) for index in range(count)]
        clips = [np.repeat(first, held_out.clips.shape[1], axis=0) for first in firsts]
        store_measured(clips, held_out, found.models, found.file(STILL))


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )

    def add(name: str, help: str, **options) -> None:
        parser.add_argument(name, help=help, **options)

    add("--run_dir", "folder of train_tiny.py (default: %(default)s)", type=Path, default=Path("runs/shanshui"))
    add("--output", "folder of the study (default: %(default)s)", type=Path, default=Path("runs/study"))
    add("--minutes", f"training time of the full model; sets the steps of all runs (default: {MINUTES:g})", type=float)
    add("--steps", "steps of all runs (default: as many as fit into --minutes)", type=int)
    add("--workers", "processes side by side (default: one per core; 4 with a GPU)", type=int)
    add("--device", "where to compute (default: cuda if available, else cpu)")
    rows = {"nargs": "+", "choices": KEYS, "default": KEYS, "metavar": "ROW"}
    add("--rows", f"rows to train: {', '.join(KEYS)} (default: all)", **rows)
    add("--seeds", "trainings of the rows of Table II; 1 decides nothing (default: 3)", type=int, default=3)
    add("--prompts", "prompts that every run generates (default: 24)", type=int, default=24)
    add("--held_out_clips", "clips for the loss; the first give the prompts (default: 48)", type=int, default=48)
    add("--batch_size", f"clips in a training step (default: {BATCH_SIZE})", type=int)
    add("--mixed_precision", "precision of training (default: bf16 where it is fast)", choices=("no", "bf16"))
    compiling = "compile the UNet, which takes minutes for each of its shapes (default: no)"
    add("--compile", compiling, action=argparse.BooleanOptionalAction)
    add("--sampling_steps", "denoising steps (default: %(default)s)", type=int, default=STEPS)
    args = parser.parse_args(arguments)
    for name in ("minutes", "steps", "workers", "seeds", "prompts", "batch_size", "sampling_steps"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            parser.error(f"--{name} must be greater than 0, got {value}.")
    if args.seeds > MOST_SEEDS:
        parser.error(f"--seeds must be at most {MOST_SEEDS}, for which margins are known, got {args.seeds}.")
    if args.held_out_clips < args.prompts:
        parser.error(f"--held_out_clips must be at least --prompts, {args.prompts}, got {args.held_out_clips}.")
    if args.workers is None:
        on_gpu = torch.cuda.is_available() and args.device != "cpu"
        args.workers = min(4, usable_cores()) if on_gpu else usable_cores()
    return args


if __name__ == "__main__":
    sys.exit(main())
