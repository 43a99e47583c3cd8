import math

import pytest
import torch
import torch.nn.functional as F

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.data.told_groups import train_groups
from robustlab.methods.erm import ERM
from robustlab.methods.groups.groupdro import GroupDRO
from robustlab.methods.groups.reweighting import RWG
from tests.data.grouped_source import Grouped, ThreeWay, biased
from tests.methods.harness import assert_equal, make_context, run, snapshot


def absent(name, labels):
    """Nobody has label 1 and attribute 0."""
    return torch.where(labels == 1, 1, biased(name, labels))


def built(method, *, attribute=biased):
    data = Data(Grouped(ThreeWay(70), attribute), seed=0, views={"weak": []})
    method.build(make_context(data, epochs=2, batch_size=10))
    return method


def group_losses(method, batch) -> dict[int, float]:
    """Mean loss of each group that the batch holds."""
    with torch.no_grad():
        logits = method.learners["network"].network.train()(batch.images)
    losses = F.cross_entropy(logits, batch.targets, reduction="none")
    groups = train_groups(method.context.data, method)[batch.index]
    return {group: losses[groups == group].mean().item() for group in groups.unique().tolist()}


@pytest.mark.parametrize("adjustment", [0.0, 2.0])
def test_q_moves_by_the_losses_of_a_batch_and_the_adjustment_of_every_group(adjustment):
    method = built(GroupDRO(step=0.5, adjustment=adjustment))
    counts = torch.bincount(train_groups(method.context.data, method)).tolist()
    wanted = [0.25] * 4
    missing = 0

    def check(batch, position):
        nonlocal wanted, missing
        losses = group_losses(method, batch)
        missing += 4 - len(losses)
        moved = [q * math.exp(0.5 * (losses.get(g, 0.0) + adjustment / counts[g] ** 0.5)) for g, q in enumerate(wanted)]
        wanted = [q / sum(moved) for q in moved]
        expected.append(sum(wanted[g] * loss for g, loss in losses.items()))

    expected: list[float] = []
    ends = run(method, before=check)
    assert method.q.tolist() == pytest.approx(wanted, rel=1e-4)
    assert ends[-1]["loss"] == pytest.approx(expected[-1], rel=1e-4)
    assert missing > 0  # else nothing was tested about groups that are absent
    names = method.context.task.group_names
    assert {name: ends[-1][f"q/{name}"] for name in names} == pytest.approx(dict(zip(names, wanted, strict=True)))


def test_a_group_that_does_not_occur_has_no_weight():
    method = built(GroupDRO(adjustment=1.0), attribute=absent)
    assert method.q.tolist() == pytest.approx([1 / 3, 1 / 3, 0, 1 / 3])
    run(method)
    assert method.q[2] == 0
    assert method.q.sum().item() == pytest.approx(1)


@pytest.mark.parametrize(("balanced", "same"), [(True, RWG), (False, ERM)])
def test_without_its_loss_it_is_what_its_sampler_is(balanced, same):
    ends = []
    for method in (GroupDRO(robust=False, balanced=balanced), same()):
        run(built(method))
        ends.append(snapshot(method)["learners"])
    assert_equal(*ends)


def test_the_two_switches_are_apart():
    shuffled = built(GroupDRO(balanced=False))
    stage = shuffled.stages()[0]
    index = torch.cat([batch.index for batch in shuffled.batches(stage, 0, 0)])
    assert torch.equal(index.sort().values, torch.arange(70))
    drawn = torch.cat([batch.index for batch in built(GroupDRO()).batches(stage, 0, 0)])
    assert len(drawn) == 70
    assert len(drawn.unique()) < 70


@pytest.mark.parametrize("options", [{"step": -0.1}, {"adjustment": -1.0}])
def test_values_out_of_range(options):
    with pytest.raises(ConfigError, match=f"method.{next(iter(options))}"):
        GroupDRO(**options)
