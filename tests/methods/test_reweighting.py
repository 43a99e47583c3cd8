import pytest
import torch

from robustlab.data.run_data import Data
from robustlab.data.told_groups import train_groups
from robustlab.methods.groups.reweighting import RWG, SUBG, balanced_choice
from tests.data.grouped_source import Grouped, ThreeWay, biased
from tests.methods.harness import make_context


def built(method, *, seed: int = 0):
    data = Data(Grouped(ThreeWay(70), biased), seed=seed, views={"weak": []})
    method.build(make_context(data, epochs=2, batch_size=4, seed=seed))
    return method, train_groups(data, method)


def served(method, epochs: int) -> torch.Tensor:
    stage = method.stages()[0]
    return torch.cat([batch.index for epoch in range(epochs) for batch in method.batches(stage, epoch, 0)])


def test_rwg_draws_groups_alike():
    method, groups = built(RWG())
    assert torch.bincount(groups).tolist() == [30, 5, 5, 30]
    shares = torch.bincount(groups[served(method, 40)]) / (40 * 70)
    assert shares.tolist() == pytest.approx([0.25] * 4, abs=0.03)


def test_subg_takes_as_many_of_each_group_as_the_smallest_has():
    method, groups = built(SUBG())
    assert method.steps_per_epoch(method.stages()[0], 0) == 5
    assert torch.bincount(groups[method.indices]).tolist() == [5, 5, 5, 5]
    for epoch in range(2):
        assert torch.equal(served(method, epoch + 1)[20 * epoch :].sort().values, method.indices)
    again, other = built(SUBG())[0], built(SUBG(), seed=1)[0]
    assert torch.equal(again.indices, method.indices)
    assert not torch.equal(other.indices, method.indices)


def test_a_balanced_choice_leaves_out_groups_that_do_not_occur():
    groups = torch.tensor([5, 0, 5, 5, 0, 2, 2])
    places = balanced_choice(groups, key=3)
    assert groups[places].sort().values.tolist() == [0, 0, 2, 2, 5, 5]
    assert torch.equal(places, places.sort().values)
