"""The record of all tiny runs, and the comparison of new runs with it."""

from __future__ import annotations

import json
import math
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from tests.bits import evidence
from tests.bits.outcome import Outcome, fingerprint, first_difference, weights_hash
from tests.bits.special import RUNS

RECORD = Path(__file__).with_name("recorded.json")
ACCURACY, LOSS = 0.05, 0.05
"""How far final accuracies (absolute) and losses (relative) may lie apart on another kind of machine.

With torch's and MKL's code for SSE instead of AVX-512, all weights differ, accuracies by up to 0.027 (4 of 150 images)
and losses by up to 0.2 %. Of groups, which have 20 images and more, single images weigh too much to be compared.
"""
_LIBRARIES = ("torch", "numpy", "scipy", "scikit-learn", "pillow")


def machine() -> dict[str, str]:
    """Return what else the last bits of a result depend on: processor, vector width, threads, libraries."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    kind = {
        "processor": models[0] if models else platform.processor(),
        "vectors": torch.backends.cpu.get_cpu_capability(),
        "threads": "1",
    }
    return kind | {name: version(name) for name in _LIBRARIES}


def recorded(path: Path = RECORD) -> dict[str, Any]:
    """Return a record: {"machine": see `machine`, "runs": {name: see `fingerprint`, with "entered"}}."""
    return json.loads(path.read_text())


def write(path: Path, runs: Mapping[str, Mapping[str, Any]], *, kind: Mapping[str, str]) -> None:
    """Write runs by name into a record; runs that it holds already stay if they come from the same kind of machine."""
    known = recorded(path) if path.exists() else {"machine": kind, "runs": {}}
    kept = known["runs"] if known["machine"] == kind else {}
    merged = {name: value for name, value in ({**kept, **runs}).items() if name in RUNS}
    path.write_text(json.dumps({"machine": kind, "runs": dict(sorted(merged.items()))}, indent=1) + "\n")


def entered(name: str, found: Mapping[str, Outcome]) -> list[str]:
    """Return what proves that a run entered its special branch. Raises AssertionError where something does not.

    found: the outcomes of this run and of those it is compared with, by name.
    """
    run, own = RUNS[name], weights_hash(found[name].weights)
    seen = [evidence.trained(found[name]), *(proof(found[name]) for proof in run.proofs)]
    for control, what in [*run.unlike.items(), *run.like.items()]:
        same = own == weights_hash(found[control].weights)
        assert same == (control in run.like), f"{what}: weights {'like' if same else 'unlike'} those of {control}"
        seen.append(f"{what} (weights {'like' if same else 'unlike'} those of {control})")
    return seen


def not_proven(name: str, found: Mapping[str, Outcome]) -> list[str]:
    """Return why a run did not enter its special branch; [] if it did."""
    try:
        entered(name, found)
    except Exception as error:  # a proof may miss what it looks for in any way
        return [f"special branch not entered: {type(error).__name__}: {error}"]
    return []


def differences(before: Mapping[str, Any] | None, outcome: Outcome, *, to_the_bit: bool) -> list[str]:
    """Return how a run differs from its record; [] if it does not.

    to_the_bit: else the name of the folder must be the same, and the final metrics close.
    """
    if before is None:
        return ["not recorded yet"]
    now = fingerprint(outcome)
    found = [] if now["folder"] == before["folder"] else [f"folder {now['folder']}, was {before['folder']}"]
    if not to_the_bit:
        return found + _far(before["final"], now["final"])
    if now["weights"] != before["weights"]:
        found.append("weights differ")
    if now["metrics"] != before["metrics"]:
        found.append(f"metrics differ ({first_difference(before, now, outcome.rows)})")
    elif now["results"] != before["results"]:
        found.append("results.json differs (selection, final, stage_ends, steps or noise)")
    return found


def _far(before: Mapping[str, float], now: Mapping[str, float]) -> list[str]:
    """Return which final metrics are missing, new, or not close to those recorded."""
    problems = []
    for name in sorted(before.keys() | now.keys()):
        old, new = before.get(name), now.get(name)
        if old is None or new is None:
            problems.append(f"{name} was {old}, is {new}")
        elif name.endswith("/loss") and not math.isclose(new, old, rel_tol=LOSS):
            problems.append(f"{name} was {old:.4f}, is {new:.4f}")
        elif name.endswith(("/accuracy", "/balanced_accuracy")) and not math.isclose(new, old, abs_tol=ACCURACY):
            problems.append(f"{name} was {old:.3f}, is {new:.3f}")
    return problems
