from dataclasses import replace

import pytest
import torch

from robustlab.core.runtime import Runtime
from robustlab.pruning.samples import Samples
from tests.methods.harness import make_context, make_data


@pytest.mark.parametrize("number", [70, 200, 10**6, None])
def test_ranks_share_the_batches_of_one_process(number):
    context = make_context(make_data(train=200, noise=0.0), epochs=1, batch_size=16)
    whole = list(Samples(context, batch_size=32).batches(number))
    assert sum(map(len, whole)) == min(number or 200, 200)
    found = []
    for rank in range(9):  # more than there are batches
        runtime = Runtime(torch.device("cpu"), rank=rank, world_size=9)
        found.append(list(Samples(replace(context, runtime=runtime), batch_size=32).batches(number, share=True)))
    assert all(len(batches) <= 1 for batches in found)
    pairs = zip(whole, [batch for batches in found for batch in batches], strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_larger_number_adds_images_and_takes_none_away():
    samples = Samples(make_context(make_data(train=200, noise=0.0), epochs=1, batch_size=16), batch_size=300)
    few, many = next(samples.batches(20)), next(samples.batches(60))
    assert all(bool((many == image).flatten(1).all(dim=1).any()) for image in few)


def test_disagreement_is_the_share_of_other_classes():
    samples = Samples(make_context(make_data(train=20, noise=0.0), epochs=1, batch_size=16), batch_size=8)
    before = {"train": torch.tensor([0, 1, 2, 3]), "test": torch.tensor([1, 1])}
    after = {"train": torch.tensor([0, 1, 2, 0]), "test": torch.tensor([1, 1])}
    assert samples.disagreement(before, after) == {"train": 0.25, "test": 0.0}
