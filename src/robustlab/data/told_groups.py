"""The groups of samples, for methods that declare that they are told them."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.metrics.group_accuracy import group_of


class AsksForGroups(Protocol):
    """A method that may be told groups: it has "groups" in `requires`."""

    @property
    def requires(self) -> frozenset[str]:
        """What the data must provide."""
        ...


def train_groups(data: Data, method: AsksForGroups) -> Tensor:
    """Return the group y * num_attributes + a of the whole training split, y as assigned: int64 [num_train], CPU.

    Raises AssertionError for a method that does not declare in `requires` that it is told groups.
    """
    _check_declared(method)
    attributes = data.train_attributes
    assert attributes is not None, "checked before the method was built: the data provides groups"
    return group_of(data.assigned, attributes, num_attributes=data.task.num_attributes)


def split_groups(data: Data, split: str, method: AsksForGroups) -> Tensor:
    """Return the groups of a split in the order of `Data.evaluation(split)`, int64 [n], CPU; else as `train_groups`.

    Raises ConfigError where this split's attributes are not known.
    """
    _check_declared(method)
    attributes = data.attributes(split)
    if attributes is None:
        raise ConfigError(f"the attributes of the {split} split are not known, and this method needs them")
    return group_of(data.labels(split), attributes, num_attributes=data.task.num_attributes)


def _check_declared(method: AsksForGroups) -> None:
    """Fail for a method that asks for groups without saying so, which would make it an oracle in disguise."""
    name = type(method).__name__
    assert "groups" in method.requires, f"{name} asks for groups but does not have 'groups' in `requires`"
