"""Serve features of a frozen network instead of images: computed once per split, then read from a file."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from robustlab.core.console import say
from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Split
from robustlab.data.fingerprint import fingerprint
from robustlab.data.serving.feed import Chunk, Feed, View
from robustlab.data.serving.loader import Loader
from robustlab.data.serving.order import Order
from robustlab.data.storage.cache import cached_array
from robustlab.models.heads import TwoHeads

_CHUNK = 8  # batches served together


class FeatureFeed:
    """Features on the device, (N, F) float32, served as 1x1 images, (B, F, 1, 1), in every view."""

    def __init__(self, features: Tensor) -> None:
        """Serve `features`, (N, F) float32."""
        self._features, self.device = features, features.device

    def chunk_batches(self, rows: int) -> int:
        """Return the number of batches to look up together."""
        return _CHUNK

    def serve(self, plan: Iterable[Chunk], views: Sequence[View]) -> Iterator[tuple[Tensor, tuple[Tensor, ...]]]:
        """Yield index and views per batch; all views are the same, since nothing is augmented."""
        for chunk in plan:
            index = chunk.index.to(self.device, non_blocking=True)
            features = self._features.index_select(0, index)[:, :, None, None]
            pieces = zip(index.split(chunk.sizes), features.split(chunk.sizes), strict=True)
            for rows, batch in list(pieces)[chunk.skip :]:
                yield rows, (batch,) * len(views)


class FrozenFeatures:
    """A frozen network's pooled features of a data set's images in the "test" view.

    The features of a split are stored in a file below `<cache_dir>/features`, whose name identifies the network (its
    settings and the hash of its weights), the images (the fingerprint of the split, without labels) and the view, so
    that all methods, seeds, labels and samplers share it. They are always computed in float32.
    """

    def __init__(
        self, network: nn.Module, *, name: str, settings: Any, cache_dir: str | Path, batch_size: int = 256
    ) -> None:
        """Freeze the network and hash its weights.

        - network: a `TwoHeads` on its device, whose heads are not used.
        - name: readable part of the file names.
        - settings: everything else that distinguishes networks with the same weights, or images with the same names;
          its repr is hashed.

        Raises `ConfigError` for a network without pooled features.
        """
        if not isinstance(network, TwoHeads):
            raise ConfigError(f"features=frozen needs the pooled features of the network, but model={name} has none")
        self._network = network.eval().requires_grad_(False)
        self._name, self._folder, self._batch_size = name, Path(cache_dir).expanduser() / "features", batch_size
        digest = hashlib.sha256(repr((settings, batch_size)).encode())
        for key, value in network.trunk.state_dict().items():
            digest.update(key.encode() + value.cpu().contiguous().view(-1).numpy().tobytes())
        self._identity = digest.hexdigest()

    @property
    def dim(self) -> int:
        """F, the width of the features."""
        return self._network.feature_dim

    def feed(self, name: str, split: Split, images: Callable[[], Feed], *, view: View, device: torch.device) -> Feed:
        """Return the feed of a split's features on `device`.

        - images: makes the feed of the split's images, called only if features must be computed.

        Raises ConfigError if the file cannot be written, and whatever the images raise.
        """
        unlabelled = fingerprint(replace(split, labels=torch.zeros_like(split.labels)))
        key = hashlib.sha256(f"{self._identity} {unlabelled}".encode()).hexdigest()[:16]
        path = self._folder / f"{self._name}-{name}-{key}.npy"
        shape = (len(split.labels), self.dim)
        features = cached_array(path, shape, "float32", lambda: self._blocks(images(), len(split.labels), view, path))
        return FeatureFeed(torch.from_numpy(features).to(device))

    def _blocks(self, feed: Feed, count: int, view: View, path: Path) -> Iterator[np.ndarray]:
        """Yield the features of all images in order, (b, F) float32 each."""
        say(f"computing the features of {count:,} images by {self._name}, once, into {path}", once=True)
        order = Order(count, self._batch_size, 0, "features", shuffle=False)
        for batch in Loader(feed, torch.arange(count), order=order, views=[view], labels=None).epoch(0):
            with torch.inference_mode():
                yield self._network.features(batch.images).float().cpu().numpy()
