"""`Diagnostic`: the contract of measurements during training, for any method, and the diagnostics of a run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from omegaconf import DictConfig

from robustlab.config.build import build, need
from robustlab.core.errors import ConfigError
from robustlab.engine.method import Context, Method, Stage

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Table:
    """Rows to be written as CSV, with the headings `columns`."""

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]]


Measured = Mapping[str, "float | Figure | Table"]


@dataclass(frozen=True)
class Clock:
    """The end of an epoch, at which diagnostics are measured.

    - stage: name of the stage; epochs of stages that are not `Stage.observed` have no clock.
    - epoch, epochs: index, counted from zero over all observed stages, and total number of epochs in them.
    - global_step: number of steps so far.
    """

    stage: str
    epoch: int
    epochs: int
    global_step: int

    @property
    def is_last(self) -> bool:
        """Whether no observed epoch follows."""
        return self.epoch + 1 >= self.epochs


def clock_at(stages: Sequence[Stage], number: int, *, epoch: int, global_step: int) -> Clock | None:
    """Return the clock at the end of an epoch of the stage with index `number`; None if it is not observed."""
    if not stages[number].is_observed:
        return None
    observed = [stage.epochs if stage.is_observed else 0 for stage in stages]
    return Clock(stages[number].name, sum(observed[:number]) + epoch, sum(observed), global_step)


class Diagnostic(ABC):
    """Base class of all diagnostics: `measure` inspects the method when `due` and returns values.

    A diagnostic only observes: it leaves weights, buffers, gradients, optimizers and random streams untouched, so that
    a run with it has the same weights as one without. It need not restore train or eval mode, since every step sets it.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    """Properties that the data must provide, e.g. {"clean_labels"}; checked before training."""

    method: Method
    context: Context

    def build(self, method: Method, context: Context) -> None:
        """Store the method, whose learners exist, and prepare everything that depends on the data."""
        self.method, self.context = method, context

    @abstractmethod
    def due(self, clock: Clock) -> bool:
        """Return whether to measure now; must be the same on all ranks."""

    @abstractmethod
    def measure(self, clock: Clock) -> Measured:
        """Return values by name, e.g. {"diagnostics/memorised": 0.2}; called on all ranks, before the evaluation.

        Numbers join the epoch's row of metrics.jsonl. A figure becomes figures/<name>.png, a `Table` tables/<name>.csv
        in the run folder; both replace what they were before.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return the state that later measurements need, tensors and plain types only."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 a diagnostic without state loads none
        """Restore the state that `state_dict` returned."""


def make_diagnostics(cfg: DictConfig) -> dict[str, Diagnostic]:
    """Create the diagnostics of a run from their settings, by name. Raises ConfigError for a bad value."""
    return {
        str(name): need(build(node), Diagnostic, f"diagnostics.{name}", node._target_)
        for name, node in (cfg.get("diagnostics") or {}).items()
    }


def check_diagnostics(diagnostics: Mapping[str, Diagnostic], cfg: DictConfig, provided: frozenset[str]) -> None:
    """Raise ConfigError if the data does not provide what a diagnostic requires."""
    for name, one in diagnostics.items():
        if missing := one.requires - provided:
            raise ConfigError(
                f"diagnostics={name} needs {', '.join(sorted(missing))}, which dataset={cfg.dataset.name} does not "
                f"provide (it provides: {', '.join(sorted(provided)) or 'images and labels only'}); leave it out of "
                "diagnostics=[...]"
            )


def build_diagnostics(cfg: DictConfig, method: Method) -> dict[str, Diagnostic]:
    """Create the diagnostics of a run and build them for its method, which is already built."""
    diagnostics = make_diagnostics(cfg)
    check_diagnostics(diagnostics, cfg, method.context.data.provides)
    for one in diagnostics.values():
        one.build(method, method.context)
    return diagnostics
