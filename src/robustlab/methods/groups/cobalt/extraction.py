"""Assign concepts to images with the trained teacher: eval mode, no augmentation, deterministic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustlab.methods.groups.cobalt.discovery_settings import ExtractSettings
from robustlab.methods.groups.cobalt.grouping import group, places, winners

if TYPE_CHECKING:
    from robustlab.core.runtime import Runtime
    from robustlab.data.run_data import Data
    from robustlab.methods.groups.cobalt.dictionary import Dictionary
    from robustlab.methods.groups.cobalt.slot_network import SlotEncoder


@dataclass(frozen=True)
class Assignment:
    """The slots and concepts of a batch of images.

    - concepts: code of each slot, (B, N) int64, -1 if inactive.
    - area: share of the positions that the slot wins, (B, N) float32, 0 if inactive.
    - margin: squared distance to the second nearest code minus that to the nearest, (B, N) float32 in [0, 4], 0 if
      inactive.
    - winners: slot at each position, (B, h, w) int64.
    """

    concepts: Tensor
    area: Tensor
    margin: Tensor
    winners: Tensor


@dataclass(frozen=True)
class Table:
    """The assignments of a split, on the CPU.

    - samples: stable indices of the rows, (n,) int64, ascending.
    - concepts: (n, N) int16.
    - area, margin: (n, N) float16.
    """

    concepts: Tensor
    area: Tensor
    margin: Tensor
    samples: Tensor


@torch.no_grad()
def assign(
    teacher: SlotEncoder, dictionary: Dictionary, images: Tensor, *, temperature: float, min_pixels: int = 1
) -> Assignment:
    """Return the assignment of a batch, computed in float32.

    A slot is active if it wins at least `min_pixels` positions, or the most positions of all slots (the first of ties).

    - images: (B, C, H, W) float, normalised.
    """
    mode = teacher.training
    groups = group(teacher.eval()(images), teacher.slots, temperature)
    teacher.train(mode)
    won = places(groups.logits)
    largest = won.argmax(dim=1, keepdim=True) == torch.arange(won.shape[1], device=won.device)
    kept = (won >= min_pixels) | largest
    nearest, codes = dictionary.distances(groups.vectors).topk(2, dim=2, largest=False)
    side = groups.logits.shape[2] * groups.logits.shape[3]
    return Assignment(
        concepts=torch.where(kept, codes[..., 0], -1),
        area=torch.where(kept, won / side, 0.0),
        margin=torch.where(kept, nearest[..., 1] - nearest[..., 0], 0.0),
        winners=winners(groups.logits),
    )


def extract_split(
    data: Data, split: str, assign: Callable[[Tensor], Assignment], *, settings: ExtractSettings, runtime: Runtime
) -> Table:
    """Return the table of a split, with every image that `data.evaluation(split)` serves, in the same order."""
    parts: list[tuple[Tensor, ...]] = []
    for batch in data.evaluation(split, settings.batch_size, shard=runtime.world_size > 1).epoch(0):
        seen = assign(batch.images)
        parts.append((batch.index, seen.concepts.to(torch.int16), seen.area.half(), seen.margin.half()))
    own = tuple(torch.cat(columns).cpu() for columns in zip(*parts, strict=True))
    samples, concepts, area, margin = (torch.cat(columns) for columns in zip(*runtime.gather(own), strict=True))
    order = samples.argsort()
    return Table(concepts[order], area[order], margin[order], samples[order])
