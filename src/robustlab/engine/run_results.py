"""Define the outcome of a run and the content of `results.json`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from robustlab.config.occupant import HISTORY
from robustlab.core.timestamps import timestamp
from robustlab.engine.identity import result_name
from robustlab.engine.session import Session


@dataclass(frozen=True)
class Outcome:
    """How a run ended; `results` is None if a signal stopped it."""

    results: dict[str, Any] | None
    folder: Path
    exit_code: int
    was_finished: bool = False


def results_of(
    session: Session, cfg: DictConfig, *, group: str | None, groups: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the content of `results.json`.

    - group: the sweep that the run is a point of.
    - groups: as returned by `group_record`, None without groups.
    """
    networks = session.method.learners.values()
    derived = list(session.data.derived_metrics(session.final))
    return {
        "finished": True,
        "run_name": result_name(session.identity),
        "name": cfg.name,
        "method": cfg.method.name,
        "method_label": cfg.method.get("label"),
        "dataset": cfg.dataset.name,
        "model": f"{cfg.model.name} (frozen)" if cfg.get("features") else cfg.model.name,
        "noise": session.data.noise_record(),
        "seed": cfg.seed,
        "epochs": _epochs(session),
        "steps": session.cursor.global_step,
        "parameters": sum(p.numel() for learner in networks for p in learner.network.parameters()),
        "seconds": round(session.cursor.seconds, 3),
        "selection": session.selection.results(),
        "final": session.final,
        "stage_ends": session.stage_ends,
        "remarks": list(session.method.remarks(session.final, session.stage_ends)),
        **({"derived": derived} if derived else {}),
        **({"skipped_images": session.data.skipped} if session.data.skipped else {}),
        "group": group,
        "tags": list(cfg.tags),
        "finished_at": timestamp(),
        **{key: session.identity[key] for key in HISTORY if key in session.identity},
        **({} if groups is None else {"groups": groups}),
    }


def _epochs(session: Session) -> int:
    """Return the number of epochs trained, even if trainer.max_steps ended the run."""
    cursor = session.cursor
    return sum(stage.epochs for stage in list(session.method.stages())[: cursor.stage]) + cursor.epoch
