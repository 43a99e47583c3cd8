"""Units exempt from the penalty."""

import pytest
import torch
from torch import nn

from robustlab.models.units import Reader, Units, UnitSet
from robustlab.pruning.floor import Floor
from robustlab.pruning.penalty import add_gradient, targeted

UNITS = Units(
    (
        UnitSet("a", 4, ("2",), ("0", "1"), (Reader("3"),)),
        UnitSet("b", 3, ("5",), ("3", "4"), (Reader("6"),)),
    )
)


def network() -> nn.Sequential:
    made = nn.Sequential(
        nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.ReLU(), nn.Linear(3, 2)
    )
    made[1].weight.data = torch.tensor([0.1, -0.9, 0.5, 0.2])
    made[4].weight.data = torch.tensor([0.3, 0.2, 0.1])
    return made


def none_idle() -> dict[str, torch.Tensor]:
    return {one.name: torch.zeros(one.width, dtype=torch.bool) for one in UNITS.sets}


def gradients(made: nn.Sequential, *, target="scale_only", kind="l1", **options) -> dict[str, list]:
    penalised = targeted(made, UNITS, target)
    floor = Floor(made, UNITS, penalised, **{"idle": none_idle(), **options})
    add_gradient(penalised, kind, 2.0, factors=floor.factors())
    return {name: one.grad.tolist() for name, one in made.named_parameters() if one.grad is not None}


def test_the_largest_scales_of_each_set_are_spared():
    found = gradients(network(), count=2)
    assert found == {"1.weight": [2.0, 0.0, 0.0, 2.0], "4.weight": [0.0, 0.0, 2.0]}


def test_a_set_of_no_more_live_units_than_the_floor_is_not_penalised():
    assert gradients(network(), count=3) == {"1.weight": [2.0, 0.0, 0.0, 0.0], "4.weight": [0.0] * 3}


def test_idle_units_are_not_among_the_live():
    idle = none_idle()
    idle["a"][1] = True
    assert gradients(network(), count=2, idle=idle)["1.weight"] == [2.0, -2.0, 0.0, 0.0]


@pytest.mark.parametrize("kind", ["l1", "l2"])
def test_all_that_is_penalised_of_a_unit_is_spared_and_what_belongs_to_no_set_never(kind):
    made = network()
    for parameter in made.parameters():
        parameter.data.fill_(0.5)
    made[0].weight.data[2] = 3.0
    found = gradients(made, target="all", count=1, kind=kind)
    assert found["0.weight"][2] == found["0.weight"][2] == [0.0, 0.0]
    for name in ("0.bias", "1.weight", "1.bias"):
        assert [value == 0 for value in found[name]] == [False, False, True, False], name
    assert all(value > 0 for row in found["6.weight"] for value in row)
    assert sum(value == 0 for value in found["4.weight"]) == 1
