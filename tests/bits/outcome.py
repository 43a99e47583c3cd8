"""What a finished run left in its folder, and the hashes that say whether another run did the same."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

FINAL = ("/accuracy", "/balanced_accuracy", "/worst_group", "/loss")
"""Endings of the metrics that are recorded to be read."""
_SHORT = 8
"""Hexadecimal digits by which single rows and columns are compared; they only help to find a difference."""


@dataclass(frozen=True)
class Outcome:
    """A finished run: its folder `<outputs>/<method>-<data set>-<hash>/seed<k>`, and what it printed."""

    folder: Path
    log: str

    @property
    def name(self) -> str:
        """The name of the run's folder, a function of its settings."""
        return self.folder.parent.name

    @cached_property
    def rows(self) -> list[dict[str, Any]]:
        """The rows of metrics.jsonl, in which nothing depends on time, place or machine."""
        return [json.loads(line) for line in (self.folder / "metrics.jsonl").read_text().splitlines()]

    @cached_property
    def results(self) -> dict[str, Any]:
        """What the run says about its end."""
        return json.loads((self.folder / "results.json").read_text())

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """Each removal of units; [] for a method that removes none."""
        path = self.folder / "pruning.json"
        return json.loads(path.read_text())["events"] if path.exists() else []

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        """The last checkpoint: plain types and tensors."""
        return torch.load(self.folder / "checkpoints" / "last.pt", map_location="cpu", weights_only=True)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Weights and buffers of all networks, and their averages, by "<learner>/network|ema/<name>"."""
        parts = {
            f"{learner}/{part}": state[part]
            for learner, state in self.checkpoint["learners"].items()
            for part in ("network", "ema")
        }
        return dict(tensors(parts))

    def updates(self, learner: str) -> int:
        """How often the optimizer moved a learner's weights."""
        return self.checkpoint["learners"][learner]["updates"]

    def state(self, ending: str) -> list[Tensor]:
        """The tensors of the method's own state whose path ends with `ending`."""
        own = {str(rank): state["method"] for rank, state in enumerate(self.checkpoint["ranks"])}
        return [value for name, value in tensors(own) if name.endswith(ending)]

    def series(self, metric: str) -> list[Any]:
        """The values of a metric, in the order of the rows that have it."""
        return [row[metric] for row in self.rows if metric in row]

    def metrics(self, pattern: str) -> dict[str, list[Any]]:
        """The series of all metrics whose whole name matches a regular expression."""
        names = {name for row in self.rows for name in row if re.fullmatch(pattern, name)}
        return {name: self.series(name) for name in sorted(names)}


def tensors(value: object, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield all tensors in nested plain types with their paths, "a/b/0"."""
    if isinstance(value, Tensor):
        yield prefix, value
    elif isinstance(value, Mapping | list | tuple):
        parts = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, part in parts:
            yield from tensors(part, f"{prefix}/{key}" if prefix else str(key))


def fingerprint(outcome: Outcome) -> dict[str, Any]:
    """Return what is recorded of a run: plain types, without class names, modules, paths and times."""
    results = outcome.results
    end = {name: results[name] for name in ("selection", "final", "stage_ends", "steps")}
    noise = results["noise"] or {}
    names = sorted({name for row in outcome.rows for name in row})
    return {
        "folder": outcome.name,
        "weights": weights_hash(outcome.weights),
        "metrics": _hash(outcome.rows),
        "results": _hash([end, noise.get("hash"), noise.get("num_wrong")]),
        "final": {name: value for name, value in sorted(results["final"].items()) if name.endswith(FINAL)},
        "rows": " ".join(_hash(row)[:_SHORT] for row in outcome.rows),
        "columns": {name: _hash([row.get(name) for row in outcome.rows])[:_SHORT] for name in names},
    }


def weights_hash(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of tensors in the order of their names: name, dtype, shape and bytes of each."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}\n".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def first_difference(before: Mapping[str, Any], now: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Say in which row the metrics of a run first differ from those recorded, and which metrics do. rows: those now."""
    old, new = before["rows"].split(), now["rows"].split()
    place = next((n for n, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
    where = f"row {place + 1} of {len(old)}" + ("" if len(old) == len(new) else f" (now {len(new)})")
    if place < len(rows):
        where += ", " + ", ".join(f"{key} {rows[place][key]}" for key in ("stage", "epoch", "step", "split"))
    columns = [before["columns"], now["columns"]]
    changed = sorted(
        name for name in columns[0].keys() | columns[1].keys() if columns[0].get(name) != columns[1].get(name)
    )
    missing = [name for name in changed if name not in columns[1]]
    added = [name for name in changed if name not in columns[0]]
    parts = {"missing": missing, "new": added, "changed": sorted({*changed} - {*missing} - {*added})}
    return f"{where}; " + "; ".join(f"{word}: {_some(names)}" for word, names in parts.items() if names)


def _some(names: Sequence[str], most: int = 6) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
