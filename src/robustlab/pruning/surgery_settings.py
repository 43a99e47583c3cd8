"""Settings of the removal of units, the node `method.surgery`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from robustlab.core.checks import at_least
from robustlab.core.errors import ConfigError
from robustlab.models.units import RESIDUAL_MODES


@dataclass(frozen=True)
class SurgerySettings:
    """Removal of units.

    - enabled: false counts dead units without removing them.
    - every, start: remove dead units at updates that are multiples of `every`, from update `start` on, and after the
      last epoch.
    - residual: how block outputs are pruned: "per_block" (independently, with selecting skips), "stage_shared" (only
      units that are dead throughout a stage), "inner_only" (not at all).
    - min_width: minimum number of units per set.
    - round_to: widths stay multiples of this.
    - fold_constants: also remove units with a constant non-zero output and fold it into the biases of their readers
      (death.eps is the tolerance).
    - exclude: names of sets that are never pruned.
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
