"""Train the rows of the miniature study: `train_motion.py` in parallel processes, each of which can resume.

All runs take the same number of steps, so that slower rows have no disadvantage. The number is given, or follows from
the time limit and the speed of the full model. It is measured once, and is then part of the study.
"""

import argparse
import json
import logging
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from tqdm.auto import tqdm

from landscape_video.files import read_json_lines
from miniature_claims import ROWS, Run
from shanshui.stages.family_run import computes_bfloat16_fast
from shanshui.stages.stage_scripts import MOTION_FLAGS


TRAINING = Path(__file__).resolve().parents[1] / "training"


MINUTES, BATCH_SIZE = 8.0, 4
TIMED_STEPS, WARM_UP_STEPS = 10, 3  # the first steps allocate memory
SAVES = 8  # checkpoints of a run
# Inputs of a run, and the stages of `train_tiny.py` that make them.
NEEDED = {
    "latents": ("latents-00000.safetensors", "captions.jsonl"),
    "base": ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
}
STAGES = {"latents": "render clip vae latents", "base": "text unet motion"}

logger = logging.getLogger("miniature_study")


class StudyError(Exception):
    """The study cannot continue; the message is one line that says why."""


@dataclass(frozen=True)
class Settings:
    """What all runs of a study share; stored in its folder."""

    steps: int
    minutes: float
    seconds_per_step: float
    batch_size: int
    mixed_precision: str
    device: str
    compile: bool
    made_of: dict[str, str]

    def budget(self) -> str:
        """The number of steps, and where it comes from if they were timed."""
        steps = f"{self.steps} steps of {self.batch_size} clips"
        if not self.seconds_per_step:
            return steps
        speed = f"{self.seconds_per_step:.2f} s a step"
        return f"{steps}, as many as the full model does in {self.minutes:g} minutes at {speed}"


@dataclass(frozen=True)
class Job:
    """A training to run: its name in error messages, its command, and its output folder."""

    name: str
    command: Sequence[str]
    folder: Path

    @property
    def log(self) -> Path:
        """File for the output of the process."""
        return self.folder.with_suffix(".log")


def check_run_dir(run_dir: Path) -> None:
    """Raise `StudyError` if an input that `train_tiny.py` writes is missing."""
    for folder, names in NEEDED.items():
        for name in names:
            if not (run_dir / folder / name).exists():
                raise StudyError(
                    f"{run_dir} has no {folder}/{name}; make it with `python training/shanshui/train_tiny.py "
                    f"--run_dir {run_dir} --stages {STAGES[folder]}`."
                )


def training_command(run: Run, run_dir: Path, output: Path, settings: Settings, is_timed: bool = False) -> list[str]:
    """The command of one run, or to time it: as `train_tiny.py` calls `train_motion.py`, without slow motion."""
    steps = settings.steps
    logging_steps = 1 if is_timed else 5
    checkpointing_steps = steps if is_timed else max(1, steps // SAVES)  # a save is not part of a step
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
    """Output folder of a run's training."""
    return output / "trained" / run.name


def is_trained(folder: Path, steps: int) -> bool:
    """Whether a run has finished and its adapter exists."""
    try:
        status = json.loads((folder / "status.json").read_text())
    except FileNotFoundError:
        return False
    return status["status"] == "finished" and status["step"] == steps and (folder / "motion_adapter").is_dir()


def train(runs: Sequence[Run], run_dir: Path, output: Path, settings: Settings, workers: int) -> None:
    """Train the runs that are not trained yet. Raises `StudyError` if one fails."""
    jobs = []
    for run in runs:
        folder = trained_folder(output, run)
        if not is_trained(folder, settings.steps):
            jobs.append(Job(run.name, training_command(run, run_dir, folder, settings), folder))
    run_jobs(jobs, workers, settings, "training")


def last_step(log: Path) -> int:
    """The last step in a log; 0 without a log."""
    lines = read_json_lines(log)
    return lines[-1]["step"] if lines else 0


def training_minutes(folder: Path, batch_size: int) -> float:
    """Duration of the steps of a run, without the time between stop and resume."""
    lines = read_json_lines(folder / "log.jsonl")
    before = [0, *(line["step"] for line in lines)]
    seconds = (
        (line["step"] - step) * batch_size / line["clips_per_second"]
        for step, line in zip(before, lines, strict=False)
    )
    return sum(seconds) / 60


def time_steps(run_dir: Path, settings: Settings, workers: int) -> float:
    """Seconds that a step of the full model takes, in the slowest of `workers` processes side by side."""
    run = Run(ROWS[0], 0)
    with TemporaryDirectory() as name:
        folders = [Path(name) / str(worker) for worker in range(workers)]
        commands = [training_command(run, run_dir, folder, settings, is_timed=True) for folder in folders]
        run_jobs([Job("timing", *pair) for pair in zip(commands, folders, strict=True)], workers, settings, "timing")
        logs = [read_json_lines(folder / "log.jsonl")[WARM_UP_STEPS:] for folder in folders]
    speeds = [statistics.median(line["clips_per_second"] for line in lines) for lines in logs]
    return settings.batch_size / min(speeds)


def run_jobs(jobs: Sequence[Job], workers: int, settings: Settings, description: str) -> None:
    """Run trainings, at most `workers` at a time.

    When this process is stopped, it sends each of them one SIGTERM, on which it saves a checkpoint. They run in
    sessions of their own, because Ctrl-C would otherwise reach them as a second signal, which does not wait.

    Raises:
        StudyError: A training failed; the message names its log and the log's last line.
    """
    waiting, running = list(jobs), []
    with tqdm(total=len(jobs) * settings.steps, desc=description, unit="step", disable=not jobs) as bar:
        try:
            while waiting or running:
                while waiting and len(running) < workers:
                    job = waiting.pop(0)
                    running.append((job, _start(job, workers, settings.device)))
                for job, process in list(running):
                    if process.poll() is not None:
                        running.remove((job, process))
                        _check(job, process.returncode)
                bar.update(sum(last_step(job.folder / "log.jsonl") for job in jobs) - bar.n)
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
    job.folder.mkdir(parents=True, exist_ok=True)
    with job.log.open("a") as log:
        return subprocess.Popen(
            job.command, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )


def _check(job: Job, code: int) -> None:
    if code != 0:
        lines = job.log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise StudyError(f"{job.name} failed with exit code {code}: {lines[-1].strip()} ({job.log})")


def usable_cores() -> int:
    """Number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_settings(path: Path, args: argparse.Namespace, made_of: dict[str, str]) -> Settings:
    """Read the settings of the study, or time the full model and make new ones.

    Raises:
        StudyError: The study was started with other models, latents or flags.
    """
    if not path.exists():
        minutes = args.minutes or MINUTES
        device = args.device or ("cuda" if torch.cuda.is_available() else "cpu")
        precision = args.mixed_precision or ("bf16" if computes_bfloat16_fast(device) else "no")
        size, compiles = args.batch_size or BATCH_SIZE, bool(args.compile)
        box = Settings(TIMED_STEPS, minutes, 0.0, size, precision, device, compiles, made_of)
        if args.steps:
            return replace(box, steps=args.steps)
        seconds = time_steps(args.run_dir, box, args.workers)
        return replace(box, steps=max(1, int(60 * minutes / seconds)), seconds_per_step=seconds)
    settings = Settings(**json.loads(path.read_text()))
    if settings.made_of != made_of:
        raise StudyError(
            f"{path.parent} was started with other models or latents than {args.run_dir} has now; choose another "
            "--output."
        )
    for name in ("minutes", "steps", "batch_size", "mixed_precision", "device", "compile"):
        given, stored = getattr(args, name), getattr(settings, name)
        if given not in (None, stored):
            raise StudyError(f"{path.parent} was started with {name} {stored}, got {given}; choose another --output.")
    return settings
