#!/usr/bin/env bash
# Several nodes under SLURM: sbatch examples/launch/slurm.sh --train_data_dir VIDEOS --output_dir RUN ...
# Ten minutes before its time limit, the job saves a checkpoint and requeues itself; then it resumes.
#SBATCH --job-name=motion-adapter
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
set -uo pipefail

gpus_per_node=4
export MASTER_ADDR MASTER_PORT=29500 SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-1}"  # srun does not inherit it
MASTER_ADDR="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"

# `scancel` signals all processes of this job's steps, but not this script.
requeue=0
save_and_requeue() {
    requeue=1
    scancel --signal=USR1 "$SLURM_JOB_ID"
}
trap save_and_requeue USR1

# $SLURM_NODEID is known only on each node, hence the inner shell. It ignores the signal, and `accelerate launch`, which
# the signal would kill, inherits that. The training processes install their own handler.
srun bash -c 'trap "" USR1; exec accelerate launch --multi_gpu --mixed_precision bf16 \
    --num_machines "$SLURM_NNODES" --num_processes $((SLURM_NNODES * '"$gpus_per_node"')) \
    --machine_rank "$SLURM_NODEID" --main_process_ip "$MASTER_ADDR" --main_process_port "$MASTER_PORT" \
    training/train_motion.py --resume_from_checkpoint latest "$@"' bash "$@" &
job=$!
wait "$job"
code=$?
if [ "$requeue" = 1 ]; then
    wait "$job"  # the first wait ends with the signal, this one with the save
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
