"""The process that feeds W&B: `python -m robustlab.tracking.wandb_feed`, started by `robustlab.tracking.wandb`.

It reads messages (JSON lines) on standard input and rows from `metrics.jsonl` and `timing.jsonl` in the run folder,
and answers on standard output with {"say": ...} or {"warn": ...}.

One W&B history row per step: all local rows of a step are merged, and sent once a later step shows that they are
complete. The server says with which step its history of a resumed run ends; earlier rows are not sent again, missing
ones are. So neither kills nor outages double a step or leave a gap. For servers that do not say it, the last step sent
is kept in `wandb/sent.json`. Offline nothing is known of a server, and every segment holds the whole run: uploading
the newest is enough.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from robustlab.errors import EXIT_PREEMPTED
from robustlab.tracking.wandb import later
from robustlab.tracking.wandb_login import base_url, has_key, unreachable
from robustlab.tracking.wandb_rows import Merger, Sent

POLL_SECONDS = 1.0
LOCK_FILE = "feed.lock"
OFFLINE = b"offline"
"""What the lock file of a feed says that sends nothing to a server, so that somebody else may."""
Notify = Callable[[Mapping[str, str]], None]


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


def start_run(settings: Mapping[str, Any], notify: Notify) -> Any:
    """Start or resume the run, online if that works, else offline, and say where it went."""
    mode, why = settings["mode"], ""
    if mode in ("auto", "online"):
        if not has_key():
            mode, why = "offline", "no API key is configured"
        elif reason := unreachable(base_url(), settings["init_timeout"]):
            mode, why = "offline", reason
        else:
            mode = "online"
    run = None
    if mode == "online":
        try:
            run = init(settings, "online")
        except Exception as error:  # whatever goes wrong with the server, the run is still worth recording
            reason = str(error).strip().splitlines() or [type(error).__name__]
            mode, why = "offline", f"{base_url()} did not start the run: {reason[0]}"
            teardown()
    if run is not None:
        notify({"say": f"W&B: {run.url}" if run.url else f"W&B: run {settings['run_id']} at {base_url()}"})
    else:
        run = init(settings, "offline")
        segment = _segment(run)
        _drop_older_segments(segment, settings["run_id"])
        asked = mode == settings["mode"] or (settings["mode"] == "auto" and not has_key())
        reason = f" ({why})" if why else ""
        notify({"say" if asked else "warn": f"W&B is offline{reason}; upload the run with: wandb sync {segment}"})
    return run


def teardown() -> None:
    """End W&B's own process, which still holds the run that it could not start; a new one takes it up offline."""
    import wandb

    with contextlib.suppress(Exception):  # it is being thrown away
        wandb.teardown(exit_code=1)


def init(settings: Mapping[str, Any], mode: str) -> Any:
    """Call `wandb.init` so that it neither prompts, prints, nor captures output."""
    import wandb

    wanted = {
        "silent": True,
        "console": "off",
        "disable_git": True,
        "init_timeout": settings["init_timeout"],
        "finish_timeout": settings["finish_timeout"],
        "finish_timeout_raises": True,
        "x_stats_pid": settings["pid"],
    }
    known = {name: value for name, value in wanted.items() if name in wandb.Settings.model_fields}
    run = wandb.init(
        mode="online" if mode == "online" else "offline",
        project=settings["project"],
        entity=settings["entity"],
        group=settings["group"],
        tags=settings["tags"] or None,
        name=settings["name"],
        id=settings["run_id"],
        resume="allow" if mode == "online" else None,
        config=dict(settings["config"]),
        dir=settings["run_dir"],
        settings=wandb.Settings(**known),
    )
    run.define_metric("step")
    run.define_metric("*", step_metric="step")
    return run


def feed(run: Any, settings: Mapping[str, Any], inbox: Inbox) -> None:
    """Send rows until the training process is done or dead."""
    import wandb

    folder = Path(settings["run_dir"])
    sent = None if run.offline else Sent(folder / "wandb", url=base_url())
    merger = Merger(folder, first=first_step(run, sent))
    following = False
    while True:
        message = inbox.receive(POLL_SECONDS if following else None)
        while message is not None:
            if "finish" in message:
                finish(run, merger if following else None, sent, message["finish"])
                return
            following = following or "follow" in message
            if "summary" in message:
                run.summary.update(message["summary"])
            if "image" in message:
                image = message["image"]
                merger.add(image["step"], {image["name"]: wandb.Image(image["path"])})
            message = inbox.receive(0)
        if following:
            send(run, merger.ready(), sent)


def first_step(run: Any, sent: Sent | None) -> int:
    """Return the first step that the server does not have: what it says, or what was remembered where it says nothing.

    sent: None offline.
    """
    return sent.next_step() if sent is not None and not run.resumed else run.starting_step


def send(run: Any, rows: Iterator[tuple[int, dict[str, Any]]], sent: Sent | None) -> int:
    """Send rows and remember the last one; return how many there were."""
    count, last = 0, None
    for step, row in rows:
        run.log({**row, "step": step}, step=step, commit=True)
        count, last = count + 1, step
    if sent is not None and last is not None:
        sent.remember(last)
    return count


def finish(run: Any, merger: Merger | None, sent: Sent | None, exit_code: int | None) -> int:
    """Send the rest and end the run; with None, the training process was killed, and will go on from a checkpoint.

    The last step of a run that will be resumed may be incomplete: it stays back and is sent after the resume. Returns
    how many rows were sent. Raises TimeoutError where the server does not take them in time.
    """
    count = 0
    if merger is not None and exit_code is not None:
        count = send(run, merger.ready(everything=exit_code != EXIT_PREEMPTED), sent)
    if exit_code == EXIT_PREEMPTED:
        run.mark_preempting()
    run.finish(exit_code=255 if exit_code is None else exit_code)
    if sent is not None and exit_code == 0:
        sent.remember_complete()
    return count


def _segment(run: Any) -> Path:
    """The folder that W&B writes this run, or this part of it, to."""
    return Path(run.settings.sync_dir)


def _drop_older_segments(segment: Path, run_id: str) -> None:
    """Remove what earlier parts of the run wrote offline: the newest segment is filled with the whole run."""
    for folder in segment.parent.glob(f"offline-run-*-{run_id}"):
        if folder != segment:
            shutil.rmtree(folder, ignore_errors=True)


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
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):  # SLURM signals every process
        signal.signal(number, signal.SIG_IGN)
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
    started = time.monotonic()
    lock = wait_for_turn(Path(first["start"]["run_dir"]) / "wandb" / LOCK_FILE, inbox)
    if inbox.abandoned():
        return 0
    run = start_run(first["start"], notify)
    os.truncate(lock, 0)
    os.pwrite(lock, OFFLINE if run.offline else b"online", 0)
    print(f"started after {time.monotonic() - started:.1f} s: {_segment(run)}", file=sys.stderr, flush=True)
    try:
        feed(run, first["start"], inbox)
    except TimeoutError:
        hint = later(Path(first["start"]["run_dir"]))
        notify({"warn": f"W&B has not taken everything ({base_url()} is slow or gone); {hint}"})
    sys.stderr.flush()
    os.close(lock)
    os._exit(0)  # everything is sent or on the disk; W&B's exit hook may wait long for a server that hangs


if __name__ == "__main__":
    sys.exit(main())
