"""Describe a run in its folder: settings, command line, versions, hardware, and the labels it trains on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from robustlab.config.occupant import IDENTITY_KEY
from robustlab.core.console import warn
from robustlab.core.files import write_json, write_text
from robustlab.data.run_data import Data
from robustlab.data.storage import manifest
from robustlab.engine.provenance import reproducibility_record
from robustlab.tracking.finished_run import read_json


def describe(
    folder: Path,
    *,
    config: Mapping[str, Any],
    overrides: Sequence[str],
    data: Data,
    identity: Mapping[str, Any],
    warnings: Sequence[str],
) -> None:
    """Write config.yaml, overrides.yaml, task.json, record.json, labels.npz and, for data in files, files.tsv.gz.

    - config: the configuration as returned by `plain`.
    - identity: as returned by `run_identity`.
    - warnings: warnings of this start, for the record.

    Raises RunFolderError, and DataError if a resumed run would train on other files or labels than before.
    """
    write_text(folder / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))
    write_text(folder / "overrides.yaml", OmegaConf.to_yaml(OmegaConf.create(list(overrides))))
    write_json(folder / "task.json", asdict(data.task))  # needed to rebuild the network
    record = folder / "record.json"  # one entry per start: a requeued job may run on another machine or commit
    fix = "delete it to continue without the record of earlier starts"
    starts = read_json(record, needed=("starts",), fix=fix)["starts"] if record.exists() else []
    this = reproducibility_record(config=config, overrides=overrides) | {"warnings": list(warnings)}
    write_json(record, {IDENTITY_KEY: dict(identity), "starts": [*starts, this]})
    files, found = folder / "files.tsv.gz", data.manifest()
    if found and files.exists():
        manifest.check_same(files, found)
    elif found:
        manifest.write(files, found)
    if data.skipped:
        write_json(folder / "skipped_images.json", data.skipped)
        for split, skipped in data.skipped.items():
            warn(f"skipping {len(skipped)} damaged {split} image(s), listed in {folder / 'skipped_images.json'}")
    labels = folder / "labels.npz"
    if labels.exists():
        data.check_saved_labels(labels)
    else:
        data.save_labels(labels)
