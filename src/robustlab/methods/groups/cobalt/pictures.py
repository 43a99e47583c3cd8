"""Draw figures of concepts: what each slot attends to, and images that show each concept.

All figures are PNG files made with matplotlib, without a display. A concept has the same colour in all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.methods.groups.cobalt.canvas import (
    NEUTRAL,
    STRONG,
    TITLE,
    as_picture,
    colour,
    coloured,
    highlighted,
    legend,
    new_figure,
    outline,
    save,
    show,
    slot_masks,
)
from robustlab.methods.groups.cobalt.charts import draw_table
from robustlab.methods.groups.cobalt.concept_statistics import presence
from robustlab.methods.groups.cobalt.two_views import to_pixels

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from robustlab.data.dataset import TaskSpec
    from robustlab.data.run_data import Data
    from robustlab.methods.groups.cobalt.artifact import Concepts
    from robustlab.methods.groups.cobalt.discover import Discovery
    from robustlab.methods.groups.cobalt.extraction import Assignment


def illustrate(
    discovery: Discovery, concepts: Concepts, data: Data, folder: Path, *, images: int = 8, each: int = 8
) -> dict[str, Path]:
    """Draw the training split's concepts into `folder`; return {"slots", "concepts", "table": PNG file}.

    - images: number of random images whose slots are shown.
    - each: number of images shown per concept.
    """
    table, samples = concepts.tables["train"], concepts.samples["train"]
    labels, attributes, task = data.labels("train"), data.attributes("train"), data.task

    def look(rows: Tensor) -> tuple[Tensor, Assignment]:
        loader = data.loader(
            samples[rows], batch_size=len(rows), views=("test",), purpose="pictures", shuffle=False, shard=False
        )
        batch = next(loader.epoch(0))
        return to_pixels(batch.images, task), discovery.assign(batch.images)

    paths = {name: folder / f"{name}.png" for name in ("slots", "concepts", "table")}
    rows = rng.permutation(rng.fold(discovery.seed, "pictures"), len(table))[:images]
    drawn, seen = look(rows)
    titles = [task.label_names[label] for label in labels[rows].tolist()]
    draw_slots(drawn, seen, paths["slots"], titles=titles)
    best = top_images(
        table, concepts.area["train"], concepts.margin["train"], num_concepts=concepts.num_concepts, count=each
    )
    gallery = [look(rows) if len(rows) else None for rows in best]
    draw_concepts(gallery, table, labels, paths["concepts"], task=task, attributes=attributes)
    draw_table(table, labels, paths["table"], num_concepts=concepts.num_concepts, task=task)
    return paths


def draw_slots(images: Tensor, seen: Assignment, path: Path, *, titles: Sequence[str] = ()) -> None:
    """Draw one row per image: the image, the concept at each position, and what each slot attends to.

    The image is faded outside the slot; the frame has the colour of the slot's concept, with the area's share below.

    - images: (M, C, H, W) uint8.
    - seen: their assignment.
    - titles: titles of the rows, e.g. the labels.
    """
    count, slots = seen.concepts.shape
    figure = new_figure(1.25 * (slots + 2) + 0.4, 1.42 * count + 0.75)
    axes = figure.subplots(count, slots + 2, squeeze=False)
    masks = slot_masks(seen.winners.cpu(), slots, (images.shape[2], images.shape[3]))
    for row in range(count):
        picture = as_picture(images[row])
        show(axes[row, 0], picture)
        axes[row, 0].set_ylabel(titles[row] if titles else "", fontsize=8)
        show(axes[row, 1], coloured(picture, masks[row], seen.concepts[row].tolist()))
        for slot in range(slots):
            axis, concept = axes[row, slot + 2], int(seen.concepts[row, slot])
            if concept < 0:
                show(axis, np.ones_like(picture))
                axis.text(0.5, 0.5, "not active", ha="center", va="center", transform=axis.transAxes, fontsize=7)
                continue
            show(axis, highlighted(picture, masks[row, slot]))
            outline(axis, masks[row, slot], concept)
            area = 100 * float(seen.area[row, slot])
            axis.set_xlabel(f"concept {concept}  ·  {area:.0f} %", fontsize=8, color=colour(concept), labelpad=2)
    for axis, name in zip(axes[0], ["image", "concepts", *(f"slot {slot + 1}" for slot in range(slots))], strict=True):
        axis.set_title(name, fontsize=TITLE)
    figure.suptitle("Each slot shows the positions that it wins, in the colour of its concept", fontsize=TITLE)
    legend(figure, sorted({concept for concept in seen.concepts.flatten().tolist() if concept >= 0}))
    save(figure, path)


def top_images(table: Tensor, area: Tensor, margin: Tensor, *, num_concepts: int, count: int) -> list[Tensor]:
    """Return for each concept the rows of the images that show it best, (up to `count`,) int64, best first.

    Images are ranked by area times margin of the slot; ties are in row order.
    """
    score = area.double() * margin.double()
    best = []
    for concept in range(num_concepts):
        own = torch.where(table == concept, score, -1.0).amax(dim=1)
        order = own.argsort(descending=True, stable=True)[:count]
        best.append(order[own[order] >= 0])
    return best


def draw_concepts(
    gallery: Sequence[tuple[Tensor, Assignment] | None],
    table: Tensor,
    labels: Tensor,
    path: Path,
    *,
    task: TaskSpec,
    attributes: Tensor | None = None,
) -> None:
    """Draw one row per concept: its frequency in each class and attribute, and images that show it best.

    Concepts without images are left out; the most frequent one comes first.

    - gallery: for each concept, images, (M, C, H, W) uint8, and their assignment, or None if it has no images.
    - table: (n, N) int, for shares and counts.
    - labels, attributes: (n,) int64.
    """
    counts = presence(table, len(gallery)).sum(dim=0)
    shown = [k for k in counts.argsort(descending=True, stable=True).tolist() if gallery[k] is not None and counts[k]]
    groupings = [(labels, task.label_names)] if attributes is None else [
        (labels, task.label_names), (attributes, task.attribute_names)
    ]  # fmt: skip
    bars = sum(len(names) for _, names in groupings)
    columns = max((len(one[0]) for one in gallery if one is not None), default=1)
    tall = max(1.15, 0.2 * bars + 0.45)
    figure = new_figure(2.9 + 1.05 * columns, tall * max(len(shown), 1) + 0.6)
    widths = [2.1, *[1.0] * columns]
    axes = figure.subplots(max(len(shown), 1), columns + 1, squeeze=False, width_ratios=widths)
    for row, concept in enumerate(shown):
        entry = gallery[concept]
        assert entry is not None
        _share_bars(axes[row, 0], concept, table, groupings, num_concepts=len(gallery))
        axes[row, 0].set_title(
            f"concept {concept}:  {int(counts[concept]):,} images", fontsize=9, color=colour(concept), loc="left"
        )
        images, seen = entry
        masks = slot_masks(seen.winners.cpu(), seen.concepts.shape[1], (images.shape[2], images.shape[3]))
        for column in range(columns):
            axis = axes[row, column + 1]
            if column >= len(images):
                axis.set_axis_off()
                continue
            mask = masks[column][(seen.concepts[column] == concept).cpu()].any(dim=0)
            show(axis, highlighted(as_picture(images[column]), mask))
            outline(axis, mask, concept)
    figure.suptitle(
        "Frequency of each concept: share (and number) of images per class or attribute; images that show it best",
        fontsize=TITLE,
    )
    save(figure, path)


def _share_bars(
    axis: Axes, concept: int, table: Tensor, groupings: Sequence[tuple[Tensor, Sequence[str]]], *, num_concepts: int
) -> None:
    """Draw the share of images of each class and attribute that contain the concept."""
    there = presence(table, num_concepts)[:, concept].double()
    names, shares, shades, words = [], [], [], []
    for number, (values, labels) in enumerate(groupings):
        for value, name in enumerate(labels):
            members = there[values == value]
            share = 100 * float(members.mean()) if len(members) else 0.0
            names.append(name)
            shares.append(share)
            shades.append(NEUTRAL if number == 0 else STRONG)
            words.append(f"{share:.0f} %  ({int(members.sum()):,})")
    places = np.arange(len(names))
    drawn = axis.barh(places, shares, color=shades, height=0.7)
    axis.bar_label(drawn, labels=words, fontsize=7, padding=2)
    axis.set_yticks(places, names, fontsize=7)
    axis.invert_yaxis()
    axis.set_xlim(0, 170)
    axis.set_xticks([])
    axis.spines[["top", "right", "bottom"]].set_visible(False)
