"""The process that feeds W&B: `python -m robustlab.tracking.wandb_feed`, started by `robustlab.tracking.wandb`.

It reads messages (JSON lines) on standard input and rows from `metrics.jsonl` and `timing.jsonl` in the run folder,
and answers on standard output with {"say": ...} or {"warn": ...}.

One W&B history row per step: all local rows of a step are merged, and sent once a later step shows that they are
complete. The server says with which step its history of a resumed run ends; earlier rows are not sent again, missing
ones are. So neither kills nor outages double a step or leave a gap. For servers that do not say it, it is kept here
(`wandb_sent`). Offline nothing is known of a server, and every segment holds the whole run: uploading
the newest is enough.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import sys
import time
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robustlab.core.stop_signals import hold_back
from robustlab.tracking.wandb import later
from robustlab.tracking.wandb_delivery import Delivery, Wishes
from robustlab.tracking.wandb_login import base_url
from robustlab.tracking.wandb_run import Notify, segment_of, start_run, teardown

POLL_SECONDS = 1.0
LOCK_FILE = "feed.lock"
OFFLINE = b"offline"
"""What the lock file of a feed says that sends nothing to a server, so that somebody else may."""
RESTARTS = 3
"""How often W&B's own process may die in one start of a run."""


class Inbox:
    """Messages from the training process; at its death, {"finish": None}."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor
        self._buffer = b""

    def abandoned(self) -> bool:
        """Whether the training process is dead and has left no message."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return any(event & select.POLLHUP and not event & select.POLLIN for _, event in poll.poll(0))

    def receive(self, timeout: float | None) -> dict[str, Any] | None:
        """Return the next message, or None if there is none within `timeout` seconds (None: wait)."""
        while b"\n" not in self._buffer:
            if not select.select([self._descriptor], [], [], timeout)[0]:
                return None
            chunk = os.read(self._descriptor, 65536)
            if not chunk:
                return {"finish": None}
            self._buffer += chunk
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)


def receive(inbox: Inbox, wishes: Wishes) -> None:
    """Take all messages that are there; wait for one, in vain for `POLL_SECONDS` where rows are to be sent."""
    timeout = POLL_SECONDS if wishes.following else None
    while not wishes.ending and (message := inbox.receive(timeout)) is not None:
        wishes.take(message)
        timeout = 0


def feed(settings: Mapping[str, Any], inbox: Inbox, notify: Notify, lock: int) -> None:
    """Send rows until the training process is done or dead.

    W&B's own process dies of the signals of SLURM, which go to every process of a job (wandb/wandb#9963): a new one
    goes on. Raises TimeoutError where the server does not take everything in time.
    """
    wishes, deaths = Wishes(), 0
    delivery = begin(settings, notify, lock)
    while True:
        receive(inbox, wishes)
        try:
            delivery.fulfil(wishes)
        except TimeoutError:
            raise
        except Exception:
            if deaths == RESTARTS:
                raise
            deaths += 1
            traceback.print_exc()
            teardown()
            delivery = begin(settings, lambda said: notify(said) if "warn" in said else None, lock)
            wishes.images = [image for image in wishes.images if image["step"] >= delivery.first]
        else:
            if wishes.ending:
                return


def begin(settings: Mapping[str, Any], notify: Notify, lock: int) -> Delivery:
    """Start the run at W&B, or go on with it, and write into the lock whether that is online."""
    started = time.monotonic()
    run = start_run(settings, notify)
    os.truncate(lock, 0)
    os.pwrite(lock, OFFLINE if run.offline else b"online", 0)
    print(f"started after {time.monotonic() - started:.1f} s: {segment_of(run)}", file=sys.stderr, flush=True)
    return Delivery(run, Path(settings["run_dir"]))


def wait_for_turn(path: Path, inbox: Inbox, *, seconds: float = 60.0) -> int:
    """Wait until the feed of the same run before it was killed has ended; return the lock, held or not."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and not inbox.abandoned():
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            time.sleep(0.1)
        except OSError:  # a file system without locks
            break
    return lock


def main() -> int:
    """Feed one run; the exit code matters to nobody."""
    hold_back()  # SLURM signals every process
    # W&B's own process inherits descriptors 0 to 2; the pipes must end with this process.
    inbox, answers = Inbox(os.dup(0)), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)

    def notify(message: Mapping[str, str]) -> None:
        with contextlib.suppress(BrokenPipeError):  # the training process was killed: nobody is left to tell
            os.write(answers, json.dumps(message).encode() + b"\n")

    first = inbox.receive(None) or {}
    if "start" not in first:
        return 0
    lock = wait_for_turn(Path(first["start"]["run_dir"]) / "wandb" / LOCK_FILE, inbox)
    if inbox.abandoned():
        return 0
    try:
        feed(first["start"], inbox, notify, lock)
    except TimeoutError:
        hint = later(Path(first["start"]["run_dir"]))
        notify({"warn": f"W&B has not taken everything ({base_url()} is slow or gone); {hint}"})
    sys.stderr.flush()
    os.close(lock)
    os._exit(0)  # everything is sent or on the disk; W&B's exit hook may wait long for a server that hangs


if __name__ == "__main__":
    sys.exit(main())
