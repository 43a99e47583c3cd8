#!/bin/bash
# One run over several nodes: sbatch slurm/torchrun.sh experiment=crosssplit/cifar10_sym50 trainer=gpu
# trainer.batch_size is that of all processes together.
#SBATCH --job-name=robustlab
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=32
#SBATCH --mem=0
#SBATCH --time=03:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.out

export SRUN_CPUS_PER_TASK=${SLURM_CPUS_PER_TASK:-1}
export MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR
