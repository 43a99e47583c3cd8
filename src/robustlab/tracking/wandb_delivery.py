"""Deliver rows to a run at W&B: find the missing ones, send them, and end the run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from robustlab.core.errors import EXIT_PREEMPTED
from robustlab.tracking.wandb_login import base_url
from robustlab.tracking.wandb_rows import Merger
from robustlab.tracking.wandb_run import segment_of
from robustlab.tracking.wandb_sent import Sent


@dataclass
class Wishes:
    """The requests of the training process so far. `exit_code`: None if it was killed."""

    following: bool = False
    summary: dict[str, Any] = field(default_factory=dict)
    images: list[dict[str, Any]] = field(default_factory=list)
    ending: bool = False
    exit_code: int | None = None

    def take(self, message: Mapping[str, Any]) -> None:
        """Add the requests in a message."""
        if "finish" in message:
            self.ending, self.exit_code = True, message["finish"]
        self.following = self.following or "follow" in message
        self.summary |= message.get("summary", {})
        if "image" in message:
            self.images.append(message["image"])


class Delivery:
    """One segment: from a start of the run at W&B to its end there, or the death of W&B's own process.

    first: the first step that is sent. Offline it is 0: a segment on disk holds the whole run.
    """

    def __init__(self, run: Any, folder: Path) -> None:
        self.run = run
        self._sent = None if run.offline else Sent(folder / "wandb", url=base_url())
        self.first: int = run.starting_step if self._sent is None or run.resumed else self._sent.next_step()
        if self._sent is not None:
            self._sent.begin(segment_of(run), first=self.first)
        self._merger = Merger(folder, first=self.first)
        self._summary: dict[str, Any] = {}
        self._images = 0

    def fulfil(self, wishes: Wishes) -> None:
        """Send what the training process has requested, and all complete rows."""
        import wandb

        if wishes.summary != self._summary:
            self.run.summary.update(wishes.summary)
            self._summary = dict(wishes.summary)
        for image in wishes.images[self._images :]:
            self._merger.add(image["step"], {image["name"]: wandb.Image(image["path"])})
        self._images = len(wishes.images)
        if wishes.ending:
            self.finish(wishes.exit_code, following=wishes.following)
        elif wishes.following:
            self._send(self._merger.ready())

    def finish(self, exit_code: int | None, *, following: bool = True) -> int:
        """Send the rest and end the run; with None, the training process was killed, and will go on from a checkpoint.

        The last step of a run that will be resumed may be incomplete: it stays back and is sent after the resume. So
        do all rows while the files do not stand where the run goes on (not `following`). Returns how many rows were
        sent. Raises TimeoutError where the server does not take them in time.
        """
        count = 0
        if following and exit_code is not None:
            count = self._send(self._merger.ready(everything=exit_code != EXIT_PREEMPTED))
        if exit_code == EXIT_PREEMPTED:
            self.run.mark_preempting()
        self.run.finish(exit_code=255 if exit_code is None else exit_code)
        if self._sent is not None:
            self._sent.end(complete=exit_code == 0)
        return count

    def _send(self, rows: Iterable[tuple[int, dict[str, Any]]]) -> int:
        rows = list(rows)
        if self._sent is not None and rows:
            self._sent.remember([step for step, _ in rows])
        for step, row in rows:
            self.run.log({**row, "step": step}, step=step, commit=True)
        return len(rows)
