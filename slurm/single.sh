#!/bin/bash
# One run: sbatch slurm/single.sh experiment=crosssplit/cifar10_sym50 trainer=gpu seed=0
#SBATCH --job-name=robustlab
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=03:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out
# --signal: to the processes of srun, two minutes before the time limit. `train` then saves and exits with 85.

export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
trap : TERM USR1 # a preemption signals this shell, too: it must live on until srun has ended

srun train "$@"
code=$?

# While the job counts as running, it returns only if it puts itself back. Otherwise SLURM has decided: it was cancelled,
# or is requeued already.
if [ $code -eq 85 ] && scontrol show job --oneliner "$SLURM_JOB_ID" | grep -qE 'JobState=RUNNING|Reason=TimeLimit'; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
