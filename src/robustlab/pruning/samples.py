"""Serve the un-augmented training images on which units are tested and removals are judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from robustlab.core import rng
from robustlab.core.runtime import Runtime
from robustlab.data.run_data import Data
from robustlab.data.serving.served_views import TEST_VIEW


class Samples:
    """Training images in the test view, in batches of `batch_size`; for a given number, a fixed subset per seed."""

    def __init__(self, data: Data, runtime: Runtime, *, seed: int, batch_size: int) -> None:
        self.data, self.runtime, self.seed, self.batch_size = data, runtime, seed, batch_size

    def count(self, number: int | None) -> int:
        """Return the number of images that `number` stands for; None, or more than there are, means all."""
        available = len(self.data.train_indices)
        return available if number is None else min(number, available)

    def batches(self, number: int | None, *, share: bool = False) -> Iterator[Tensor]:
        """Yield batches of images, (B, C, H, W) float.

        - number: number of images; None for all.
        - share: give each rank a share of the batches, possibly none.
        """
        data, runtime = self.data, self.runtime
        indices, count = data.train_indices, self.count(number)
        if count < len(indices):
            chosen = rng.permutation(rng.fold(self.seed, "death"), len(indices))[:count]
            indices = indices[chosen.sort().values]
        size = min(self.batch_size, count)
        if share:
            parts = indices.split(size)[runtime.rank :: runtime.world_size]
            if not parts:
                return
            indices = torch.cat(parts)
        loader = data.loader(
            indices,
            batch_size=size,
            views=(TEST_VIEW,),
            purpose="death",
            labelled=False,
            shuffle=False,
            shard=False,
        )
        for batch in loader.epoch(0):
            yield batch.images

    @torch.no_grad()
    def classes(self, network: nn.Module, number: int | None) -> dict[str, Tensor]:
        """Return split -> predicted classes, (n,) int64, on this rank's share of `number` training images and test."""
        test = (batch.images for batch in self.data.evaluation("test", self.batch_size).epoch(0))
        none, found = torch.zeros(0, dtype=torch.int64, device=self.runtime.device), {}
        network.eval()
        with self.runtime.autocast():
            for split, images in (("train", self.batches(number, share=True)), ("test", test)):
                found[split] = torch.cat([none, *(network.forward(one).argmax(dim=1) for one in images)])
        return found

    def disagreement(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> dict[str, float]:
        """Return the share of predictions that differ, by split, over all ranks."""
        found = {}
        for split, classes in after.items():
            counts = torch.stack([(classes != before[split]).sum(), torch.tensor(len(classes)).to(classes.device)])
            different, count = self.runtime.mean_over_ranks(counts.float()).tolist()
            found[split] = different / count
        return found
