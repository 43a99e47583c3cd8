"""Naming the concepts of images with the trained teacher: eval mode, no augmentation, deterministic."""

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
    """What is seen in a batch of images.

    concepts: code of each slot, -1 where it is not active, int64 [B, N]. area: share of the places that it wins, 0
    where not active, float32 [B, N]. margin: distance of the second nearest code less that of the nearest, in [0, 4], 0
    where not active, float32 [B, N]. winners: slot at each place, int64 [B, h, w].
    """

    concepts: Tensor
    area: Tensor
    margin: Tensor
    winners: Tensor


@dataclass(frozen=True)
class Table:
    """The assignments of a split, on the CPU, row by row in the order of `samples` (int64 [n], ascending indices).

    concepts: int16 [n, N]. area, margin: float16 [n, N].
    """

    concepts: Tensor
    area: Tensor
    margin: Tensor
    samples: Tensor


@torch.no_grad()
def assign(
    teacher: SlotEncoder, dictionary: Dictionary, images: Tensor, *, temperature: float, min_pixels: int = 1
) -> Assignment:
    """Return the assignment of normalised images float [B, C, H, W], computed in float32.

    A slot is active where it wins `min_pixels` places or more places than any other (the first of equal ones).
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
    """Return the table of a split: of every image that `data.evaluation(split)` serves, in its order."""
    parts: list[tuple[Tensor, ...]] = []
    for batch in data.evaluation(split, settings.batch_size, shard=runtime.world_size > 1).epoch(0):
        seen = assign(batch.images)
        parts.append((batch.index, seen.concepts.to(torch.int16), seen.area.half(), seen.margin.half()))
    own = tuple(torch.cat(columns).cpu() for columns in zip(*parts, strict=True))
    samples, concepts, area, margin = (torch.cat(columns) for columns in zip(*runtime.gather(own), strict=True))
    order = samples.argsort()
    return Table(concepts[order], area[order], margin[order], samples[order])
