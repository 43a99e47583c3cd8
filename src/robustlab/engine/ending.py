"""Record in `exit.json` how a run's last start ended, for later commands to read. Does not import torch."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from robustlab.core.console import warn
from robustlab.core.errors import EXIT_PREEMPTED, RunFolderError, UserError
from robustlab.core.files import write_json
from robustlab.core.timestamps import timestamp
from robustlab.core.world import World
from robustlab.engine.lock import ENDING_FILE, Holder, last_holder


@dataclass(frozen=True)
class Ending:
    """How a run's last start ended.

    - process: description of the process that held the folder's lock.
    - error: class of the exception, or name of the signal.
    - traceback: present if the error was a bug.
    """

    process: str
    exit_code: int
    error: str
    message: str
    ended_at: str
    traceback: str | None = None


def read_ending(folder: Path) -> Ending | None:
    """Return how the last process that held a folder's lock ended; None if it was killed or is still running."""
    try:
        return Ending(**json.loads((folder / ENDING_FILE).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


@contextlib.contextmanager
def errors_recorded(folder: Path) -> Iterator[None]:
    """Record an error that ends the run in `folder`, and re-raise it."""
    try:
        yield
    except KeyboardInterrupt:
        record_ending(folder, EXIT_PREEMPTED, "KeyboardInterrupt", "interrupted")
        raise
    except UserError as error:
        record_ending(folder, error.exit_code, type(error).__name__, str(error))
        raise
    except Exception as error:
        said = f"{type(error).__name__}: {error}"
        record_ending(folder, 1, type(error).__name__, said, trace=traceback.format_exc())
        raise


def record_ending(folder: Path, exit_code: int, error: str, message: str, *, trace: str | None = None) -> None:
    """Write `exit.json`, if this process was the last to hold the folder's lock and is rank 0 of its run."""
    me = str(Holder.this_process())
    if last_holder(folder) != me or not World.from_environment().is_main:
        return
    ending = Ending(me, exit_code, error, message, timestamp(), trace)
    try:
        write_json(folder / ENDING_FILE, asdict(ending))
    except RunFolderError as failed:  # the error at hand matters more
        warn(str(failed))
