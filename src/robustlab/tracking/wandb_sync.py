"""Replaying local runs to W&B afterwards: from clusters without network, after outages, or for runs without a tracker.

`metrics.jsonl` and `timing.jsonl` are replayed as the feed of a running run sends them (`wandb_feed`), into the run
whose id lies in `wandb/run_id`. What the server has is not sent again, so that syncing twice changes nothing, and a
run that is still going on (offline) gets what it has so far. Pictures are not replayed; they lie in the run folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from robustlab.config.layouts import in_todays_words
from robustlab.config.occupant import read_occupant
from robustlab.core.console import counted
from robustlab.core.errors import EXIT_PREEMPTED, ConfigError, UnavailableError, UserError
from robustlab.tracking import wandb_feed
from robustlab.tracking.finished_run import read_results
from robustlab.tracking.trackers import METRICS_FILE, selection_summary
from robustlab.tracking.wandb import feed_settings, run_id_of
from robustlab.tracking.wandb_delivery import Delivery
from robustlab.tracking.wandb_login import base_url, has_key, unreachable
from robustlab.tracking.wandb_run import init, teardown
from robustlab.tracking.wandb_sent import Sent

SECONDS = 60.0
"""How long one run waits for the server to take its rows."""


def run_folders(root: Path) -> list[Path]:
    """Return the run folders at or below `root`, sorted; ConfigError if there are none."""
    found = sorted(path.parent for path in root.rglob(METRICS_FILE) if (path.parent / "config.yaml").is_file())
    if not found:
        raise ConfigError(f"{root} holds no run with metrics; give a folder of runs, e.g. outputs/")
    return found


def check_server() -> None:
    """Raise ConfigError without a key, UnavailableError where the server does not answer."""
    if not has_key():
        raise ConfigError(f"no API key for {base_url()} is configured; run `wandb login` or set WANDB_API_KEY")
    if reason := unreachable(base_url(), 10.0):
        raise UnavailableError(f"{reason}; sync from a machine with network, e.g. the login node")


def sync(folder: Path) -> str:
    """Send what W&B lacks of the run in `folder`; return what was done, as a sentence.

    Raises UserError for a damaged folder, UnavailableError where the server does not take the run.
    """
    url, results = base_url(), read_results(folder)
    if results is not None and Sent(folder / "wandb", url=url).is_complete():
        return "complete before, nothing to send"
    with _turn(folder) as mine:
        if not mine:
            return "left alone: its own process is sending it now"
        try:
            run = init(_settings(folder, results), "online")
            delivery = Delivery(run, folder)
            if results is not None:
                run.summary.update(selection_summary(results))
            rows = delivery.finish(EXIT_PREEMPTED if results is None else 0)
        except Exception as error:  # any error of W&B concerns only this run; continue with the next one
            teardown()
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UnavailableError(f"{url} did not take the run: {reason[0]}; sync again later") from error
    state = "now complete" if results is not None else "so far; the run is not finished, sync again later"
    return f"{counted(rows, 'step')} sent, {state}: {run.url or run.id}"


def sync_all(root: Path) -> Iterator[tuple[Path, str, UserError | None]]:
    """Sync every run at or below `root`; yield its folder, what was done, and the error where there was one."""
    folders = run_folders(root)
    check_server()
    for folder in folders:
        try:
            yield folder, sync(folder), None
        except UserError as error:
            yield folder, f"failed: {error}", error


def _settings(folder: Path, results: dict[str, Any] | None) -> dict[str, Any]:
    """Return what the feed of this run would be told."""
    stored = OmegaConf.to_container(OmegaConf.load(folder / "config.yaml"))
    assert isinstance(stored, dict)
    config = in_todays_words({str(key): value for key, value in stored.items()})
    occupant = read_occupant(folder)
    past = {} if occupant is None else occupant.past
    name = f"{folder.parent.name}-{folder.name}"
    settings = feed_settings(
        config.get("tracker", {}).get("wandb") or {},
        run_dir=folder,
        run_name=name,
        config=config | past,
        tags=config.get("tags") or [],
        group=results.get("group") if results is not None else None,
    )
    try:
        run_id = run_id_of(folder / "wandb", name)
    except OSError as error:
        raise UnavailableError(f"{folder / 'wandb'} cannot be written ({error.strerror})") from error
    return {**settings, "run_id": run_id, "finish_timeout": SECONDS, "init_timeout": SECONDS}


@contextlib.contextmanager
def _turn(folder: Path) -> Iterator[bool]:
    """Give whether this process may send the run: no other sync does, and its own feed is offline, if it is there."""
    path = folder / "wandb" / wandb_feed.LOCK_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+b") as lock, open(path.with_name("sync.lock"), "wb") as other:
        mine = _try_lock(other)
        if mine and not _try_lock(lock):
            mine = os.pread(lock.fileno(), 16, 0) == wandb_feed.OFFLINE
        yield mine


def _try_lock(file: Any) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True
