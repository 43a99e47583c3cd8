"""Build the reproducibility record of a run: its command, code, packages and machine."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import robustlab
from robustlab.core.timestamps import timestamp
from robustlab.engine.git import git_state


def reproducibility_record(*, config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the record as plain types, ready for JSON; unknown values are null.

    - config: the resolved configuration.
    - overrides: overrides on the command line.
    """
    return {
        "time": timestamp(),
        "command": [Path(sys.argv[0]).name, *overrides],
        "overrides": list(overrides),
        "config": dict(config),
        "code": {"version": robustlab.__version__, **git_state(Path(robustlab.__file__).parent)},
        "packages": package_versions(),
        "python": sys.version.split()[0],
        "hardware": hardware(),
        "slurm": {name: value for name, value in sorted(os.environ.items()) if _SLURM.fullmatch(name)},
    }


_SLURM = re.compile(
    r"SLURM_(JOB_ID|JOBID|ARRAY_JOB_ID|ARRAY_TASK_ID|JOB_NAME|JOB_PARTITION|JOB_NODELIST|NNODES|NTASKS|PROCID|NODEID"
    r"|RESTART_COUNT|CPUS_PER_TASK|CLUSTER_NAME)"
)


def package_versions() -> dict[str, str]:
    """Return lower-case package name -> version, for every installed package."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.name
        if name:
            versions.setdefault(name.lower(), distribution.version)  # the first on the path is the one imported
    return dict(sorted(versions.items()))


def hardware() -> dict[str, Any]:
    """Return host, processor, memory, threads and GPUs, without creating a CUDA context."""
    gpus = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            device = torch.cuda.get_device_properties(index)
            gpus.append({"name": device.name, "memory_gib": round(device.total_memory / 2**30, 1)})
    return {
        "hostname": socket.gethostname(),
        "platform": platform.platform(),
        "cpu": _cpu_name(),
        "cpu_count": os.cpu_count(),
        "cpu_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "omp_num_threads": os.environ.get("OMP_NUM_THREADS"),
        "memory_gib": _memory_gib(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version() if gpus else None,
        "gpus": gpus,
        "cuda_visible_devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }


def _cpu_name() -> str | None:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or None
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or None


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None
