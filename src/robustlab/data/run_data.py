"""`Data`: a data set with its assigned labels, its validation split and its loaders."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from robustlab.data.noise import label_files
from robustlab.data.noise.assigned import assign
from robustlab.data.transforms.transform import Transform
from robustlab.data.dataset import DataSource, TaskSpec, check_labels, check_statistics
from robustlab.data.transforms.decode import Decode
from robustlab.data.fingerprint import fingerprint
from robustlab.data.serving.frozen_features import FrozenFeatures
from robustlab.data.serving.loader import Loader
from robustlab.data.noise.noise_model import NoiseModel
from robustlab.data.serving.order import Order, WeightedOrder
from robustlab.data.partition import balanced_subset, stratified_share
from robustlab.data.serving.loaded_splits import Parts
from robustlab.data.serving.served_views import Views
from robustlab.core.errors import ConfigError
from robustlab.metrics.group_accuracy import group_of

if TYPE_CHECKING:
    from robustlab.engine.method import Method


class Data:
    """What methods and the engine see of a data set. The training split keeps its full, stable index range 0..N-1.

    task: the data set's `TaskSpec`, with the image_shape that networks see: of the test view, or (F, 1, 1) of frozen
    features. num_train: N. clean: int64 [N], the true labels, None where they are not known. assigned: int64 [N], the
    labels to train on. is_noisy: bool [N], assigned != clean, or None. train_indices, val_indices: int64, sorted,
    disjoint; the latter empty where the source has a validation split of its own. All of these lie on the CPU.
    provides: what the source provides, and "groups" where training samples have attributes. evaluation_splits: what is
    measured at every evaluation.
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
        storage: str = "resident",
        workers: int = 0,
        views: Mapping[str, Sequence[Transform]] | None = None,
        decode: Mapping[str, Decode] | None = None,
        device: torch.device | str = "cpu",
        channels_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
        timeout: float = 60.0,
        frozen: Callable[[TaskSpec], FrozenFeatures] | None = None,
        stage: Path | None = None,
    ) -> None:
        """Read the training split and assign its labels.

        noise: applied to the whole training split; then `subset` keeps that many samples, balanced over clean classes;
        then `val_fraction` of these, stratified by assigned label, becomes the validation split. Both choices are the
        same for every seed. storage: "resident" (on the device) or "streaming" (decoded by `workers` processes, 0 =
        this one, cropped by `decode`; a batch may take `timeout` seconds). frozen: makes, for the task, the network
        whose features take the place of images. stage: a folder on this node to which encoded images are copied before
        they are streamed. Raises ConfigError, DataError, UnavailableError.
        """
        if not 0.0 <= val_fraction < 1.0:
            raise ConfigError(f"dataset.val_fraction={val_fraction} lies outside [0, 1)")
        if val_fraction and "val" in source.splits:
            raise ConfigError(
                f"this data set has a validation split of its own; set dataset.val_fraction=0, not {val_fraction}"
            )
        self._parts = Parts(
            source,
            storage=storage,
            workers=workers,
            decode=decode,
            timeout=timeout,
            stage=stage,
            device=torch.device(device),
            memory_format=torch.channels_last if channels_last else torch.contiguous_format,
        )
        check_statistics(source.task)
        self._views = Views(views)
        self.task: TaskSpec = replace(source.task, image_shape=self._views.served_shape(source.task))
        if frozen is not None:
            features = frozen(self.task)
            self._parts.freeze(features, self._views.test)
            self.task = replace(self.task, image_shape=(features.dim, 1, 1))
        self.provides = frozenset(source.provides)
        self._source, self._seed = source, seed
        self._rank, self._world_size = rank, world_size

        split = source.split("train")
        given = split.labels.to(torch.int64).clone()
        check_labels(given, self.task.num_classes, where="the training split", names=self.task.class_names)
        self.num_train = len(given)
        noise_seed = seed if noise_seed is None else noise_seed
        clean = "clean_labels" in self.provides
        self._labels = assign(noise, split, given, clean=clean, task=self.task, name=noise_name, seed=noise_seed)
        self.clean, self.assigned, self.is_noisy = self._labels.clean, self._labels.assigned, self._labels.is_noisy
        kept = balanced_subset(given, subset, num_classes=self.task.num_classes)
        held_out = stratified_share(self.assigned[kept], val_fraction)
        self.train_indices, self.val_indices = kept[~held_out], kept[held_out]
        self._parts.add("train", replace(split, labels=self.assigned))
        if "train" in self._parts.attributes:
            self.provides |= {"groups"}
        own_val = ["val"] if len(self.val_indices) else []
        self.evaluation_splits = (*own_val, *(name for name in source.splits if name != "train"))

    @property
    def true_noise_rate(self) -> float | None:
        """The share of wrong labels among the training samples; None where clean labels are not known."""
        return self._labels.true_rate(self.train_indices)

    def noise_record(self) -> dict[str, Any]:
        """Return how the labels came about; see `AssignedLabels.record`."""
        return self._labels.record(self.train_indices)

    @property
    def skipped(self) -> dict[str, dict[str, str]]:
        """The damaged images that were left out of each split read so far, each with the reason."""
        return {name: dict(files) for name, files in self._source.skipped.items()}

    def manifest(self) -> dict[str, dict[str, int]]:
        """Return the label of each file of the training and the evaluated splits, in order; splits of files only.

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
        """Raise `DataError` unless the labels in an .npz, e.g. of the run that is resumed, are the assigned ones."""
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

        indices: int64 stable indices, by default `train_indices`; one may come several times, augmented independently
        each time. batch_size: of the global batch. views: names; a name that is repeated gives independent draws.
        purpose: names the random stream: loaders with the same purpose and indices serve the same batches. labelled:
        False drops the targets. shard: share each batch among the ranks.
        weights: float64 [len(indices)], not negative: a pass then draws len(indices) times with replacement, each
        sample with probability weight / sum, and augments every draw independently.
        """
        indices = self.train_indices if indices is None else indices.to(device="cpu", dtype=torch.int64)
        _check_batches(indices, batch_size, shuffle=shuffle)
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

        split: "train" or "val" (with assigned labels), "test", or another split of the source. shard: give each rank
        its own share of the samples in batches of up to `batch_size`.
        """
        part, indices = self._locate(split)
        if shard:
            if len(indices) < self._world_size:
                raise ConfigError(
                    f"the {split} split has {len(indices)} samples for {self._world_size} processes; "
                    f"use fewer processes"
                )
            indices = indices[self._rank :: self._world_size]
        _check_batches(indices, batch_size, shuffle=False)
        return Loader(
            self._parts.feeds[part],
            indices,
            order=Order(len(indices), batch_size, self._seed, f"evaluate {split}", shuffle=False),
            views=[self._views.test],
            labels=self._parts.labels[part],
        )

    def attributes(self, split: str) -> Tensor | None:
        """Return int64 [n] on the CPU, in the order of `evaluation(split)`; None where they are not known.

        For what is measured and shown. What trains asks `groups`, and says so in `Method.requires`.
        """
        part, indices = self._locate(split)
        return self._parts.attributes[part][indices] if part in self._parts.attributes else None

    def labels(self, split: str) -> Tensor:
        """Return the labels that `evaluation(split)` serves, int64 [n] on the CPU, in its order."""
        part, indices = self._locate(split)
        return self._parts.labels[part].cpu()[indices]

    def group_counts(self, split: str) -> Tensor | None:
        """Return how many samples of a split each group has, int64 [num_groups]; None where attributes are unknown."""
        attributes = self.attributes(split)
        if attributes is None:
            return None
        groups = group_of(self.labels(split), attributes, num_attributes=self.task.num_attributes)
        return torch.bincount(groups, minlength=self.task.num_groups)

    def train_groups(self, method: Method) -> Tensor:
        """Return the group y * num_attributes + a of the whole training split, y as assigned: int64 [num_train], CPU.

        Raises AssertionError for a method that does not declare in `requires` that it is told groups.
        """
        _check_declared(method)
        return group_of(self.assigned, self._parts.attributes["train"], num_attributes=self.task.num_attributes)

    def groups(self, split: str, method: Method) -> Tensor:
        """Return the groups of a split in the order of `evaluation(split)`, int64 [n], CPU; else as `train_groups`.

        Raises ConfigError where this split's attributes are not known.
        """
        _check_declared(method)
        attributes = self.attributes(split)
        if attributes is None:
            raise ConfigError(f"the attributes of the {split} split are not known, and this method needs them")
        return group_of(self.labels(split), attributes, num_attributes=self.task.num_attributes)

    def derived_metrics(self, measured: Mapping[str, float]) -> dict[str, float]:
        """Return the data set's own metrics that follow from those of an evaluation."""
        return self._source.derived_metrics(measured)

    def fingerprint(self, split: str) -> str:
        """Return a hash of which samples a split holds, in order, and of the labels that the data set gives them.

        "train" stands for the whole training split, whatever the subset, the validation share and the label noise.
        """
        part, rows = ("train", None) if split == "train" else self._locate(split)
        return fingerprint(self._source.split(part), rows)

    def _locate(self, split: str) -> tuple[str, Tensor]:
        """Return the source's split that holds the samples of `split`, read by now, and their places in it."""
        if split == "train":
            return "train", self.train_indices
        if split == "val" and "val" not in self._source.splits:
            if not len(self.val_indices):
                raise ConfigError(
                    "there is no validation split; set dataset.val_fraction, e.g. dataset.val_fraction=0.1"
                )
            return "train", self.val_indices
        self._parts.read(split)
        return split, torch.arange(len(self._parts.labels[split]))


def _check_batches(indices: Tensor, batch_size: int, *, shuffle: bool) -> None:
    """Raise ConfigError where a loader could serve nothing."""
    if batch_size < 1:
        raise ConfigError(f"a batch needs at least 1 sample, got batch size {batch_size}")
    if shuffle and batch_size > len(indices):
        raise ConfigError(
            f"a batch of {batch_size} is larger than the {len(indices)} training samples it is drawn from; "
            "lower trainer.batch_size"
        )


def _check_declared(method: Method) -> None:
    """Fail for a method that asks for groups without saying so, which would make it an oracle in disguise."""
    name = type(method).__name__
    assert "groups" in method.requires, f"{name} asks for groups but does not have 'groups' in `requires`"
