#!/bin/bash
# One run on several GPUs and nodes: sbatch slurm/multi_node.sh experiment=crosssplit/cifar10_sym50 trainer=gpu
# trainer.batch_size is that of all processes together. On one node: sbatch --nodes=1 slurm/multi_node.sh ...
#SBATCH --job-name=robustlab
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --mem=0
#SBATCH --time=03:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out

export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
trap : TERM USR1 # a preemption signals this shell, too: it must live on until srun has ended

# srun starts the processes, which find each other by MASTER_ADDR and MASTER_PORT. torchrun in its place would die of USR1,
# and turn the exit code 85 of its processes into 1.
srun --kill-on-bad-exit=0 train "$@"
code=$?

# While the job counts as running, it returns only if it puts itself back. Otherwise SLURM has decided: it was cancelled,
# or is requeued already.
if [ $code -eq 85 ] && scontrol show job --oneliner "$SLURM_JOB_ID" | grep -qE 'JobState=RUNNING|Reason=TimeLimit'; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
