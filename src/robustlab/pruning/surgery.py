"""`Surgeon`: removes units from a network, its copies and its optimizer, and tracks which original units are left."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from robustlab.core.errors import ConfigError
from robustlab.models.heads import TwoHeads
from robustlab.models.skip import Selector
from robustlab.models.units import Units
from robustlab.pruning.cuttable import check_settings, check_state, check_units
from robustlab.pruning.slicing import Cuts, cut_module, expanded

WRITTEN = ("weight", "bias", "running_mean", "running_var")


class Surgeon:
    """Removes units permanently (DemP, section 4): the smaller network computes the same function as without them.

    For every set that loses units, the same positions are cut from:

    - its writers: axis 0 of weight and bias, and of a BatchNorm also running mean and variance
      (`num_batches_tracked` stays);
    - its readers: axis 1 of the weight, `Reader.columns` columns per unit;
    - the optimizer: every state tensor of the parameter's shape (momentum, both moments and their maxima; scalars such
      as the step count stay), and gradients if there are any. Cut parameters are new objects in their old positions of
      `param_groups`, so schedulers keep working, but other holders of parameters must fetch them again;
    - the same tensors of `copies` (moving averages of the weights);
    - size attributes of modules: `num_features`, `in_channels`, `out_features` ..., `TwoHeads.feature_dim`;
    - skips: `Selector` modules between sets are reconnected.

    A set never becomes narrower than `min_width` (layers of width 0 do not work), and its width is rounded up to a
    multiple of `round_to` (tensor cores prefer 8). Units that remain only for this reason are `idle`: they count as
    dead. Sets named in `exclude` are never pruned.

    - units: units of the unpruned `network`, in the residual mode to prune (`Units.in_mode`).
    - original: widths of the sets before any removal.
    - live: set -> original indices of the units physically present, (width,) int64 on the CPU, ascending.
    - idle: set -> (width,) bool on the CPU.

    Raises `ConfigError` for units that cannot be cut and for unknown names in `exclude`.
    """

    def __init__(
        self,
        network: nn.Module,
        units: Units,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        copies: Sequence[nn.Module] = (),
        min_width: int = 1,
        round_to: int = 1,
        exclude: Sequence[str] = (),
    ) -> None:
        self.network, self.units, self.optimizer, self.copies = network, units, optimizer, tuple(copies)
        self.min_width, self.round_to, self.exclude = min_width, round_to, frozenset(exclude)
        check_settings(units, min_width=min_width, round_to=round_to, exclude=exclude)
        check_units(network, units, exclude=exclude)
        self.original = {one.name: one.width for one in units.sets}
        self.live = {name: torch.arange(width) for name, width in self.original.items()}
        self.idle = {name: torch.zeros(width, dtype=torch.bool) for name, width in self.original.items()}
        self._norm_after = _norms_after(network, units)

    @property
    def removed(self) -> int:
        """Number of units that have been physically removed."""
        return sum(width - len(self.live[name]) for name, width in self.original.items())

    def live_counts(self) -> dict[str, int]:
        """Return the number of live units in each set: present and not idle."""
        return {name: int((~idle).sum()) for name, idle in self.idle.items()}

    def neuron_sparsity(self) -> float:
        """Return the share of all units that are removed or idle."""
        return 1 - sum(self.live_counts().values()) / sum(self.original.values())

    def layer_sparsity(self) -> dict[str, float]:
        """Return the share of each set's units that are removed or idle."""
        return {name: 1 - live / self.original[name] for name, live in self.live_counts().items()}

    def is_news(self, dead: Mapping[str, Tensor]) -> bool:
        """Return whether `dead` (set -> (current width,) bool) contains anything that is not already idle."""
        there = {name: mask for name, mask in dead.items() if name not in self.exclude}
        return any(not torch.equal(mask.cpu(), self.idle[name]) for name, mask in there.items())

    def remove(self, dead: Mapping[str, Tensor], *, constants: Mapping[str, Tensor] | None = None) -> int:
        """Remove units and return the number physically removed by this call.

        An idle unit that is no longer dead counts as live again. If some dead units must remain because of `min_width`
        and `round_to`, those that died most recently (were not idle before) remain first, then the lowest indices.

        - dead: set -> (current width,) bool, the same on all ranks; sets not listed keep their units.
        - constants: set -> output of each unit for all inputs, (current width,) float. For removed units it is folded
          into their readers: added to a reader's bias or, if it has none, subtracted from the running mean of the
          BatchNorm after it (DemP, section 4.6). This is exact for linear and 1x1 readers, but not at zero-padded
          borders of larger kernels. Nothing is folded, and the function changes, if a reader has neither bias nor
          BatchNorm, and along skips.
        """
        keep: dict[str, Tensor] = {}
        for name, mask in dead.items():
            if name in self.exclude:
                continue
            mask = mask.cpu()
            assert mask.dtype == torch.bool
            assert mask.shape == self.idle[name].shape, f"{name} has {len(self.idle[name])} units, not {len(mask)}"
            keep[name] = self._kept(mask, self.idle[name])
        self._check_state(name for name, kept in keep.items() if not kept.all())
        for name, kept in keep.items():
            if constants is not None and name in constants and not kept.all():
                self._fold(name, ~kept, constants[name])
        before = self.removed
        self._cut({name: kept.nonzero().flatten() for name, kept in keep.items()})
        for name, kept in keep.items():
            self.idle[name] = dead[name].cpu()[kept]
        return self.removed - before

    def state_dict(self) -> dict[str, Any]:
        """Return the units that are present: {"live": set -> int64 tensor, "idle": set -> bool tensor}."""
        return {"live": dict(self.live), "idle": dict(self.idle)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Cut network, copies and optimizer to the units in `state`; load their tensors afterwards.

        Raises `ConfigError` if the network has other sets, or has lost units that `state` has.
        """
        live = state["live"]
        fits = live.keys() == self.live.keys()
        if not fits or not all(bool(torch.isin(live[name], self.live[name]).all()) for name in live):
            raise ConfigError(
                f"the saved units ({_summary(live)}) are not among those of this network ({_summary(self.live)}); "
                "build it with the model and method.surgery.residual of the run that saved them"
            )
        self._cut({name: torch.isin(self.live[name], live[name]).nonzero().flatten() for name in live})
        self.idle = dict(state["idle"])

    def check_optimizer(self) -> None:
        """Raise `ConfigError` if the optimizer's state cannot be cut; there is no state before the first update."""
        self._check_state(self.original.keys() - self.exclude)

    def _kept(self, dead: Tensor, idle: Tensor) -> Tensor:
        """Return the units to keep, (width,) bool: live units, plus dead ones up to the minimum width."""
        wanted = max(int((~dead).sum()), self.min_width)
        wanted = min(-(-wanted // self.round_to) * self.round_to, len(dead))
        order = (2 * dead.int() + (dead & idle).int()).argsort(stable=True)  # live, newly dead, long dead
        kept = torch.zeros_like(dead)
        kept[order[:wanted]] = True
        return kept

    def _cut(self, keep: Mapping[str, Tensor]) -> None:
        """Cut every tensor once to the given positions of each set; the caller must set `idle`."""
        keep = {name: kept for name, kept in keep.items() if len(kept) < len(self.live[name])}
        if not keep:
            return
        cuts: dict[str, dict[str, dict[int, Tensor]]] = {}
        for name, kept in keep.items():
            for path in self.units[name].writers:
                module = self.network.get_submodule(path)
                for tensor in WRITTEN:
                    if getattr(module, tensor, None) is not None:
                        cuts.setdefault(path, {}).setdefault(tensor, {})[0] = kept
            for reader in self.units[name].readers:
                cuts.setdefault(reader.module, {}).setdefault("weight", {})[1] = expanded(kept, reader.columns)
            self.live[name] = self.live[name][kept]
        self._apply(self.network, cuts, self.optimizer)
        for copy in self.copies:
            self._apply(copy, cuts, None)

    @torch.no_grad()
    def _apply(
        self, network: nn.Module, cuts: Mapping[str, Mapping[str, Cuts]], optimizer: torch.optim.Optimizer | None
    ) -> None:
        for path, wanted in cuts.items():
            cut_module(network.get_submodule(path), wanted, optimizer)
        device = next(network.parameters()).device
        for skip in self.units.skips:
            selector = network.get_submodule(skip.module)
            assert isinstance(selector, Selector)
            whole = torch.arange(self.original[skip.source])
            target = whole if skip.target is None else self.live[skip.target]
            selector.connect(self.live[skip.source], target, device=device)
        for module in network.modules():
            if isinstance(module, TwoHeads):
                module.feature_dim = module.classifier.in_features

    @torch.no_grad()
    def _fold(self, name: str, gone: Tensor, values: Tensor) -> None:
        positions = gone.nonzero().flatten()
        for network in (self.network, *self.copies):
            for reader in self.units[name].readers:
                module = network.get_submodule(reader.module)
                assert isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d)
                weight = module.weight.unsqueeze(2).flatten(2).sum(2)  # sum over the kernel; 1 for a linear layer
                columns = expanded(positions, reader.columns).to(weight.device)
                shift = weight[:, columns] @ values.to(weight)[positions].repeat_interleave(reader.columns)
                norm = self._norm_after.get(reader.module)
                if module.bias is not None:
                    module.bias.add_(shift)
                elif norm is not None:
                    mean = network.get_submodule(norm).running_mean
                    if isinstance(mean, Tensor):  # without one, each batch's mean removes the constant
                        mean -= shift

    def _check_state(self, names: Iterable[str]) -> None:
        if self.optimizer is None:
            return
        for path in dict.fromkeys(path for name in names for path in self.units[name].paths):
            check_state(self.optimizer, self.network.get_submodule(path), path)


def _norms_after(network: nn.Module, units: Units) -> dict[str, str]:
    """Return path of each convolution or linear layer that writes units -> path of the BatchNorm that follows it.

    This is the next BatchNorm among the set's writers, which are in forward order. Residual modes omit sets, so all of
    the network's sets are used here.
    """
    declare = getattr(network, "units", None)
    declared = declare() if callable(declare) else units
    assert isinstance(declared, Units)
    found: dict[str, str] = {}
    for one in declared.sets:
        norm: str | None = None
        for path in reversed(one.writers):
            if isinstance(network.get_submodule(path), _BatchNorm):
                norm = path
            elif norm is not None:
                found[path] = norm
    return found


def _summary(live: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name}: {len(indices)}" for name, indices in live.items())
