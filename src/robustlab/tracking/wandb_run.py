"""A run at W&B as the feed and the sync start it: online if that works, else offline; never prompting or printing."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robustlab.core.invocation import program_hint
from robustlab.tracking.wandb_login import base_url, has_key, unreachable

Notify = Callable[[Mapping[str, str]], None]


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
        segment = segment_of(run)
        _drop_older_segments(segment, settings["run_id"])
        asked = mode == settings["mode"] or (settings["mode"] == "auto" and not has_key())
        reason, upload = f" ({why})" if why else "", program_hint("wandb", "sync", str(segment))
        notify({"say" if asked else "warn": f"W&B is offline{reason}; upload the run with: {upload}"})
    return run


def teardown() -> None:
    """End W&B's own process, dead or still holding a run that it could not start; the next `init` begins another."""
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


def segment_of(run: Any) -> Path:
    """The folder that W&B writes this run, or this part of it, to."""
    return Path(run.settings.sync_dir)


def _drop_older_segments(segment: Path, run_id: str) -> None:
    """Remove what earlier parts of the run wrote offline: the newest segment is filled with the whole run."""
    for folder in segment.parent.glob(f"offline-run-*-{run_id}"):
        if folder != segment:
            shutil.rmtree(folder, ignore_errors=True)
