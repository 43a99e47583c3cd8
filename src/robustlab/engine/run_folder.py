"""The run folder: created, kept within the output folder, and asked whether its run is finished."""

from __future__ import annotations

import os
from pathlib import Path

from robustlab.core.errors import ConfigError, RunFolderError
from robustlab.core.files import FULL, rename
from robustlab.engine.lock import locked


def set_results_aside(folder: Path, *, epochs: int) -> None:
    """Rename the results of a run that goes on for more epochs; with results.json it would count as finished."""
    results = folder / "results.json"
    if results.exists():
        rename(results, folder / f"results.{epochs}_epochs.json")


def prepare_folder(folder: Path, *, resume: bool, output_dir: Path) -> None:
    """Create the folder and make sure that it can be written. With resume=False an existing run is moved aside.

    Raises RunFolderError naming the folder and the setting that chooses it, or if the run to move is going on.
    """
    try:
        refuse_detour(folder, output_dir)
        if not resume and folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            number = 1
            while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
                number += 1
            with locked(folder):  # never from under a process that is writing to it
                folder.rename(aside)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        mend = "free space" if error.errno in FULL else "choose another place with paths.output_dir=..."
        raise RunFolderError(f"the run folder {folder} cannot be written ({error.strerror}); {mend}") from error


def refuse_detour(folder: Path, output_dir: Path) -> None:
    """Raise ConfigError where a link leads a folder out of `output_dir`; one that is named outside of it is meant."""
    if not folder.absolute().is_relative_to(output_dir.absolute()) or ".." in folder.parts:
        return
    real = folder.resolve()
    if not real.is_relative_to(output_dir.resolve()):
        raise ConfigError(
            f"the run folder {folder} leads over a link out of {output_dir}, to {real}; remove the link, or name that "
            f"place with paths.output_dir={real.parent} paths.run_dir={real}"
        )
