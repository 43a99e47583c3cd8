"""The commands `robustlab <verb>`, one module each with `main(argv) -> exit code`. None imports torch for its help."""

VERBS = {
    "train": "train a method, or a sweep with -m; resumes stopped runs",
    "status": "show the state of runs and why they failed; --resubmit, --cancel",
    "report": "a table of finished runs, mean ± std over seeds",
    "plot": "learning curves, accuracy against sparsity",
    "submit": "submit a sweep to SLURM and return; --dry-run",
    "sync": "send missing metrics of local runs to W&B",
    "export": "a run's network in two small files; --latency",
    "prepare-data": "download, verify and cache a data set ahead of a run",
}
