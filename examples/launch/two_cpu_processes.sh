#!/usr/bin/env bash
# Run two processes on one CPU, over gloo, to try a distributed run without a GPU. Flags are those of train_motion.py.
#     examples/launch/two_cpu_processes.sh --preset tiny --train_data_dir VIDEOS --output_dir RUN
set -euo pipefail
export ACCELERATE_USE_CPU=true OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
exec torchrun --standalone --nproc_per_node 2 "$(dirname "$0")/../../training/train_motion.py" "$@"
