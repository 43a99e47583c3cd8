"""The run folder: created, locked against a second process, and asked whether its run is finished."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from robustlab.errors import ConfigError, RunFolderError


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write indented JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")


def read_results(folder: Path) -> dict[str, Any] | None:
    """Return `results.json` of a finished run, or None. Raises RunFolderError if the file is damaged."""
    path = folder / "results.json"
    if not path.exists():
        return None
    results = read_json(path, needed=("finished",), mend="delete it to let the run finish again")
    if not results["finished"]:
        return None
    return read_json(path, needed=SHOWN, mend="delete it to let the run finish again")


SHOWN = ("method", "dataset", "model", "seed", "epochs", "parameters", "seconds", "selection", "final")
"""What the summary shows of the results of any finished run."""


def read_json(path: Path, *, needed: Sequence[str], mend: str) -> dict[str, Any]:
    """Return the object in a JSON file. Raises RunFolderError, which ends in `mend`, without one or without a key."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read as JSON ({error}); {mend}") from error
    missing = [name for name in needed if name not in content] if isinstance(content, dict) else ["an object"]
    if missing:
        raise RunFolderError(f"{path} is damaged (it has no {', '.join(missing)}); {mend}")
    return content


def prepare_folder(folder: Path, *, resume: bool) -> None:
    """Create the folder and make sure that it can be written. With resume=False an existing run is moved aside.

    Raises ConfigError naming the folder and the setting that chooses it, RunFolderError if the run to move is going on.
    """
    hint = "choose another place with paths.output_dir=..."
    try:
        if not resume and folder.exists():
            number = 1
            while (aside := folder.with_name(f"{folder.name}.old{number}")).exists():
                number += 1
            with locked(folder):  # never from under a process that is writing to it
                folder.rename(aside)
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(f"the run folder {folder} cannot be written ({error.strerror}); {hint}") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the run folder's lock. Raises RunFolderError naming the holder if another process has it.

    The lock is the kernel's (flock), so that a process that dies, however it dies, leaves none behind.
    """
    path = folder / ".lock"
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "an unknown process"
            raise RunFolderError(f"{folder} is in use by {holder}; wait for it, or stop it first") from error
        file.truncate(0)
        job = os.environ.get("SLURM_JOB_ID")
        file.write(f"process {os.getpid()} on {socket.gethostname()}" + (f", SLURM job {job}" if job else ""))
        file.flush()
        try:
            yield
        except ConfigError:
            if {entry.name for entry in folder.iterdir()} == {path.name}:  # a command that cannot work leaves no trace
                path.unlink()
                folder.rmdir()
                with contextlib.suppress(OSError):  # other seeds may lie beside it
                    folder.parent.rmdir()
            raise
