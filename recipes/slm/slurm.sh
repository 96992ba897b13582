#!/bin/bash
# Any recipe on several nodes:
#   sbatch --nodes 4 recipes/slm/slurm.sh --config recipes/slm/interleaved.yaml --output runs/interleaved
# Two minutes before the time is up every training process is asked to stop; the run writes a checkpoint, and the job
# goes back into the queue until runs/.../final is there. Paths must be on a file system that all nodes share.
#SBATCH --job-name=train-slm
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%x-%j.out

set -eu
output=""
previous=""
for word in "$@"; do
    case "$previous" in --output) output=$word ;; esac
    case "$word" in --output=*) output=${word#--output=} ;; esac
    previous=$word
done
[ -n "$output" ] || { echo "slurm.sh: name the run directory with --output" >&2; exit 2; }

head_node=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export OMP_NUM_THREADS=8
# srun does not take this over from sbatch: without it all processes of a node share one core.
export SRUN_CPUS_PER_TASK="${SLURM_CPUS_PER_TASK:-64}"

# The signal is for the job step; this script has to outlive it, to hand the job in again. It reaches the shell of each
# node, which hands it to the training processes alone: torchrun would kill them 30 s later.
trap '' TERM
status=0
srun --kill-on-bad-exit=1 bash -c '
    torchrun "$@" &
    launcher=$!
    trap "pkill -TERM -P $launcher" TERM
    status=0
    wait $launcher || status=$?
    while kill -0 $launcher 2>/dev/null; do status=0; wait $launcher || status=$?; done
    exit $status
' torchrun \
    --nnodes "$SLURM_NNODES" --nproc_per_node gpu \
    --rdzv_id "$SLURM_JOB_ID" --rdzv_backend c10d --rdzv_endpoint "$head_node:29500" \
    -m recipes train-slm "$@" || status=$?

if [ -d "$output/final" ]; then
    exit 0
fi
# Time was up: go on in the next allocation. Other ends are for a person to see.
if [ $((SLURM_JOB_END_TIME - $(date +%s))) -lt 300 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
