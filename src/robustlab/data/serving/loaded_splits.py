"""Hold the loaded splits of a data set: feeds that serve their images, labels and attributes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TypedDict

import torch
from torch import Tensor

from robustlab.core.errors import ConfigError, DataError
from robustlab.data.dataset import DataSource, LazyImages, Split, check_attributes, check_labels
from robustlab.data.serving.feed import Feed, Renderer, ResidentFeed, View
from robustlab.data.serving.frozen_features import FrozenFeatures
from robustlab.data.serving.streaming import StreamingFeed, TensorImages, decode_all
from robustlab.data.storage.encoded_images import EncodedImages
from robustlab.data.storage.staging import Stage
from robustlab.data.transforms.decode import Decode


class StorageOptions(TypedDict, total=False):
    """Where images lie and how they are read.

    - storage: "resident" (on the device), or "streaming": decoded by `workers` processes (0 = this one), cropped by
      `decode`; a batch may take `timeout` seconds.
    - stage: a folder on this node to which encoded images are copied before they are streamed.
    - channels_last: the memory format of batches.
    """

    storage: str
    workers: int
    decode: Mapping[str, Decode] | None
    timeout: float
    stage: Path | None
    device: torch.device | str
    channels_last: bool


class Parts:
    """The splits of a source that have been read. Each mapping goes from the split's name.

    - feeds: feeds that serve the images.
    - labels: labels that loaders serve, (N,) int64 on the device.
    - attributes: (N,) int64 on the CPU, for splits where they are known.
    - names: names of the samples' files, for splits that have files.
    """

    def __init__(
        self,
        source: DataSource,
        *,
        storage: str = "resident",
        workers: int = 0,
        decode: Mapping[str, Decode] | None = None,
        timeout: float = 60.0,
        stage: Path | None = None,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
    ) -> None:
        """Read nothing yet. For the options see `StorageOptions`. Raises ConfigError if they contradict each other."""
        _check(storage, workers, decode)
        self.feeds: dict[str, Feed] = {}
        self.labels: dict[str, Tensor] = {}
        self.attributes: dict[str, Tensor] = {}
        self._source, self._task, self._device = source, source.task, torch.device(device)
        self._storage, self._workers, self._decode, self._timeout = storage, workers, dict(decode or {}), timeout
        self._stage = None if stage is None else Stage(stage)
        self.names: dict[str, tuple[str, ...]] = {}
        memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._renderer = Renderer(source.task, memory_format)
        self._frozen: tuple[FrozenFeatures, View] | None = None

    def freeze(self, frozen: FrozenFeatures, view: View) -> None:
        """Serve features of images in a view instead of images, for all splits added from now on."""
        self._frozen = (frozen, view)

    def read(self, name: str) -> None:
        """Read a split of the source, unless already read. Raises ConfigError, DataError."""
        if name not in self.feeds:
            found = self._source.split(name)
            check_labels(found.labels, self._task.num_classes, where=f"the {name} split")
            self.add(name, found)

    def add(self, name: str, split: Split) -> None:
        """Prepare the images and labels of a split for serving."""
        if len(split.images) != len(split.labels):
            raise DataError(f"the {name} split has {len(split.images)} images but {len(split.labels)} labels")
        if split.attributes is not None:
            check_attributes(split.attributes, len(split.labels), self._task, where=f"the {name} split")
            self.attributes[name] = split.attributes.to("cpu", torch.int64)
        if split.names is not None:
            self.names[name] = split.names
        if self._frozen is None:
            self.feeds[name] = self._images(name, split.images)
        else:
            frozen, view = self._frozen
            images = partial(self._images, name, split.images)
            self.feeds[name] = frozen.feed(name, split, images, view=view, device=self._device)
        self.labels[name] = split.labels.to(self._device, torch.int64)

    def _images(self, name: str, images: Tensor | LazyImages) -> Feed:
        """Return the feed that serves the images of a split."""
        if self._storage == "streaming":
            if self._stage is not None and isinstance(images, EncodedImages):
                images = images.staged(self._stage)
            return StreamingFeed(
                TensorImages(images) if isinstance(images, Tensor) else images,
                renderer=self._renderer,
                device=self._device,
                decode=self._decode,
                workers=self._workers,
                timeout=self._timeout,
            )
        resident = images if isinstance(images, Tensor) else decode_all(images, self._task.image_shape)
        if tuple(resident.shape[1:]) != tuple(self._task.image_shape) or resident.dtype != torch.uint8:
            raise DataError(
                f"the {name} split has {resident.dtype} images of shape {tuple(resident.shape[1:])}, "
                f"but the data set announces uint8 {tuple(self._task.image_shape)}"
            )
        return ResidentFeed(resident.to(self._device), renderer=self._renderer)


def _check(storage: str, workers: int, decode: Mapping[str, Decode] | None) -> None:
    """Raise ConfigError for contradictory settings."""
    if storage not in ("resident", "streaming"):
        raise ConfigError(f"dataset.storage={storage} is neither resident nor streaming")
    if storage == "resident" and decode:
        raise ConfigError(
            "dataset.decode crops while images are read, which dataset.storage=resident does not do; "
            "set dataset.decode=null or dataset.storage=streaming"
        )
    if decode and set(decode) != {"train", "eval"}:
        raise ConfigError(f"dataset.decode needs the entries train and eval, it has {', '.join(sorted(decode))}")
    if workers < 0:
        raise ConfigError(f"dataset.workers={workers} is negative; use 0 to decode in the main process")
