"""Controls that replace CoBalT's concepts, to show what its results depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from robustlab.core import rng
from robustlab.methods.groups.cobalt.artifact import Concepts
from robustlab.models.maps import feature_maps

if TYPE_CHECKING:
    from robustlab.data.run_data import Data
    from robustlab.methods.groups.cobalt.discover import Discovery


def shuffled(concepts: Concepts, *, seed: int) -> Concepts:
    """Return the concepts with rows permuted within each split, so that every image gets those of another one."""
    orders = {
        split: rng.permutation(rng.fold(seed, "shuffled concepts", split), len(table))
        for split, table in concepts.tables.items()
    }
    moved = {
        name: {split: rows[orders[split]] for split, rows in getattr(concepts, name).items()}
        for name in ("tables", "area", "margin")
    }
    return replace(concepts, **moved)


def clustered(discovery: Discovery, concepts: Concepts, data: Data, splits: Sequence[str]) -> Concepts:
    """Return clusters of whole images as concepts, one per image, and as many clusters as the dictionary has codes.

    K-means, fitted on the training split, of the teacher encoder's features averaged over positions: the same network
    and training as for slots, but without slots.

    - concepts: the discovered concepts, which supply everything except the tables.
    """
    from sklearn.cluster import KMeans

    features = {split: _pooled(discovery, data, split) for split in splits}
    seed = rng.fold(discovery.seed, "clusters of images") % 2**31
    model = KMeans(concepts.num_concepts, n_init="auto", random_state=seed).fit(features["train"].numpy())
    distances = {split: torch.from_numpy(model.transform(rows.numpy())) for split, rows in features.items()}
    nearest = {split: rows.topk(2, dim=1, largest=False) for split, rows in distances.items()}
    return replace(
        concepts,
        tables={split: found.indices[:, :1].to(torch.int16) for split, found in nearest.items()},
        area={split: torch.ones(len(found.indices), 1, dtype=torch.float16) for split, found in nearest.items()},
        margin={split: (found.values[:, 1:] - found.values[:, :1]).half() for split, found in nearest.items()},
        codes=torch.from_numpy(model.cluster_centers_).float(),
    )


@torch.no_grad()
def _pooled(discovery: Discovery, data: Data, split: str) -> Tensor:
    """Return pooled features, (n, channels) float32 on the CPU, in the order of `Data.evaluation(split)`."""
    encoder = discovery.teacher.encoder
    training = encoder.training
    encoder.eval()
    loader = data.evaluation(split, discovery.settings.extract.batch_size)
    rows = [feature_maps(encoder, batch.images).mean(dim=(2, 3)).float().cpu() for batch in loader.epoch(0)]
    encoder.train(training)
    return torch.cat(rows)
