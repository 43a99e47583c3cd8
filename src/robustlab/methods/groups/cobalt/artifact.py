"""Save and load the concepts of a data set as one file, so that stage 2 never recomputes them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustlab.core.errors import ConfigError, UserError
from robustlab.core.files import write_json
from robustlab.engine.checkpoint import SCHEMA_VERSION, read_checked, write_atomically

if TYPE_CHECKING:
    from robustlab.data.run_data import Data


@dataclass(frozen=True)
class Concepts:
    """The concepts of each split's images, in the order of `Data.evaluation(split)`.

    - num_concepts: K.
    - tables: split -> code of each slot, (n, N) int16, -1 if the slot is inactive.
    - area, margin: split -> (n, N) float16, see `extract.Assignment`.
    - samples: split -> stable indices of the rows, (n,) int64.
    - fingerprints: split -> `Data.fingerprint`.
    - identity: seed, settings, hash of teacher and dictionary, and whatever else identifies the run.
    - codes: vectors of the concepts, (K, d) float32, to find neighbours; None in files of earlier versions.
    """

    num_concepts: int
    tables: dict[str, Tensor]
    area: dict[str, Tensor]
    margin: dict[str, Tensor]
    samples: dict[str, Tensor]
    fingerprints: dict[str, str]
    identity: dict[str, Any]
    codes: Tensor | None = None

    @property
    def num_slots(self) -> int:
        """N, the number of slots per image."""
        return next(iter(self.tables.values())).shape[1]


def save(concepts: Concepts, path: Path) -> None:
    """Write the concepts atomically to `path`, and a readable description to `<name>.json` next to it.

    Raises RunFolderError if the disk is full.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, {"schema": SCHEMA_VERSION, **{name: getattr(concepts, name) for name in _fields()}})
    slots = {
        split: torch.bincount(table[table >= 0].long(), minlength=concepts.num_concepts).tolist()
        for split, table in concepts.tables.items()
    }
    record = {
        "num_concepts": concepts.num_concepts,
        "num_slots": concepts.num_slots,
        "images": {split: len(table) for split, table in concepts.tables.items()},
        "active_slots_of_each_concept": slots,
        "fingerprints": concepts.fingerprints,
        "identity": concepts.identity,
    }
    write_json(path.with_suffix(".json"), record)


def load(path: Path, data: Data, *, splits: Sequence[str] = ("train",)) -> Concepts:
    """Load the concepts that `save` wrote, and check that they belong to `data` and cover all `splits`.

    Raises ConfigError for a file that is missing, damaged or contains no concepts, and if the samples, order or labels
    of a split differ from `data`.
    """
    if not path.is_file():
        raise ConfigError(f"there is no concept file {path}; fix the path, or let stage 1 discover the concepts")
    try:
        state = read_checked(path)
    except UserError as error:
        raise ConfigError(f"{path} contains no concepts ({error}); let stage 1 discover them again") from error
    if {*state, "codes"} != {"schema", *_fields()}:
        raise ConfigError(f"{path} contains something other than concepts; name the file that stage 1 wrote")
    concepts = Concepts(**{name: value for name, value in state.items() if name != "schema"})
    missing = [split for split in splits if split not in concepts.tables]
    if missing:
        raise ConfigError(f"{path} has no concepts for the {', '.join(missing)} split; run stage 1 on this data set")
    for split in concepts.tables:
        _check(concepts, split, data, path)
    return concepts


def _fields() -> tuple[str, ...]:
    return tuple(field.name for field in fields(Concepts))


def _check(concepts: Concepts, split: str, data: Data, path: Path) -> None:
    """Raise ConfigError unless the rows of a split match `data`, in the same order."""
    if data.fingerprint(split) != concepts.fingerprints.get(split):
        raise ConfigError(
            f"{path} belongs to other samples: the samples of the {split} split, their order or their labels differ "
            f"from this data set's; run stage 1 on this data set"
        )
    if split == "train" and not torch.equal(concepts.samples[split], data.train_indices):
        raise ConfigError(
            f"{path} has concepts of {len(concepts.samples[split])} training samples, but this run trains on "
            f"{len(data.train_indices)}; use the dataset.subset and dataset.val_fraction of stage 1, or rerun stage 1"
        )
    for columns in (concepts.tables, concepts.area, concepts.margin):
        if columns[split].shape != (len(concepts.samples[split]), concepts.num_slots):
            raise ConfigError(f"{path} is damaged: columns of the {split} split differ in size; run stage 1 again")
