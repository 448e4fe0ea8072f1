#!/usr/bin/env bash
# Guess: `accelerate launch --cpu --num_processes 2 script.py` starts two processes, or says why it does not.
#
# What happens: it starts one, with exit code 0 and no word about it, and the script trains with half the batch. (torchrun
# starts two, and accelerate in the script joins them.)
#
# Seen with accelerate 1.15.0, torch 2.15.0, Python 3.11.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet accelerate==1.15.0 torch==2.15.0 numpy==2.4.6
cd "$work"
"$work/venv/bin/python" - <<'PYTHON'
import os
import subprocess
import sys
from pathlib import Path

Path("count.py").write_text(
    "from pathlib import Path\n"
    "from accelerate import Accelerator\n"
    "state = Accelerator().state\n"
    "Path(f'process_{state.process_index}').write_text(str(state.num_processes))\n"
)
environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}


def processes(*launcher):
    """What each process that was started takes for the number of processes, and what the launcher said of them."""
    done = subprocess.run(
        [sys.executable, "-m", *launcher, "count.py"], env=environment, capture_output=True, text=True, check=True
    )
    files = sorted(Path().glob("process_*"))
    found = [file.read_text() for file in files]
    for file in files:
        file.unlink()
    return found, [line for line in done.stderr.splitlines() if "process" in line.lower()]


launched, said = processes("accelerate.commands.launch", "--cpu", "--num_processes", "2")
print("accelerate launch --cpu --num_processes 2:", launched, *said)
torchrun, _ = processes("torch.distributed.run", "--standalone", "--nproc_per_node", "2")
print("torchrun --nproc_per_node 2:", torchrun)
assert launched == ["1"] and torchrun == ["2", "2"]
PYTHON
