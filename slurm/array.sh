#!/bin/bash
# Seeds 0 to 4 of one setting, each a job of its own: sbatch slurm/array.sh experiment=crosssplit/cifar10_sym50 trainer=gpu
#SBATCH --job-name=robustlab
#SBATCH --array=0-4
#SBATCH --gres=gpu:1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=03:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%A_%a.out

export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
trap : TERM USR1 # a preemption signals this shell, too: it must live on until srun has ended

srun train seed="$SLURM_ARRAY_TASK_ID" "$@"
code=$?

# Not $SLURM_JOB_ID: of the last element it is the number of the whole array, and requeues all of it.
element=${SLURM_ARRAY_JOB_ID}_${SLURM_ARRAY_TASK_ID}
if [ $code -eq 85 ] && scontrol show job --oneliner "$SLURM_JOB_ID" | grep -qE 'JobState=RUNNING|Reason=TimeLimit'; then
  scontrol requeue "$element"
fi
exit $code
