import pytest
import torch

from robustlab.core.runtime import Runtime
from robustlab.pruning.samples import Samples
from tests.methods.harness import make_context, make_data


def make_samples(*, train, batch_size, runtime=None):
    context = make_context(make_data(train=train, noise=0.0), epochs=1, batch_size=16)
    return Samples(context.data, runtime or context.runtime, seed=context.seed, batch_size=batch_size)


@pytest.mark.parametrize("number", [70, 200, 10**6, None])
def test_ranks_share_the_batches_of_one_process(number):
    whole = list(make_samples(train=200, batch_size=32).batches(number))
    assert sum(map(len, whole)) == min(number or 200, 200)
    found = []
    for rank in range(9):  # more than there are batches
        runtime = Runtime(torch.device("cpu"), rank=rank, world_size=9)
        samples = make_samples(train=200, batch_size=32, runtime=runtime)
        found.append(list(samples.batches(number, share=True)))
    assert all(len(batches) <= 1 for batches in found)
    pairs = zip(whole, [batch for batches in found for batch in batches], strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_larger_number_adds_images_and_takes_none_away():
    samples = make_samples(train=200, batch_size=300)
    few, many = next(samples.batches(20)), next(samples.batches(60))
    assert all(bool((many == image).flatten(1).all(dim=1).any()) for image in few)


def test_disagreement_is_the_share_of_other_classes():
    samples = make_samples(train=20, batch_size=8)
    before = {"train": torch.tensor([0, 1, 2, 3]), "test": torch.tensor([1, 1])}
    after = {"train": torch.tensor([0, 1, 2, 0]), "test": torch.tensor([1, 1])}
    assert samples.disagreement(before, after) == {"train": 0.25, "test": 0.0}
