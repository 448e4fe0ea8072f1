"""The NADM paper's claims (its Tables II to IV) in miniature, on shanshui-tiny's image model and rendered clips.

    python benchmarks/miniature_study.py --run_dir runs/shanshui --output runs/study

trains an adapter from nothing for each row of the tables, with the same number of steps for every row (as many as the
full model does in `--minutes`), lets each paint the same held-out prompts from the same noise, and measures clips and
held-out loss. OUTPUT gets `results.md` (tables, and a sentence for each claim), `results.json` (for `landscape-video
report`) and `report.html`. Stop it whenever you like: the same command goes on where it was.
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

from landscape_video.evaluation.metrics.registry import Measurers
from landscape_video.evaluation.metrics.weights import hash_weights
from landscape_video.evaluation.report.page import write_report
from landscape_video.evaluation.results import FILE_NAME, write_results
from landscape_video.files import write_json, write_text
from miniature_claims import MOST_SEEDS
from miniature_figures import STEPS, HeldOut, make_held_out, store_measured
from miniature_rows import KEYS, Run, runs_of
from miniature_tables import (
    RENDERED,
    STILL,
    Study,
    figures_of,
    markdown,
    results_of,
    rows_in_order,
)
from miniature_training import (
    BATCH_SIZE,
    MINUTES,
    NEEDED,
    Job,
    StudyError,
    check_run_dir,
    find_settings,
    run_jobs,
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
    """Train, paint, measure and tell; the exit code."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    args = parse_args(arguments)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop as Ctrl-C does: processes are told
    try:
        study(args)
    except StudyError as error:
        print(f"miniature_study.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("miniature_study.py: stopped; the same command goes on where it was.", file=sys.stderr)
        return STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def study(args: argparse.Namespace) -> None:
    """All stages; each keeps what earlier calls have done. Raises `StudyError`."""
    cv2.setNumThreads(1)
    check_run_dir(args.run_dir)
    base, output = args.run_dir / "base", args.output
    made_of = {part: hash_weights(base / part) for part in ("unet", "text_encoder", "vae")}
    made_of["latents"] = hash_weights(args.run_dir / "latents" / NEEDED["latents"][0])
    settings = find_settings(output / SETTINGS_FILE, args, made_of)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / SETTINGS_FILE, asdict(settings))
    runs = runs_of(args.rows, args.seeds)
    logger.info(
        "%d runs of %d steps (%g minutes of the full model at %.2f s a step), %d at a time",
        len(runs), settings.steps, settings.minutes, settings.seconds_per_step, args.workers,
    )  # fmt: skip
    train(runs, args.run_dir, output, settings, args.workers)

    held_out = make_held_out(base, output, args.held_out_clips, settings.device, args.workers)
    measurers = Measurers.load(device=settings.device)
    found = Study(
        output,
        settings,
        held_out.prompts[: args.prompts],
        args.held_out_clips,
        args.sampling_steps,
        rows_in_order(runs),
        measurers,
    )
    measure(args, found, runs)
    measure_baselines(found, held_out, runs[0])
    tell(found)


def measure(args: argparse.Namespace, found: Study, runs: Sequence[Run]) -> None:
    """Paint and measure what is not measured yet, in processes side by side, each for its share of the runs."""
    missing = [run for run in runs if not found.file(run.name).exists()]
    jobs = []
    for worker in range(min(args.workers, len(missing))):
        share = missing[worker :: args.workers]
        adapters = [str(trained_folder(found.output, run) / "motion_adapter") for run in share]
        command = [
            sys.executable, str(ROOT / "benchmarks" / "miniature_figures.py"), "--adapters", *adapters,
            "--base", str(args.run_dir / "base"), "--output", str(found.output), "--prompts", str(args.prompts),
            "--held_out_clips", str(args.held_out_clips), "--device", found.settings.device,
            "--dtype", "bfloat16" if found.settings.mixed_precision == "bf16" else "float32",
            "--steps", str(args.sampling_steps),
        ]  # fmt: skip
        progress = lambda share=share: sum(found.file(run.name).exists() for run in share)  # noqa: E731
        jobs.append(Job("measuring", command, found.output / f"measuring-{worker}.log", progress, len(share)))
    run_jobs(jobs, args.workers, found.settings.device, "measuring", "run")


def measure_baselines(found: Study, held_out: HeldOut, run: Run) -> None:
    """The rendered clips of the same scenes, and the first frame of each painted clip of a run, repeated."""
    count = len(found.prompts)
    if not found.file(RENDERED).exists():
        store_measured(held_out.clips[:count], held_out, found.measurers, found.file(RENDERED))
    if not found.file(STILL).exists():
        folder = found.file(run.name).with_suffix("")
        firsts = [np.asarray(read_video(folder / f"{index:04d}.mp4").frames[:1]) for index in range(count)]
        clips = [np.repeat(first, held_out.clips.shape[1], axis=0) for first in firsts]
        store_measured(clips, held_out, found.measurers, found.file(STILL))


def tell(found: Study) -> None:
    """Write results.json, results.md and report.html."""
    figures = figures_of(found)
    write_results(results_of(found, figures), found.output / FILE_NAME)
    sofp = SOFP if SOFP.exists() else None
    write_text(found.output / "results.md", markdown(found, figures, sofp))
    left_out = write_report(
        [found.output], found.output / "report.html", "The paper's claims in miniature", sofp, max_bytes=REPORT_BYTES
    )
    for line in left_out:
        logger.info("%s", line)
    logger.info("written to %s", found.output / "results.md")


def parse_args(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--run_dir", type=Path, default=Path("runs/shanshui"), help="of train_tiny.py")
    parser.add_argument("--output", type=Path, default=Path("runs/study"), help="everything of the study")
    parser.add_argument(
        "--minutes", type=float, help=f"of training for each run: sets the steps, once for a study; {MINUTES:g}"
    )
    parser.add_argument("--workers", type=int, help="processes side by side; one per core, with a GPU 4")
    parser.add_argument("--device", help="cuda where there is one, else cpu")
    parser.add_argument("--rows", nargs="+", choices=KEYS, default=KEYS, metavar="ROW", help=", ".join(KEYS))
    parser.add_argument("--seeds", type=int, default=3, help="trainings of the rows of Table II; 1 leaves all open")
    parser.add_argument("--prompts", type=int, default=24, help="that every run paints")
    parser.add_argument(
        "--held_out_clips", type=int, default=48, help="that the loss is taken on; their first scenes are painted"
    )
    parser.add_argument("--batch_size", type=int, help=f"of training; {BATCH_SIZE}")
    parser.add_argument("--mixed_precision", choices=("no", "bf16"), help="bf16 where it is fast")
    parser.add_argument(
        "--compile", action=argparse.BooleanOptionalAction, help="training: minutes once for each shape of the UNet"
    )
    parser.add_argument("--sampling_steps", type=int, default=STEPS, help="of denoising")
    args = parser.parse_args(arguments)
    for name in ("minutes", "workers", "seeds", "prompts", "batch_size", "sampling_steps"):
        value = getattr(args, name)
        if value is not None and not 0 < value < float("inf"):
            parser.error(f"--{name} is {value}, but has to be above 0.")
    if args.seeds > MOST_SEEDS:
        parser.error(f"--seeds is {args.seeds}, but the margins are known up to {MOST_SEEDS}.")
    if args.held_out_clips < args.prompts:
        parser.error(f"--held_out_clips is {args.held_out_clips}, but has to be at least --prompts, {args.prompts}.")
    if args.workers is None:
        import torch

        on_gpu = torch.cuda.is_available() and args.device != "cpu"
        args.workers = min(4, usable_cores()) if on_gpu else usable_cores()
    return args


if __name__ == "__main__":
    sys.exit(main())
