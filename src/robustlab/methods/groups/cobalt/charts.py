"""Draw charts of concepts: how they co-occur with labels, and how balancing changes the sampling of images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from robustlab.methods.groups.cobalt.canvas import NEUTRAL, STRONG, TITLE, colour, new_figure, save
from robustlab.methods.groups.cobalt.concept_statistics import counts_by

if TYPE_CHECKING:
    from robustlab.data.dataset import TaskSpec


def draw_table(table: Tensor, labels: Tensor, path: Path, *, num_concepts: int, task: TaskSpec) -> None:
    """Draw n[k, y], the number of images of class y that contain concept k, as a heat map of shares with counts."""
    counts = counts_by(table, labels, num_concepts=num_concepts, num_values=task.num_classes)
    sizes = torch.bincount(labels, minlength=task.num_classes)
    shares = (counts / sizes.clamp(min=1)).numpy()
    figure = new_figure(2.0 + 0.85 * max(task.num_classes, 3), 1.4 + 0.36 * num_concepts)
    axis = figure.subplots()
    image = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    for concept in range(num_concepts):
        for label in range(task.num_classes):
            share = shares[concept, label]
            axis.text(
                label, concept, f"{int(counts[concept, label]):,}", ha="center", va="center", fontsize=8,
                color="white" if share > 0.55 else "black",
            )  # fmt: skip
    axis.set_xticks(range(task.num_classes), task.label_names, fontsize=8, rotation=0 if task.num_classes < 5 else 60)
    axis.set_yticks(range(num_concepts), [f"concept {k}" for k in range(num_concepts)], fontsize=8)
    for tick, concept in zip(axis.get_yticklabels(), range(num_concepts), strict=True):
        tick.set_color(colour(concept))
    axis.set_title("Images that contain a concept, by label: n[k, y]", fontsize=TITLE)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    bar = figure.colorbar(image, ax=axis, shrink=0.8)
    bar.set_label("share of the label's images", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    save(figure, path)


def draw_sampling(
    probabilities: Tensor, labels: Tensor, path: Path, *, task: TaskSpec, attributes: Tensor | None = None
) -> None:
    """Draw the effect of balancing: shares of all draws before (uniform) and after, and the distribution of P(i).

    Shares are of groups (class and attribute) if attributes are known, else of classes.

    - probabilities: P, (n,) float64, sum 1.
    - labels, attributes: (n,) int64.
    """
    values, names = labels, task.label_names
    if attributes is not None:
        values, names = labels * task.num_attributes + attributes, task.group_names
    size = len(probabilities)
    before = torch.bincount(values, minlength=len(names)).double() / size
    after = torch.zeros(len(names), dtype=torch.float64).index_add_(0, values, probabilities)
    figure = new_figure(9.0, max(2.6, 0.34 * len(names) + 1.5))
    shares, spread = figure.subplots(1, 2, width_ratios=[1.15, 1])
    places = np.arange(len(names))
    for offset, (heights, shade, name) in enumerate(((before, NEUTRAL, "before"), (after, STRONG, "after balancing"))):
        drawn = shares.barh(places + 0.4 * (offset - 0.5), 100 * heights.numpy(), height=0.38, color=shade, label=name)
        shares.bar_label(drawn, fmt="%.1f", fontsize=7, padding=2)
    shares.set_yticks(places, names, fontsize=8)
    shares.invert_yaxis()
    shares.set_xlabel("share of all draws, %", fontsize=8)
    shares.set_title("What is drawn", fontsize=TITLE)
    shares.margins(x=0.12)
    shares.legend(frameon=False, fontsize=8)
    ratio = (probabilities * size).sort(descending=True).values.clamp(min=1e-4).numpy()
    spread.plot(100 * (np.arange(size) + 0.5) / size, ratio, color=STRONG, label="after balancing")
    spread.axhline(1.0, color=NEUTRAL, label="before")
    spread.set_yscale("log")
    spread.yaxis.set_major_formatter("{x:g}")
    spread.set(xlabel="images, most frequent first, %", ylabel="draws per epoch, n P(i)")
    effective = 1 / float((probabilities**2).sum())
    spread.set_title(f"How often (effective sample size {effective:,.0f} of {size:,})", fontsize=TITLE)
    for axis in (shares, spread):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
        axis.xaxis.label.set_size(8)
        axis.yaxis.label.set_size(8)
    save(figure, path)
