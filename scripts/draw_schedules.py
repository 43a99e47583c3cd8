"""Draw every schedule of conf/scheduler over a run, for docs/schedules.md: `python scripts/draw_schedules.py`.

The rates are those that a run has: the configured scheduler advances as in training, on an optimizer of one number.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from robustlab.config.build import build
from robustlab.config.compose import compose
from robustlab.engine.lr_schedule import arguments, rates

UPDATES = 23
"""Updates of an epoch: 1,437 training images in batches of 64, as in a run on digits."""
PANELS = {
    "cosine": (60, ("epoch", "step")),
    "onecycle": (60, ("epoch", "step")),
    "timm_cosine": (60, ("epoch", "step")),
    "multistep": (60, ("epoch",)),
    "timm_multistep": (100, ("epoch",)),
    "none": (60, ("epoch",)),
}
"""Epochs of the run, and the intervals of which the shipped values make sense."""
STYLES = {
    "epoch": {"color": "#4c72b0", "linewidth": 2.2, "label": "scheduler.interval=epoch"},
    "step": {"color": "#dd8452", "linewidth": 1.4, "linestyle": "--", "label": "scheduler.interval=step"},
}


def curve(name: str, interval: str, epochs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return float64 [n] each: epochs that have passed, and the learning rate of the update that comes then."""
    cfg = compose([f"scheduler={name}", f"scheduler.interval={interval}", f"trainer.epochs={epochs}", "optimizer.lr=1"])
    updates = [UPDATES] * epochs
    schedule = OmegaConf.to_container(cfg.scheduler.schedule, resolve=True) if cfg.scheduler.schedule else None
    if schedule is None:
        return np.array([0.0, epochs]), np.ones(2)
    assert isinstance(schedule, dict)
    scheduler = build(arguments(schedule, interval=interval, updates=updates))  # type: ignore[arg-type]
    found = np.array(rates(build(cfg.optimizer), scheduler, interval=interval, updates=updates)[:-1])
    if interval == "step":
        return np.arange(len(found)) / UPDATES, found
    return np.repeat(np.arange(epochs + 1), 2)[1:-1].astype(float), np.repeat(found, 2)


def main(argv: Sequence[str] | None = None) -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/figures/schedules.png"), help="default: %(default)s")
    out = parser.parse_args(argv).out
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(2, 3, figsize=(9.6, 5.0), sharey=True, layout="constrained")
    for axis, (name, (epochs, intervals)) in zip(axes.flat, PANELS.items(), strict=True):
        for interval in intervals:
            axis.plot(*curve(name, interval, epochs), **STYLES[interval])
        axis.set_title(f"scheduler={name}", fontsize=10)
        axis.set(xlim=(0, epochs), ylim=(0, 1.06))
        axis.set_xticks(range(0, epochs + 1, 20))
        axis.grid(alpha=0.25)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[1]:
        axis.set_xlabel("epoch")
    for axis in axes[:, 0]:
        axis.set_ylabel("learning rate / optimizer.lr")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110)
    print(out)


if __name__ == "__main__":
    main()
