"""`examples/launch/slurm.sh` stops and requeues its own job, with stand-ins for SLURM's commands and the launcher."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from processes import wait_for


SCRIPT = Path(__file__).parents[2] / "examples" / "launch" / "slurm.sh"
COMMANDS = {
    "scontrol": 'if [ "$1" = show ]; then echo node1; else echo "$*" > "$STATE/scontrol"; fi',
    "srun": 'exec setsid --wait bash -c \'echo $$ > "$STATE/step"; exec "$@"\' srun "$@"',  # a step is a group
    "scancel": 'echo "$*" > "$STATE/scancel"; kill -s "${1#--signal=}" -- "-$(cat "$STATE/step")"',
    "pkill": 'echo "$*" > "$STATE/pkill"',  # what it would hit is not this job's alone
    "accelerate": f'exec "{sys.executable}" "$STATE/launcher.py" "$@"',
}
LAUNCHER = """
import os, subprocess, sys
sys.exit(subprocess.call([sys.executable, os.environ["STATE"] + "/trainer.py", *sys.argv[1:]]))
"""
TRAINER = """
import json, os, pathlib, signal, sys, time
state = pathlib.Path(os.environ["STATE"])
def save(*_):
    time.sleep(0.5)
    (state / "saved").touch()
    sys.exit(75)
signal.signal(signal.SIGUSR1, save)
(state / "unfinished").write_text(json.dumps(sys.argv[1:]))
(state / "unfinished").rename(state / "arguments")
time.sleep(0 if "--fail" in sys.argv else 300)
sys.exit(3)
"""


@pytest.fixture
def start(tmp_path):
    """Start the job, as `sbatch` would: `start(*flags)` gives its process."""
    (tmp_path / "bin").mkdir()
    for name, line in COMMANDS.items():
        (tmp_path / "bin" / name).write_text(f"#!/usr/bin/env bash\n{line}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "launcher.py").write_text(LAUNCHER)
    (tmp_path / "trainer.py").write_text(TRAINER)
    environment = {
        **os.environ,
        **{"SLURM_JOB_ID": "42", "SLURM_JOB_NODELIST": "node1", "SLURM_NNODES": "1", "SLURM_NODEID": "0"},
        **{"STATE": str(tmp_path), "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"},
    }
    started = []

    def start(*flags: str) -> subprocess.Popen:
        started.append(subprocess.Popen(["bash", str(SCRIPT), *flags], env=environment, stderr=subprocess.PIPE))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
            os.killpg(int((tmp_path / "step").read_text()), signal.SIGKILL)
        process.stderr.close()


def test_before_its_time_is_over_the_job_saves_and_queues_itself_again(start, tmp_path):
    process = start("--output_dir", "a run")
    wait_for((tmp_path / "arguments").exists, process)
    process.send_signal(signal.SIGUSR1)
    assert process.wait(timeout=100) == 0, process.stderr.read()
    assert (tmp_path / "saved").exists()  # neither the shell nor the launcher died of the signal before that
    assert (tmp_path / "scancel").read_text() == "--signal=USR1 42\n" and not (tmp_path / "pkill").exists()
    assert (tmp_path / "scontrol").read_text() == "requeue 42\n"
    arguments = json.loads((tmp_path / "arguments").read_text())
    assert arguments[-4:] == ["--resume_from_checkpoint", "latest", "--output_dir", "a run"]
    assert arguments[:2] == ["launch", "--multi_gpu"] and "training/train_motion.py" in arguments


def test_a_job_that_fails_is_not_queued_again(start, tmp_path):
    process = start("--fail")
    assert process.wait(timeout=100) == 3
    assert not (tmp_path / "scontrol").exists()
