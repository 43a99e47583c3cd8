"""Record the files that a run trains and evaluates on: written at its first start, compared at every later one."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path

from robustlab.core.errors import DataError
from robustlab.core.files import write_whole
from robustlab.data.storage.encoded_images import listing

Manifest = Mapping[str, Mapping[str, int]]
"""Split -> file -> label."""


def write(path: Path, manifest: Manifest) -> None:
    """Write one line per file, "split, label, name", compressed, atomically."""
    lines = (f"{split}\t{label}\t{name}\n" for split, files in manifest.items() for name, label in files.items())
    content = gzip.compress("".join(lines).encode(errors="surrogateescape"), mtime=0)
    write_whole(path, lambda file: file.write(content))


def check_same(path: Path, manifest: Manifest) -> None:
    """Raise DataError that names files differing from those in `path`: missing, new, or in another class."""
    before = _read(path)
    differences: list[str] = []
    for split in sorted(before.keys() | manifest.keys()):
        old, new = before.get(split, {}), manifest.get(split, {})
        differences += [f"{split}: {name} is missing" for name in old if name not in new]
        differences += [f"{split}: {name} is new" for name in new if name not in old]
        differences += [
            f"{split}: {name} had label {old[name]}, now has {label}"
            for name, label in new.items()
            if old.get(name, label) != label
        ]
        if not differences and list(old) != list(new):
            differences.append(f"{split}: the same files in a different order")
    if differences:
        advice = "restore the original data, or start over with resume=false"
        headline = f"the data set has changed since this run started ({path}), {len(differences)} difference(s)"
        raise DataError(listing(differences, f"{headline}; {advice}"))


def _read(path: Path) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    try:
        for line in gzip.decompress(path.read_bytes()).decode(errors="surrogateescape").splitlines():
            split, label, name = line.split("\t", 2)
            found.setdefault(split, {})[name] = int(label)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{path} is damaged ({error}); delete it if the data set has not changed since the run started"
        ) from error
    return found
