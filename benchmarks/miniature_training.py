"""Training of the miniature study's rows: `train_motion.py` in processes side by side, each of which can be resumed.

All runs get the same number of steps: a row that is slower is not punished for it. The number comes from a time box,
measured once on the full model, and is part of the study from then on.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm.auto import tqdm

from miniature_rows import ROWS, Run
from shanshui.stages.family_run import computes_bfloat16_fast
from shanshui.stages.train_motion_adapter import MOTION_FLAGS
from shanshui.stages.training_logs import read_log


TRAINING = Path(__file__).resolve().parents[1] / "training"


MINUTES, BATCH_SIZE = 8.0, 4
TIMED_STEPS, WARM_UP_STEPS = 10, 3  # the first ones allocate
SAVES = 8  # checkpoints of a run
# What a run reads, and the stages of `train_tiny.py` that make it.
NEEDED = {
    "latents": ("latents-00000.safetensors", "captions.jsonl"),
    "base": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
}
STAGES = {"latents": "render clip vae latents", "base": "text unet motion"}

logger = logging.getLogger("miniature_study")


class StudyError(Exception):
    """The study cannot go on; the message is one line that says why."""


@dataclass(frozen=True)
class Settings:
    """What all runs of a study share; stored with it."""

    steps: int
    minutes: float
    seconds_per_step: float
    batch_size: int
    mixed_precision: str
    device: str
    compile: bool
    made_of: dict[str, str]


@dataclass(frozen=True)
class Job:
    """A process to run: its command, where its output goes, and, for the progress bar, how far it has come."""

    name: str
    command: Sequence[str]
    log: Path
    progress: Callable[[], int]
    total: int


def check_run_dir(run_dir: Path) -> None:
    """Raise `StudyError` if something is missing of what `train_tiny.py` writes and the study reads."""
    for folder, names in NEEDED.items():
        for name in names:
            if not (run_dir / folder / name).exists():
                raise StudyError(
                    f"{run_dir} has no {folder}/{name}: make it by `python training/shanshui/train_tiny.py --run_dir "
                    f"{run_dir} --stages {STAGES[folder]}`."
                )


def training_command(run: Run, run_dir: Path, output: Path, settings: Settings, is_timed: bool = False) -> list[str]:
    """`train_motion.py` as `train_tiny.py` calls it, but for slow motion, for one run of the study, or to time it."""
    steps = settings.steps
    logging_steps = 1 if is_timed else 5
    checkpointing_steps = steps if is_timed else max(1, steps // SAVES)  # a save is no part of a step
    return [
        sys.executable, str(TRAINING / "train_motion.py"),
        "--pretrained_model_name_or_path", str(run_dir / "base"), "--train_data_dir", str(run_dir / "latents"),
        "--output_dir", str(output), "--seed", str(run.seed), *MOTION_FLAGS,
        "--train_batch_size", str(settings.batch_size), "--max_train_steps", str(steps),
        "--lr_warmup_steps", str(min(100, steps // 10)),
        "--mixed_precision", settings.mixed_precision, "--logging_steps", str(logging_steps),
        "--checkpointing_steps", str(checkpointing_steps), "--checkpoints_total_limit", "1",
        "--resume_from_checkpoint", "latest", *(["--torch_compile"] if settings.compile else []), *run.row.flags,
    ]  # fmt: skip


def trained_folder(output: Path, run: Run) -> Path:
    return output / "trained" / run.name


def is_trained(folder: Path, steps: int) -> bool:
    """Whether a run has come to its end, and its adapter is there."""
    try:
        status = json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return False
    return status["status"] == "finished" and status["step"] == steps and (folder / "motion_adapter").is_dir()


def train(runs: Sequence[Run], run_dir: Path, output: Path, settings: Settings, workers: int) -> None:
    """Train what is not trained yet. Raises `StudyError` where a run fails."""
    missing = [run for run in runs if not is_trained(trained_folder(output, run), settings.steps)]
    jobs = []
    for run in missing:
        folder = trained_folder(output, run)
        folder.mkdir(parents=True, exist_ok=True)
        command = training_command(run, run_dir, folder, settings)
        progress = lambda log=folder / "log.jsonl": last_step(log)  # noqa: E731
        jobs.append(Job(run.name, command, folder.with_suffix(".log"), progress, settings.steps))
    run_jobs(jobs, workers, settings.device, "training", "step")


def last_step(log: Path) -> int:
    lines = read_log(log)
    return lines[-1]["step"] if lines else 0


def training_minutes(folder: Path, batch_size: int) -> float:
    """How long the steps of a run took, stops not counted."""
    lines = read_log(folder / "log.jsonl")
    before = [0, *(line["step"] for line in lines)]
    seconds = (
        (line["step"] - step) * batch_size / line["clips_per_second"]
        for step, line in zip(before, lines, strict=False)
    )
    return sum(seconds) / 60


def time_steps(run_dir: Path, settings: Settings, workers: int) -> float:
    """Seconds that a step of the full model takes, the slowest of `workers` processes side by side."""
    with TemporaryDirectory() as name:
        folders = [Path(name) / str(worker) for worker in range(workers)]
        jobs = []
        for folder in folders:
            command = training_command(Run(ROWS[0], 0), run_dir, folder, settings, is_timed=True)
            progress = lambda log=folder / "log.jsonl": last_step(log)  # noqa: E731
            jobs.append(Job("timing", command, folder.with_suffix(".log"), progress, settings.steps))
        run_jobs(jobs, workers, settings.device, "timing", "step")
        speeds = [read_log(folder / "log.jsonl")[WARM_UP_STEPS:] for folder in folders]
        return max(
            settings.batch_size / statistics.median(line["clips_per_second"] for line in lines) for lines in speeds
        )


def run_jobs(jobs: Sequence[Job], workers: int, device: str, description: str, unit: str) -> None:
    """Run the processes, at most `workers` at a time.

    When this process is to stop, they are told so once, by SIGTERM: a training then saves a checkpoint. They are in
    sessions of their own, because a Ctrl-C that reaches them as well would be the second signal, which does not wait.

    Raises:
        StudyError: a process failed; names its log and the log's last line.
    """
    waiting, running = list(jobs), []
    with tqdm(total=sum(job.total for job in jobs), desc=description, unit=unit, disable=not jobs) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    running.append((job, _start(job, workers, device)))
                for job, process in list(running):
                    if process.poll() is not None:
                        running.remove((job, process))
                        _check(job, process.returncode)
                if (done := sum(job.progress() for job in jobs)) > bar.n:
                    bar.update(done - bar.n)
                time.sleep(0.5)
        finally:
            for _, process in running:
                process.terminate()
            for _, process in running:
                process.wait()


def _start(job: Job, workers: int, device: str) -> subprocess.Popen:
    threads = str(max(1, usable_cores() // workers))
    environment = os.environ | {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    if device == "cpu":
        environment["ACCELERATE_USE_CPU"] = "true"
    with job.log.open("a") as log:
        return subprocess.Popen(
            job.command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def _check(job: Job, code: int) -> None:
    if code != 0:
        lines = job.log.read_text(errors="replace").strip().splitlines() or ["it said nothing"]
        raise StudyError(f"{job.name} ended with code {code}: {lines[-1].strip()} ({job.log})")


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_settings(path: Path, args: argparse.Namespace, made_of: dict[str, str]) -> Settings:
    """The stored settings of the study, or new ones, for which the full model is timed.

    Raises:
        StudyError: the study was begun with another base, or with flags that differ from those given now.
    """
    if not path.exists():
        minutes = args.minutes or MINUTES
        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        precision = args.mixed_precision or ("bf16" if computes_bfloat16_fast(device) else "no")
        size, compiles = args.batch_size or BATCH_SIZE, bool(args.compile)
        box = Settings(TIMED_STEPS, minutes, 0.0, size, precision, device, compiles, made_of)
        seconds = time_steps(args.run_dir, box, args.workers)
        return replace(box, steps=max(1, int(60 * minutes / seconds)), seconds_per_step=seconds)
    settings = Settings(**json.loads(path.read_text()))
    if settings.made_of != made_of:
        raise StudyError(
            f"{path.parent} was begun with other models or latents than {args.run_dir} has now: name another --output."
        )
    for name in ("minutes", "batch_size", "mixed_precision", "device", "compile"):
        given, stored = getattr(args, name), getattr(settings, name)
        if given not in (None, stored):
            raise StudyError(f"{path.parent} was begun with {name} {stored}, not {given}: name another --output.")
    return settings
