#!/bin/bash
# One run in a container (see slurm/apptainer.def): sbatch slurm/apptainer.sh experiment=crosssplit/cifar10_sym50 trainer=gpu
#SBATCH --job-name=robustlab
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=03:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out

IMAGE=${IMAGE:-robustlab.sif}
export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
trap : TERM USR1 # a preemption signals this shell, too: it must live on until srun has ended

# --nv: the node's GPUs. `exec` and not `run`: the signal reaches `train`, and its exit code comes back.
srun apptainer exec --nv --bind "$PWD" --pwd "$PWD" "$IMAGE" train "$@"
code=$?

# Out here, not in the container, which has no scontrol.
if [ $code -eq 85 ] && scontrol show job --oneliner "$SLURM_JOB_ID" | grep -qE 'JobState=RUNNING|Reason=TimeLimit'; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
