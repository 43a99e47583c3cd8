"""Find the commit and the uncommitted changes of the running code."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from pathlib import Path
from typing import Any

SNAPSHOT_FILE = "code.json"
"""File next to `src/` in a snapshot: the state of the checkout it was copied from."""

LARGEST_UNTRACKED = 1 << 20
"""Untracked files above this size enter the hash of the changes by name and size only."""


def git_state(folder: Path) -> dict[str, Any]:
    """Return {"git_sha", "dirty", "diff_sha256"} of the checkout that `folder` belongs to; all null outside a checkout.

    `diff_sha256` hashes the changes since the commit and the untracked files that git does not ignore; null if clean.
    A package installed into an environment inside somebody's checkout does not belong to it. A sweep's code snapshot
    reports the state of the checkout it was copied from.
    """
    unknown = {"git_sha": None, "dirty": None, "diff_sha256": None}
    note = folder.parents[1] / SNAPSHOT_FILE
    if note.is_file():
        content = json.loads(note.read_bytes())
        return {key: content[key] for key in unknown}
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
    except OSError:  # vanished, unreadable or a nested repository: its name still counts
        return b""


def uncommitted(folder: Path, *parts: str) -> list[str] | None:
    """Return the changed and untracked files below `parts`; None outside a checkout.

    - folder: any folder in the checkout.
    - parts: paths relative to the top of the checkout.
    """
    top = _git(folder, "rev-parse", "--show-toplevel")
    if top is None or _git(folder, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    listed = _git(Path(os.fsdecode(top.strip())), "status", "--porcelain", "--no-renames", "-z", "--", *parts)
    return None if listed is None else [os.fsdecode(entry[3:]) for entry in listed.split(b"\0") if entry]
