"""Declare the removable units of a network: unit sets, their writers and readers, and the skips between them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from torch import nn

from robustlab.core.errors import ConfigError

FEATURES = "<features>"
"""Placeholder in `Reader.module` for readers of a trunk's pooled features, which `TwoHeads` replaces by its heads."""

RESIDUAL_MODES = ("per_block", "stage_shared", "inner_only")


@dataclass(frozen=True)
class Reader:
    """A convolution or linear layer whose input axis is a unit set.

    - columns: input columns per unit; H * W for feature maps flattened in NCHW order, where unit c owns the columns
      c * H * W ... (c + 1) * H * W - 1.
    """

    module: str
    columns: int = 1


@dataclass(frozen=True)
class UnitSet:
    """The units (channels) of one registered activation, or of several that share a width.

    - name: stable and unique within a network; appears in logs, checkpoints and `surgery.exclude`.
    - width: number of units in the unpruned network.
    - activations: paths of the activation modules whose outputs are tested; a unit is dead if it is dead in all of
      them.
    - writers: paths of the modules whose output axis is the set: convolution or linear layer, norm, and for a block's
      output also the shortcut.
    - readers: the modules that take the set as input.
    - residual: whether the set is a residual stream (the output of a stem or block) that other blocks' skips carry on.
    """

    name: str
    width: int
    activations: tuple[str, ...]
    writers: tuple[str, ...]
    readers: tuple[Reader, ...]
    residual: bool = False

    @property
    def paths(self) -> list[str]:
        """Paths of all modules that have the set as an axis."""
        return [*self.writers, *(reader.module for reader in self.readers)]


@dataclass(frozen=True)
class Skip:
    """An identity skip: the `Selector` at `module` carries set `source` to the channels of set `target`.

    - target: None if the skip ends in channels that are never removed, as many as `source` had (the raw output of a
      pre-activation network's last block).
    """

    module: str
    source: str
    target: str | None


@dataclass(frozen=True)
class Units:
    """All unit sets of a network, in forward order, and its identity skips; declared by models in `units()`."""

    sets: tuple[UnitSet, ...]
    skips: tuple[Skip, ...] = ()

    def __post_init__(self) -> None:
        """Check the names."""
        names = [one.name for one in self.sets]
        assert len(set(names)) == len(names), "names of unit sets must be unique"
        assert {end for skip in self.skips for end in (skip.source, skip.target)} <= {*names, None}

    def __getitem__(self, name: str) -> UnitSet:
        """Return the set with this name."""
        return next(one for one in self.sets if one.name == name)

    @property
    def total(self) -> int:
        """Number of units in the unpruned network."""
        return sum(one.width for one in self.sets)

    def within(self, prefix: str, *, heads: Sequence[str]) -> Units:
        """Return the same units with paths relative to a parent module; the names of sets stay.

        - prefix: name of the declaring module within the parent.
        - heads: modules of the parent that read FEATURES.
        """

        def readers(found: Iterable[Reader]) -> tuple[Reader, ...]:
            return tuple(
                replace(reader, module=module)
                for reader in found
                for module in (heads if reader.module == FEATURES else [f"{prefix}.{reader.module}"])
            )

        def paths(found: Iterable[str]) -> tuple[str, ...]:
            return tuple(f"{prefix}.{path}" for path in found)

        return Units(
            tuple(
                replace(
                    one,
                    activations=paths(one.activations),
                    writers=paths(one.writers),
                    readers=readers(one.readers),
                )
                for one in self.sets
            ),
            tuple(replace(skip, module=f"{prefix}.{skip.module}") for skip in self.skips),
        )

    def in_mode(self, residual: str) -> Units:
        """Return the sets that a residual mode prunes.

        - residual: "per_block": every block output has its own width, and skips select channels. "stage_shared": sets
          joined by identity skips become one, whose units are removed only if dead everywhere; sets joined to channels
          that are never removed are left out. "inner_only": residual streams are never pruned.

        Raises `ConfigError` for any other mode.
        """
        if residual not in RESIDUAL_MODES:
            raise ConfigError(f"method.surgery.residual={residual} is not one of {', '.join(RESIDUAL_MODES)}")
        if residual == "per_block":
            return self
        if residual == "inner_only":
            return Units(tuple(one for one in self.sets if not one.residual))
        group = {one.name: one.name for one in self.sets}
        for skip in self.skips:
            if skip.target is not None:
                old, new = group[skip.target], group[skip.source]
                group = {name: new if head == old else head for name, head in group.items()}
        fixed = {group[skip.source] for skip in self.skips if skip.target is None}
        merged = []
        for head in dict.fromkeys(head for head in group.values() if head not in fixed):
            parts = [one for one in self.sets if group[one.name] == head]
            merged.append(
                replace(
                    parts[0],
                    activations=tuple(path for part in parts for path in part.activations),
                    writers=tuple(path for part in parts for path in part.writers),
                    readers=tuple(reader for part in parts for reader in part.readers),
                )
            )
        return Units(tuple(merged))


def units_of(network: nn.Module) -> Units:
    """Return the units that a network declares in `units()`, after checking them.

    Raises `ConfigError` for a network that declares none, and for units that a LayerNorm or GroupNorm mixes over the
    channel axis, where dropping even a zero channel changes mean and variance.
    """
    declare = getattr(network, "units", None)
    units = declare() if callable(declare) else None
    if not isinstance(units, Units) or not units.sets:
        raise ConfigError(
            f"{type(getattr(network, 'trunk', network)).__name__} declares no units that could be removed"
            f"{_tied_channels(network)}; prune one of model=resnet18, resnet50, preact_resnet18, resnet_small, vgg16, "
            "mlp, small_cnn, a ResNet from torchvision or timm, or a ViT from timm, or make the model's trunk declare "
            "its units in units() (see pruning/units.py)"
        )
    for one in units.sets:
        for path in one.writers:
            module = network.get_submodule(path)
            if isinstance(module, nn.LayerNorm | nn.GroupNorm):
                raise ConfigError(
                    f"the units of {one.name} feed {type(module).__name__} {path}, which normalises over channels: "
                    "removing one changes the others. Use BatchNorm or no norm (model.norm=batch)"
                )
    return units


def _tied_channels(network: nn.Module) -> str:
    """Return a phrase about the first depthwise or grouped convolution, or an empty string."""
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.groups > 1:
            kind = "depthwise" if module.groups == module.in_channels else f"in {module.groups} groups"
            return f", and {path} is a convolution {kind}, whose channels cannot be removed one by one"
    return ""
