"""Sweeps on a SLURM cluster, through submitit: submitted, packed, requeued, followed."""
