"""The reproducibility record of a run: what was asked for, with which code, which packages, on which machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

import robustlab

LARGEST_UNTRACKED = 1 << 20
"""Untracked files above this size enter the hash of the changes by name and size only."""


def reproducibility_record(*, config: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return the record as plain types, ready for JSON.

    config: the resolved configuration. overrides: the command line's. What cannot be found out is null.
    """
    return {
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
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


def git_state(folder: Path) -> dict[str, Any]:
    """Return {"git_sha", "dirty", "diff_sha256"} of the checkout that `folder` belongs to; all null outside of one.

    `diff_sha256` hashes the changes since the commit, and the untracked files that git does not ignore; null if clean.
    A package installed into an environment that lies inside somebody's checkout is not part of it.
    """
    unknown = {"git_sha": None, "dirty": None, "diff_sha256": None}
    if _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return unknown
    sha, top = _git(folder, "rev-parse", "HEAD"), _git(folder, "rev-parse", "--show-toplevel")
    if sha is None or top is None:
        return unknown
    root = Path(os.fsdecode(top.strip()))
    diff = _git(root, "diff", "HEAD", "--binary", "--no-ext-diff", "--no-color")
    untracked = _git(root, "ls-files", "--others", "--exclude-standard", "-z")
    if diff is None or untracked is None:
        return {**unknown, "git_sha": sha.decode().strip()}
    dirty = bool(diff or untracked)
    digest = hashlib.sha256(diff)
    for name in filter(None, untracked.split(b"\0")):
        digest.update(b"\0" + name + b"\0" + _content(root / os.fsdecode(name)))
    return {
        "git_sha": sha.decode().strip(),
        "dirty": dirty,
        "diff_sha256": digest.hexdigest() if dirty else None,
    }


def _git(folder: Path, *arguments: str) -> bytes | None:
    """Return what a git command prints; None if there is no git, no repository, or no answer."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True,
            timeout=10,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def _content(path: Path) -> bytes:
    try:
        size = path.lstat().st_size
        return path.read_bytes() if size <= LARGEST_UNTRACKED else str(size).encode()
    except OSError:  # vanished, unreadable or a folder of its own: its name still counts
        return b""


def package_versions() -> dict[str, str]:
    """Return the version of every installed package, by its name in lower case."""
    versions: dict[str, str] = {}
    for distribution in importlib.metadata.distributions():
        name = distribution.name
        if name:
            versions.setdefault(name.lower(), distribution.version)  # the first on the path is the one imported
    return dict(sorted(versions.items()))


def hardware() -> dict[str, Any]:
    """Return host, processor, memory, threads and GPUs. Reading the GPUs' names does not start CUDA work on them."""
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
