"""`Data`: a data set with its assigned labels, its validation split and its loaders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import torch
from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import DataSource, TaskSpec, check_statistics
from robustlab.data.fingerprint import fingerprint
from robustlab.data.noise import label_files
from robustlab.data.noise.assigned import assign
from robustlab.data.noise.noise_model import NoiseModel
from robustlab.data.partition import balanced_subset, stratified_share
from robustlab.data.serving.frozen_features import FrozenFeatures
from robustlab.data.serving.loaded_splits import Parts, StorageOptions
from robustlab.data.serving.loader import Loader, check_batch_size
from robustlab.data.serving.order import Order, WeightedOrder
from robustlab.data.serving.served_views import Views
from robustlab.data.transforms.transform import Transform
from robustlab.metrics.group_accuracy import group_of


class Data:
    """A data set as seen by methods and the engine. The training split keeps its full, stable index range 0..N-1.

    All tensors are on the CPU.

    - task: the data set's `TaskSpec`, with the image_shape that networks see: that of the test view, or (F, 1, 1) for
      frozen features.
    - num_train: N.
    - clean: the true labels, (N,) int64, None if unknown.
    - assigned: the labels to train on, (N,) int64.
    - is_noisy: assigned != clean, (N,) bool, or None.
    - train_indices, val_indices: int64, sorted, disjoint; the latter is empty if the source has a validation split.
    - provides: the source's `provides`, and "groups" if training samples have attributes.
    - evaluation_splits: splits that every evaluation measures.
    """

    def __init__(
        self,
        source: DataSource,
        *,
        seed: int,
        noise: NoiseModel | None = None,
        noise_name: str = "none",
        noise_seed: int | None = None,
        val_fraction: float = 0.0,
        subset: int | None = None,
        views: Mapping[str, Sequence[Transform]] | None = None,
        frozen: Callable[[TaskSpec], FrozenFeatures] | None = None,
        rank: int = 0,
        world_size: int = 1,
        **storage: Unpack[StorageOptions],
    ) -> None:
        """Read the training split and assign its labels.

        Noise is applied to the whole training split; then `subset` samples are kept, balanced over clean classes; then
        `val_fraction` of these, stratified by assigned label, become the validation split. Both choices are the same
        for every seed.

        - frozen: makes, for a task, the network whose features replace images.
        - storage: location and decoding of images, see `StorageOptions`.

        Raises ConfigError, DataError, UnavailableError.
        """
        _check_val_fraction(val_fraction, source)
        self._parts = Parts(source, **storage)
        self._views = Views(views)
        self.task = self._served_task(source.task, frozen)
        self.provides = frozenset(source.provides)
        self._source, self._seed = source, seed
        self._rank, self._world_size = rank, world_size

        split = source.split("train")
        clean, noise_seed = "clean_labels" in self.provides, seed if noise_seed is None else noise_seed
        self._labels = assign(noise, split, clean=clean, task=self.task, name=noise_name, seed=noise_seed)
        self.num_train = len(self._labels.given)
        self.clean, self.assigned, self.is_noisy = self._labels.clean, self._labels.assigned, self._labels.is_noisy
        kept = balanced_subset(self._labels.given, subset, num_classes=self.task.num_classes)
        held_out = stratified_share(self.assigned[kept], val_fraction)
        self.train_indices, self.val_indices = kept[~held_out], kept[held_out]
        self._parts.add("train", replace(split, labels=self.assigned))
        if "train" in self._parts.attributes:
            self.provides |= {"groups"}
        own_val = ["val"] if len(self.val_indices) else []
        self.evaluation_splits = (*own_val, *(name for name in source.splits if name != "train"))

    def _served_task(self, task: TaskSpec, frozen: Callable[[TaskSpec], FrozenFeatures] | None) -> TaskSpec:
        check_statistics(task)
        served = replace(task, image_shape=self._views.served_shape(task))
        if frozen is None:
            return served
        features = frozen(served)
        self._parts.freeze(features, self._views.test)
        return replace(served, image_shape=(features.dim, 1, 1))

    @property
    def true_noise_rate(self) -> float | None:
        """The share of wrong labels among the training samples; None if clean labels are unknown."""
        return self._labels.true_rate(self.train_indices)

    def noise_record(self) -> dict[str, Any]:
        """Return the origin of the labels; see `AssignedLabels.record`."""
        return self._labels.record(self.train_indices)

    @property
    def skipped(self) -> dict[str, dict[str, str]]:
        """The skipped damaged images: split read so far -> file -> reason."""
        return {name: dict(files) for name, files in self._source.skipped.items()}

    def manifest(self) -> dict[str, dict[str, int]]:
        """Return split -> file -> label for the training and evaluation splits that consist of files, in order.

        Labels of the training split are the assigned ones.
        """
        for name in self.evaluation_splits:
            self._locate(name)
        return {
            name: dict(zip(names, self._parts.labels[name].tolist(), strict=True))
            for name, names in self._parts.names.items()
        }

    def save_labels(self, path: str | Path) -> None:
        """Write the assigned labels of the whole training split to an .npz that `FixedLabels` reads."""
        label_files.save(Path(path), self.assigned, record=self.noise_record())

    def check_saved_labels(self, path: str | Path) -> None:
        """Raise `DataError` unless the labels in an .npz, e.g. of the resumed run, equal the assigned ones."""
        origin = f"noise={self._labels.noise_name} and seed {self._labels.noise_seed} give"
        label_files.check_same(Path(path), self.assigned, origin=origin)

    def loader(
        self,
        indices: Tensor | None = None,
        *,
        batch_size: int,
        views: tuple[str, ...],
        purpose: str,
        labelled: bool = True,
        shuffle: bool = True,
        drop_last: bool = False,
        shard: bool = True,
        weights: Tensor | None = None,
    ) -> Loader:
        """Return a loader of training samples.

        - indices: stable indices, int64, by default `train_indices`; repeated ones are augmented independently.
        - batch_size: size of the global batch.
        - views: names; a repeated name gives independent draws.
        - purpose: name of the random stream; loaders with the same purpose and indices serve the same batches.
        - labelled: False drops the targets.
        - shard: split each batch between the ranks.
        - weights: (len(indices),) float64, non-negative; a pass then draws len(indices) times with replacement, each
          sample with probability weight / sum, and augments every draw independently.
        """
        indices = self.train_indices if indices is None else indices.to(device="cpu", dtype=torch.int64)
        check_batch_size(indices, batch_size, shuffle=shuffle)
        rank, world_size = (self._rank, self._world_size) if shard else (0, 1)
        settings = (len(indices), batch_size, self._seed, purpose, shuffle, drop_last, world_size)
        return Loader(
            self._parts.feeds["train"],
            indices,
            order=Order(*settings) if weights is None else WeightedOrder(*settings, weights=weights),
            views=self._views.choose(views),
            labels=self._parts.labels["train"] if labelled else None,
            rank=rank,
            world_size=world_size,
        )

    def evaluation(self, split: str, batch_size: int, *, shard: bool = False) -> Loader:
        """Return an unshuffled loader of the "test" view that serves every sample of a split once.

        - split: "train" or "val" (with assigned labels), "test", or another split of the source.
        - shard: give each rank its share of the samples, in batches of up to `batch_size`.
        """
        part, indices = self._locate(split)
        if shard:
            if len(indices) < self._world_size:
                raise ConfigError(
                    f"the {split} split has only {len(indices)} samples for {self._world_size} processes; "
                    f"use fewer processes"
                )
            indices = indices[self._rank :: self._world_size]
        check_batch_size(indices, batch_size, shuffle=False)
        return Loader(
            self._parts.feeds[part],
            indices,
            order=Order(len(indices), batch_size, self._seed, f"evaluate {split}", shuffle=False),
            views=[self._views.test],
            labels=self._parts.labels[part],
        )

    @property
    def train_attributes(self) -> Tensor | None:
        """The attributes of the whole training split, int64 [num_train] on the CPU; None where they are not known."""
        return self._parts.attributes.get("train")

    def attributes(self, split: str) -> Tensor | None:
        """Return int64 [n] on the CPU, in the order of `evaluation(split)`; None where they are not known.

        For what is measured and shown. A method that trains on groups asks `told_groups` and declares it.
        """
        part, indices = self._locate(split)
        return self._parts.attributes[part][indices] if part in self._parts.attributes else None

    def labels(self, split: str) -> Tensor:
        """Return the labels that `evaluation(split)` serves, (n,) int64 on the CPU, in its order."""
        part, indices = self._locate(split)
        return self._parts.labels[part].cpu()[indices]

    def group_counts(self, split: str) -> Tensor | None:
        """Return the number of samples per group in a split, (num_groups,) int64; None if attributes are unknown."""
        attributes = self.attributes(split)
        if attributes is None:
            return None
        groups = group_of(self.labels(split), attributes, num_attributes=self.task.num_attributes)
        return torch.bincount(groups, minlength=self.task.num_groups)

    def derived_metrics(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return the data set's own metrics derived from those of an evaluation."""
        return self._source.derived_metrics(measured)

    def fingerprint(self, split: str) -> str:
        """Return a hash of a split's samples, in order, and the data set's own labels; "train" is the whole split."""
        part, rows = ("train", None) if split == "train" else self._locate(split)
        return fingerprint(self._source.split(part), rows)

    def _locate(self, split: str) -> tuple[str, Tensor]:
        """Return the source's split that contains the samples of `split`, and their positions in it."""
        if split == "train":
            return "train", self.train_indices
        if split == "val" and "val" not in self._source.splits:
            if not len(self.val_indices):
                raise ConfigError("there is no validation split; set dataset.val_fraction, e.g. to 0.1")
            return "train", self.val_indices
        self._parts.read(split)
        return split, torch.arange(len(self._parts.labels[split]))


def _check_val_fraction(val_fraction: float, source: DataSource) -> None:
    if not 0.0 <= val_fraction < 1.0:
        raise ConfigError(f"dataset.val_fraction={val_fraction} lies outside [0, 1)")
    if val_fraction and "val" in source.splits:
        raise ConfigError(f"the data already has a validation split; set dataset.val_fraction=0, not {val_fraction}")
