"""Passes that draw with replacement: the same wherever they start, with as many draws as samples."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.data.run_data import Data
from robustlab.data.serving.order import Order, WeightedOrder
from robustlab.data.transforms.augment import Flip
from robustlab.data.transforms.decode import RandomResizedCrop, ResizeCenterCrop
from tests.data.test_loader import VIEWS, same
from tests.data.toy_source import Toy

WEIGHTS = torch.tensor([1.0, 0.0, 3.0, 0.0] * 10, dtype=torch.float64)


def loader(data: Data | None = None, **arguments):
    data = Data(Toy(40), seed=3, views=VIEWS) if data is None else data
    arguments = {"batch_size": 7, "views": ("weak", "strong"), "purpose": "train", "weights": WEIGHTS} | arguments
    return data.loader(**arguments)


def drawn(batches) -> torch.Tensor:
    return torch.cat([batch.index for batch in batches])


def test_the_draws_depend_on_seed_purpose_epoch_and_cycle_and_on_nothing_else():
    def order(seed=1, purpose="p", batch_size=8, weights=WEIGHTS):
        return WeightedOrder(40, batch_size, seed, purpose, weights=weights)

    reference = order().permutation(epoch=2, cycle=0)
    assert torch.equal(reference, order(batch_size=13).permutation(epoch=2, cycle=0))
    assert torch.equal(reference, order(weights=WEIGHTS.clone()).permutation(epoch=2, cycle=0))
    others = [
        order().permutation(epoch=3, cycle=0),
        order().permutation(epoch=2, cycle=1),
        order(seed=2).permutation(epoch=2, cycle=0),
        order(purpose="q").permutation(epoch=2, cycle=0),
    ]
    assert not any(torch.equal(reference, other) for other in others)


def test_an_epoch_has_as_many_draws_as_there_are_samples_and_its_own_ones():
    batches = list(loader().epoch(0))
    assert len(batches) == len(loader()) == 6
    assert sum(map(len, batches)) == 40
    assert len(drawn(batches).unique()) < 20  # with replacement, from the twenty with a weight
    assert same(batches, loader().epoch(0))
    assert not torch.equal(drawn(batches), drawn(loader().epoch(1)))
    for batch in batches:
        assert batch.targets is not None
        assert torch.equal(batch.targets, batch.index % 4)


def test_each_sample_is_drawn_as_often_as_its_weight_says():
    order = WeightedOrder(40, 8, 0, "p", weights=WEIGHTS)
    draws = torch.cat([order.permutation(epoch=epoch, cycle=0) for epoch in range(500)])
    counts = torch.bincount(draws, minlength=40)
    expected = 500 * 40 * WEIGHTS / WEIGHTS.sum()
    assert (counts[WEIGHTS == 0] == 0).all()
    chi_square = ((counts - expected) ** 2 / expected)[WEIGHTS > 0].sum()
    assert chi_square < 43.8  # 99.9 % point of 19 degrees of freedom


def test_weights_belong_to_the_indices_that_are_given():
    indices = torch.tensor([30, 10, 20])
    weights = torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)
    assert drawn(loader(indices=indices, weights=weights, batch_size=3).epoch(0)).tolist() == [10, 10, 10]


@settings(max_examples=25)
@given(start=st.integers(0, 12), steps=st.integers(1, 12), batch_size=st.sampled_from([3, 7, 10]))
def test_a_start_in_mid_epoch_gives_the_tail_of_the_epoch(start, steps, batch_size):
    whole = list(loader(batch_size=batch_size).epoch(1, steps=steps))
    assert same(loader(batch_size=batch_size).epoch(1, start=start, steps=steps), whole[start:])


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_draws_and_their_augmentation(world_size):
    whole = loader(batch_size=11)
    ranks = [
        loader(Data(Toy(40), seed=3, views=VIEWS, rank=rank, world_size=world_size), batch_size=11)
        for rank in range(world_size)
    ]
    for batch, *shares in zip(whole.epoch(1), *(one.epoch(1) for one in ranks), strict=True):
        for rank, share in enumerate(shares):
            assert torch.equal(share.index, batch.index[rank::world_size])
            assert all(torch.equal(a, b[rank::world_size]) for a, b in zip(share.views, batch.views, strict=True))


def lone(**arguments):
    """A loader that draws nothing but sample 5."""
    weights = torch.zeros(40, dtype=torch.float64)
    weights[5] = 1.0
    return loader(Data(Toy(40, lazy=True), seed=3, **arguments), views=("weak",), weights=weights, batch_size=40)


@pytest.mark.parametrize("storage", ["resident", "streaming"])
def test_draws_of_one_sample_are_augmented_independently(storage):
    images = next(lone(storage=storage, views={"weak": [Flip()]}).epoch(0)).images
    assert len(images) == 40
    assert 10 < sum(torch.equal(image, images[0]) for image in images) < 30  # of two possible pictures
    assert len(images.flatten(1).unique(dim=0)) == 2


@pytest.mark.parametrize("workers", [0, 1])
def test_draws_of_one_sample_are_cropped_independently(workers):
    crops = {"train": RandomResizedCrop(size=8, scale=(0.3, 1.0)), "eval": ResizeCenterCrop(resize=8, size=8)}
    streaming = lone(storage="streaming", decode=crops, workers=workers, views={"weak": []})
    first, again = (next(streaming.epoch(0)).images for _ in range(2))
    assert torch.equal(first, again)
    assert len(first.flatten(1).unique(dim=0)) > 20  # of 8 x 8 pixels there are not many crops


@pytest.mark.parametrize("workers", [0, 2])
def test_streaming_equals_resident_bit_by_bit(workers):
    streaming = Data(Toy(40, lazy=True), seed=3, views=VIEWS, storage="streaming", workers=workers)
    assert same(loader(streaming).epoch(1, steps=8), loader().epoch(1, steps=8))


@pytest.mark.parametrize(
    "weights",
    [
        torch.ones(39, dtype=torch.float64),
        torch.ones(40),
        torch.zeros(40, dtype=torch.float64),
        torch.full((40,), -1.0, dtype=torch.float64),
        torch.full((40,), float("nan"), dtype=torch.float64),
        torch.full((40,), float("inf"), dtype=torch.float64),
    ],
)
def test_weights_without_probabilities_are_refused(weights):
    with pytest.raises(AssertionError):
        loader(weights=weights)


def test_without_weights_a_pass_is_what_it_was():
    plain = Order(40, 7, 3, "train")
    assert not plain.repeats
    assert torch.equal(drawn(loader(weights=None).epoch(2)), plain.permutation(epoch=2, cycle=0))


def test_a_sample_that_is_listed_several_times_comes_as_often_and_is_augmented_each_time():
    indices = torch.tensor([4, 4, 4, 4, 4, 4, 7, 9])
    batches = list(loader(indices=indices, weights=None, batch_size=3).epoch(0))
    assert torch.equal(drawn(batches).sort().values, indices)
    images = torch.cat([batch.views[0][batch.index == 4] for batch in batches])
    assert len(images) == 6
    assert len(images.flatten(1).unique(dim=0)) > 1
    assert same(batches[1:], loader(indices=indices, weights=None, batch_size=3).epoch(0, start=1))
