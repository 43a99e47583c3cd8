"""`Trackers`: the single object that a run logs to; always JSON lines, W&B and TensorBoard if enabled."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustlab.core.figure_style import save
from robustlab.core.files import write_text
from robustlab.tracking.jsonl import JsonlWriter

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from robustlab.tracking.tensorboard import TensorBoard
    from robustlab.tracking.wandb import WandbFeed

METRICS_FILE = "metrics.jsonl"
"""Deterministic values only: equal runs give equal files."""
TIMING_FILE = "timing.jsonl"
"""Values that no two runs share: names that start with "time/"."""


class Trackers:
    """Sends metrics to every tracker of a run. `metrics.jsonl` and `timing.jsonl` are the truth, the rest follows.

    On ranks other than 0, and built with no arguments, it does nothing.
    """

    def __init__(
        self, run_dir: Path | None = None, *, wandb: WandbFeed | None = None, tensorboard: TensorBoard | None = None
    ):
        self._run_dir = run_dir
        self._metrics = JsonlWriter(run_dir / METRICS_FILE) if run_dir else None
        self._timing = JsonlWriter(run_dir / TIMING_FILE) if run_dir else None
        self._wandb = wandb
        self._tensorboard = tensorboard
        self._step = 0
        self._opened = False
        self._resumed = False

    @classmethod
    def from_config(
        cls,
        cfg: Mapping[str, Any],
        *,
        run_dir: Path,
        run_name: str,
        config: Mapping[str, Any],
        tags: Sequence[str] = (),
        group: str | None = None,
        resume_state: Mapping[str, Any] | None = None,
        is_main: bool = True,
    ) -> Trackers:
        """Build the trackers of a run.

        Args:
            cfg: the `tracker` node (its keys are described in conf/tracker/default.yaml).
            run_dir: the run folder; everything is written inside it.
            run_name: name of settings and seed, e.g. "crosssplit-digits-1a2b3c4d-seed0"; W&B shows it.
            config: the whole resolved configuration as plain types; W&B stores it.
            tags: W&B tags.
            group: W&B group, e.g. the name of the sweep; `cfg.wandb.group` comes first.
            resume_state: the result of `state_dict` in the checkpoint that the run resumes from; None starts new
                files. It may also be given later, through `load_state_dict`, before the first row.
            is_main: False on all ranks but 0: the trackers then do nothing.

        Raises:
            ConfigError: a tracker is switched on whose package is missing, or a setting is wrong.
        """
        if not is_main:
            return cls()
        from robustlab.tracking.tensorboard import TensorBoard
        from robustlab.tracking.wandb import WandbFeed

        trackers = cls(
            run_dir,
            tensorboard=TensorBoard.from_config(cfg.get("tensorboard"), run_dir=run_dir),
            wandb=WandbFeed.from_config(
                cfg.get("wandb"), run_dir=run_dir, run_name=run_name, config=config, tags=tags, group=group
            ),
        )
        if resume_state is not None:
            trackers.load_state_dict(resume_state)
        return trackers

    def log(self, values: Mapping[str, float], *, stage: str, epoch: int, step: int, split: str) -> None:
        """Log scalars: names that start with "time/" to `timing.jsonl`, all others to `metrics.jsonl`.

        `step` counts over the whole run (`Position.global_step`) and never goes down; several rows may share a step.

        Raises:
            RunFolderError: the files cannot be written.
        """
        if self._metrics is None or self._timing is None:
            return
        self._open()
        self._step = step
        head = {"stage": stage, "epoch": epoch, "step": step, "split": split}
        timing = {name: value for name, value in values.items() if name.startswith("time/")}
        metrics = {name: value for name, value in values.items() if name not in timing}
        if timing:  # before the metrics: who sees a metrics row can rely on the timing rows up to it
            self._timing.write({**head, **timing})
        if metrics:
            self._metrics.write({**head, **metrics})
        if self._tensorboard is not None:
            self._tensorboard.log(values, step=step)
        if self._wandb is not None:
            self._wandb.poll()

    def summary(self, values: Mapping[str, Any]) -> None:
        """Set the values that W&B shows as the run's summary; nested mappings become "outer/inner"."""
        if self._wandb is not None:
            self._wandb.summary(_flatten(values))

    def image(self, name: str, path: Path, *, step: int) -> None:
        """Show the picture in the file `path` (PNG or JPEG) under `name`."""
        if self._tensorboard is not None:
            self._tensorboard.image(name, path, step=step)
        if self._wandb is not None:
            self._wandb.image(name, path, step=step)

    def figure(self, name: str, figure: Figure, *, step: int) -> None:
        """Write a figure to figures/<name>.png in the run folder and show it."""
        if self._run_dir is not None:
            path = self._run_dir / "figures" / f"{name}.png"
            save(figure, path)
            self.image(name, path, step=step)

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """Write a table to tables/<name>.csv in the run folder."""
        if self._run_dir is not None:
            path = self._run_dir / "tables" / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([columns, *rows])
            write_text(path, text.getvalue())

    def sync(self) -> None:
        """Put all rows on the disk; to be called before a checkpoint that refers to them is published."""
        if self._metrics is None or self._timing is None:
            return
        self._open()
        self._metrics.sync()
        self._timing.sync()
        if self._tensorboard is not None:
            self._tensorboard.flush()

    def state_dict(self) -> dict[str, Any]:
        """Return the byte offsets of the files, the last step and the W&B run id: plain types."""
        if self._metrics is None or self._timing is None:
            return {}
        return {
            "offsets": {METRICS_FILE: self._metrics.offset, TIMING_FILE: self._timing.offset},
            "step": self._step,
            "wandb_id": self._wandb.run_id if self._wandb is not None else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a checkpoint: rows written after it are removed before the next one is written."""
        if self._metrics is None or self._timing is None or not state:
            return
        assert not self._opened, "the trackers' state must be loaded before the first row is logged"
        self._metrics.offset = state["offsets"][METRICS_FILE]
        self._timing.offset = state["offsets"][TIMING_FILE]
        self._step = state["step"]
        self._resumed = True
        if self._tensorboard is not None:
            self._tensorboard.resume_after(self._step)

    def finish(self, exit_code: int = 0) -> None:
        """Close everything. `exit_code` is what the process is about to exit with (85: will be resumed)."""
        if self._metrics is None or self._timing is None:
            return
        if self._resumed:  # even without a new row: W&B offline wants the whole run in its new segment
            self._open()
        self._metrics.close()
        self._timing.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish(exit_code)

    def _open(self) -> None:
        """Truncate the files to the run's current position; only then may W&B read them."""
        if self._opened or self._metrics is None or self._timing is None:
            return
        self._metrics.open()
        self._timing.open()
        self._opened = True
        if self._wandb is not None:
            self._wandb.follow()


def selection_summary(results: Mapping[str, Any]) -> dict[str, Any]:
    """Return what trackers show as the summary of a finished run, from its `results.json`: "<rule>/<metric>"."""
    return {f"{rule}/{name}": value for rule, row in results["selection"].items() for name, value in row.items()}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return a flat mapping with names joined by "/"."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat.update(_flatten(value, f"{prefix}{name}/"))
        else:
            flat[f"{prefix}{name}"] = value
    return flat
