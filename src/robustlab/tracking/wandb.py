"""Weights & Biases, fed by a separate process that reads `metrics.jsonl` and `timing.jsonl` as they grow.

W&B never delays training: importing it, waiting for a server and retrying uploads all happen in the other process
(`robustlab.tracking.wandb_feed`), which can hang or die with no other effect on the run than one warning. Rows reach
W&B from the files, so after a kill the feed continues exactly where the server's history ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import robustlab
from robustlab.core.console import say, warn
from robustlab.core.errors import EXIT_PREEMPTED, ConfigError
from robustlab.core.invocation import hint
from robustlab.tracking.wandb_login import saved_setting

MODES = ("auto", "online", "offline", "disabled")
FINISH_SECONDS = 20.0
"""How long a run waits at its end for the upload of its last rows."""
PREEMPTED_SECONDS = 2.0
"""The same for a run stopped by a signal: unsent rows are sent when it resumes."""
ID_FILE = "run_id"


class WandbFeed:
    """The training process's side of the feed. No method blocks, except `finish` (for a bounded time)."""

    def __init__(self, settings: Mapping[str, Any], *, run_dir: Path, run_id: str):
        self.run_id = run_id
        self._folder = run_dir / "wandb"
        self._unsent = b""
        self._received = b""
        self._closed = False
        self._finishing = False
        self._warned = False
        package = str(Path(robustlab.__file__).parent.parent)
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")])),
        }
        if not environment.get("WANDB_MODE"):  # wandb refuses an empty one, which elsewhere means that it is not set
            environment.pop("WANDB_MODE", None)
        if "WANDB_SWEEP_ID" in environment:  # in a sweep `wandb.init` only uses the environment
            environment["WANDB_RUN_ID"] = run_id
        with open(self._folder / "feed.log", "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "robustlab.tracking.wandb_feed"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0,
                env=environment,
                start_new_session=True,  # signals for the run's process group are the run's business
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        os.set_blocking(self._process.stdout.fileno(), False)
        self._send({"start": dict(settings)})

    @classmethod
    def from_config(
        cls,
        cfg: Mapping[str, Any] | None,
        *,
        run_dir: Path,
        run_name: str,
        config: Mapping[str, Any],
        tags: Sequence[str] = (),
        group: str | None = None,
    ) -> WandbFeed | None:
        """Start the feed that the node `tracker.wandb` asks for; None if it is disabled or has no folder to write to.

        Raises ConfigError if the mode is unknown.
        """
        cfg = cfg or {}
        mode = str(cfg.get("mode") or "auto")
        if mode not in MODES:
            raise ConfigError(f"tracker.wandb.mode={mode} is not known; choose one of {', '.join(MODES)}")
        if mode == "auto":
            wanted = os.environ.get("WANDB_MODE", "").lower()
            mode = {"dryrun": "offline"}.get(wanted, wanted) if wanted in (*MODES, "dryrun") else "auto"
        if mode == "disabled":
            return None
        try:
            run_id = run_id_of(run_dir / "wandb", run_name)
        except OSError as error:  # wandb itself would write to a temporary folder instead and lose the run there
            warn(f"W&B is off: {run_dir / 'wandb'} cannot be written ({error.strerror}); local metrics are complete")
            return None
        settings = feed_settings(cfg, run_dir=run_dir, run_name=run_name, config=config, tags=tags, group=group)
        return cls({**settings, "mode": mode, "run_id": run_id}, run_dir=run_dir, run_id=run_id)

    def follow(self) -> None:
        """Tell the feed that the files have been truncated to the run's position: from now on they only grow."""
        self._send({"follow": True})

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set summary values."""
        self._send({"summary": dict(values)})

    def image(self, name: str, path: Path, *, step: int) -> None:
        """Show the picture in a file."""
        self._send({"image": {"name": name, "path": str(path), "step": step}})

    def poll(self) -> None:
        """Print messages of the feed; costs a microsecond or two."""
        if self._unsent:
            self._send(None)
        if self._closed or self._process.stdout is None:
            return
        chunk = self._process.stdout.read(65536)
        if chunk is None:
            return
        if chunk == b"":
            self._close()
        self._received += chunk
        *lines, self._received = self._received.split(b"\n")
        for line in lines:
            for kind, text in json.loads(line).items():
                {"say": say, "warn": warn}[kind](text)

    def finish(self, exit_code: int = 0) -> None:
        """Wait a bounded time for the last rows to be sent, then end the feed."""
        limit = PREEMPTED_SECONDS if exit_code == EXIT_PREEMPTED else FINISH_SECONDS
        deadline = time.monotonic() + limit
        self._finishing = True
        self._send({"finish": exit_code})
        while time.monotonic() < deadline and self._process.poll() is None:
            self.poll()
            time.sleep(0.02)
        if self._process.poll() is None:
            self._process.kill()
            if exit_code != EXIT_PREEMPTED:
                warn(f"W&B has not taken everything within {limit:.0f} s; {later(self._folder.parent)}")
        else:
            self.poll()
            if self._process.returncode != 0:
                self._warn_stopped()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _send(self, message: Mapping[str, Any] | None) -> None:
        """Send a message as far as the pipe takes it; the rest goes with the next one or the next `poll`."""
        if self._closed or self._process.stdin is None:
            return
        if message is not None:
            self._unsent += json.dumps(message, default=str).encode() + b"\n"
        try:
            written = os.write(self._process.stdin.fileno(), self._unsent)
        except BlockingIOError:
            return
        except OSError:
            self._close()
            return
        self._unsent = self._unsent[written:]

    def _close(self) -> None:
        """Note that the feed has closed its end: expected at the end of a run, else it has died."""
        self._closed = True
        if not self._finishing:
            self._warn_stopped()

    def _warn_stopped(self) -> None:
        if not self._warned:
            log = self._folder / "feed.log"
            rest = later(self._folder.parent)
            warn(f"W&B logging has stopped (see {log}); local metrics are complete, training goes on; {rest}")
        self._warned = True


def later(run_dir: Path) -> str:
    """Return the command that sends the missing rows of a run to W&B."""
    return f"send the rest with: {hint('sync', str(run_dir))}"


def feed_settings(
    cfg: Mapping[str, Any],
    *,
    run_dir: Path,
    run_name: str,
    config: Mapping[str, Any],
    tags: Sequence[str] = (),
    group: str | None = None,
) -> dict[str, Any]:
    """Return what `wandb.init` is told of a run, as plain types, all but its mode and id; see `from_config`.

    Where the configuration leaves a key at its default, W&B's environment variable for it counts.
    """
    from_environment = [text.strip() for text in os.environ.get("WANDB_TAGS", "").split(",") if text.strip()]
    return {
        "run_dir": str(run_dir),
        "name": run_name,
        "project": cfg.get("project") or os.environ.get("WANDB_PROJECT") or saved_setting("project") or "robustlab",
        "entity": cfg.get("entity") or os.environ.get("WANDB_ENTITY") or saved_setting("entity"),
        "group": cfg.get("group") or os.environ.get("WANDB_RUN_GROUP") or group,
        "tags": list(dict.fromkeys([*tags, *(cfg.get("tags") or from_environment)])),
        "config": dict(config),
        "init_timeout": float(cfg.get("init_timeout") or 5.0),
        "finish_timeout": FINISH_SECONDS - 5.0,
        "pid": os.getpid(),
    }


def run_id_of(folder: Path, run_name: str) -> str:
    """Return the W&B id of the run whose W&B folder is `folder`: made once from its name and kept in a file.

    The random part keeps a run that is repeated elsewhere (or from scratch) from being mistaken for the first one,
    whose steps the server has already seen. A trial of a W&B sweep uses the sweep's id for it.

    Raises OSError if the folder is not writable.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ID_FILE
    if path.exists() and (known := path.read_text(encoding="utf-8").strip()):
        probe = folder / f".probe.{os.getpid()}"
        probe.touch()
        probe.unlink()
        return known
    run_id = f"{re.sub(r'[^A-Za-z0-9_-]+', '-', run_name)[:100]}-{secrets.token_hex(3)}"
    if "WANDB_SWEEP_ID" in os.environ:  # taken out: the baseline that may follow in this process is another run
        run_id = os.environ.pop("WANDB_RUN_ID", run_id)
    path.write_text(run_id + "\n", encoding="utf-8")
    return run_id
