"""Read `results.json` from the folder of a finished run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustlab.core.errors import RunFolderError


def read_results(folder: Path) -> dict[str, Any] | None:
    """Return `results.json` of a finished run, or None. Raises RunFolderError if the file is damaged."""
    path = folder / "results.json"
    if not path.exists():
        return None
    results = read_json(path, needed=("finished",), fix="delete it to let the run finish again")
    if not results["finished"]:
        return None
    return read_json(path, needed=SHOWN, fix="delete it to let the run finish again")


SHOWN = ("method", "dataset", "model", "seed", "epochs", "parameters", "seconds", "selection", "final")
"""Keys of a finished run's results that the summary shows."""


def read_json(path: Path, *, needed: Sequence[str], fix: str) -> dict[str, Any]:
    """Return the object in a JSON file.

    - needed: keys that must be present.
    - fix: advice at the end of the error message.

    Raises RunFolderError if the file is not a JSON object or lacks a needed key.
    """
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read as JSON ({error}); {fix}") from error
    missing = [name for name in needed if name not in content] if isinstance(content, dict) else ["an object"]
    if missing:
        raise RunFolderError(f"{path} is damaged (it has no {', '.join(missing)}); {fix}")
    return content


def usable_results(folder: Path) -> dict[str, Any] | None:
    """Return the results of a finished run; None if the file is not whole or lacks what every run has."""
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    needed = ("run_name", "seed", "method", "dataset", "model", "selection", "final")
    known = isinstance(results, dict) and results.get("finished") is True and all(name in results for name in needed)
    if not known or not all(isinstance(results[name], dict) for name in ("selection", "final")):
        return None
    return results if isinstance(results["seed"], int) else None
