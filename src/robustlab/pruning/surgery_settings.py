"""How units are removed: the node `method.surgery`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from robustlab.core.checks import at_least
from robustlab.core.errors import ConfigError
from robustlab.models.units import RESIDUAL_MODES


@dataclass(frozen=True)
class SurgerySettings:
    """Removal of units. enabled: false counts dead units and removes none.

    every, start: dead units go at updates that are a multiple of `every`, from update `start` on, and after the last
    epoch. residual: how blocks' outputs are pruned: "per_block" (each by itself, skips select), "stage_shared" (only
    where dead all along a stage), "inner_only" (not at all). min_width: units of a set that always stay. round_to:
    widths stay multiples of it. fold_constants: units with a constant output other than 0 go, too, and leave it in the
    biases of what reads them (death.eps is the variation allowed). exclude: names of sets left whole.
    """

    enabled: bool = True
    every: int = 100
    start: int = 0
    residual: Literal["per_block", "stage_shared", "inner_only"] = "per_block"
    min_width: int = 1
    round_to: int = 1
    fold_constants: bool = False
    exclude: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("every", "min_width", "round_to"):
            at_least(f"surgery.{name}", getattr(self, name), 1)
        at_least("surgery.start", self.start, 0)
        if self.residual not in RESIDUAL_MODES:
            raise ConfigError(
                f"method.surgery.residual is {self.residual!r}; it must be one of {', '.join(RESIDUAL_MODES)}"
            )
        object.__setattr__(self, "exclude", tuple(self.exclude))
