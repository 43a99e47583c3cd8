"""A floor for the penalty: a given number of units in each set is never penalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from robustlab.models.units import Units


class Floor:
    """Exempts the strongest units of each set from the penalty, so that it stops at `count` live units.

    The strength of a unit is the sum of the absolute values of its penalised parameters (|gamma| if the penalty is on
    scales). The strongest units are determined again in every update, since all units of a set can die between two
    checks. A set with at most `count` live units is not penalised at all. Parameters outside all sets are not exempt.

    - parameters: the penalised parameters.
    - idle: set -> (current width,) bool, units that are present but dead, which are not exempt.
    """

    def __init__(
        self,
        network: nn.Module,
        units: Units,
        parameters: Sequence[nn.Parameter],
        *,
        count: int,
        idle: Mapping[str, Tensor],
    ) -> None:
        place = {id(parameter): index for index, parameter in enumerate(parameters)}
        self.parameters, self.count = parameters, count
        self.sets: list[tuple[list[int], Tensor]] = []
        for one in units.sets:
            modules = [network.get_submodule(path) for path in one.writers]
            written = [parameter for module in modules for parameter in module.parameters(recurse=False)]
            rows = [place[id(parameter)] for parameter in written if id(parameter) in place]
            if rows:
                self.sets.append((rows, idle[one.name].to(parameters[rows[0]].device)))

    @torch.no_grad()
    def factors(self) -> dict[int, Tensor]:
        """Return position of the parameter in the list -> (rows,) float, 0 for exempt units and 1 for others."""
        found: dict[int, Tensor] = {}
        for rows, idle in self.sets:
            strength = torch.stack(
                [self.parameters[row].abs().reshape(len(self.parameters[row]), -1).sum(1) for row in rows]
            ).sum(0)
            strongest = strength.masked_fill(idle, -1.0).topk(min(self.count, len(strength))).indices
            factor = torch.ones_like(strength).index_fill(0, strongest, 0.0)
            found |= dict.fromkeys(rows, factor)
        return found
