"""Create run folders, keep them inside the output folder, and read the results of finished runs."""

from __future__ import annotations

import os
from pathlib import Path

from robustlab.core.errors import ConfigError, RunFolderError
from robustlab.core.files import FULL, rename
from robustlab.engine.lock import locked


def set_results_aside(folder: Path, *, epochs: int) -> None:
    """Rename the results of a run that is extended; with results.json it would count as finished."""
    results = folder / "results.json"
    if results.exists():
        rename(results, folder / f"results.{epochs}_epochs.json")


def prepare_folder(folder: Path, *, resume: bool, output_dir: Path) -> None:
    """Create the folder and make sure that it is writable. With resume=False an existing run is moved aside.

    Raises RunFolderError that names the folder and the setting that chooses it, or if the run to move is still running.
    """
    try:
        refuse_detour(folder, output_dir)
        if not resume and folder.exists() and any(not entry.name.startswith(".") for entry in folder.iterdir()):
            number = 1
            while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
                number += 1
            with locked(folder):  # never move it away from a process that is writing to it
                folder.rename(aside)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}.tmp"
        probe.touch()
        probe.unlink()
    except OSError as error:
        fix = "free up disk space" if error.errno in FULL else "choose another place with paths.output_dir=..."
        raise RunFolderError(f"the run folder {folder} is not writable ({error.strerror}); {fix}") from error


def refuse_detour(folder: Path, output_dir: Path) -> None:
    """Raise ConfigError if a symbolic link leads a folder out of `output_dir`; an explicit path outside is allowed."""
    if not folder.absolute().is_relative_to(output_dir.absolute()) or ".." in folder.parts:
        return
    real = folder.resolve()
    if not real.is_relative_to(output_dir.resolve()):
        raise ConfigError(
            f"a symbolic link leads the run folder {folder} out of {output_dir}, to {real}; remove the link, or name "
            f"that place with paths.output_dir={real.parent} paths.run_dir={real}"
        )
