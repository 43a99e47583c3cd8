from collections.abc import Iterable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import Batch
from robustlab.data.noise.transitions import Symmetric
from robustlab.data.run_data import Data
from robustlab.data.serving.feed import Renderer, ResidentFeed, View
from robustlab.data.serving.loader import Loader
from robustlab.data.serving.order import Order
from robustlab.data.transforms.augment import Flip, PadCrop
from robustlab.data.transforms.policies import AutoAugment
from robustlab.data.transforms.transform import Pipeline
from tests.data.toy_source import Toy

WEAK = [PadCrop(padding=1), Flip()]
VIEWS = {"weak": WEAK, "strong": [*WEAK, AutoAugment()]}


def toy_data(count: int = 40, **arguments) -> Data:
    return Data(Toy(count), seed=3, noise=Symmetric(rate=0.5), views=VIEWS, **arguments)


def same(one: Iterable[Batch], other: Iterable[Batch]) -> bool:
    """Whether two iterables hold bitwise equal batches."""
    return all(
        torch.equal(a.index, b.index)
        and (a.targets is None) == (b.targets is None)
        and (a.targets is None or b.targets is None or torch.equal(a.targets, b.targets))
        and all(map(torch.equal, a.views, b.views))
        for a, b in zip(one, other, strict=True)
    )


@settings(max_examples=25, deadline=None)
@given(count=st.integers(4, 60), batch_size=st.integers(1, 20), epoch=st.integers(0, 3))
def test_each_sample_once_per_pass_with_its_own_label(count: int, batch_size: int, epoch: int) -> None:
    data = toy_data(count)
    loader = data.loader(batch_size=min(batch_size, count), views=("weak",), purpose="train")
    batches = list(loader.epoch(epoch))
    index = torch.cat([batch.index for batch in batches])
    assert len(batches) == len(loader)
    assert len(index.unique()) == len(index) == count - (count % batch_size == 1 and count > batch_size > 1)
    assert torch.equal(
        torch.cat([batch.targets for batch in batches if batch.targets is not None]), data.assigned[index]
    )


@settings(max_examples=25, deadline=None)
@given(start=st.integers(0, 16), steps=st.integers(1, 16), batch_size=st.sampled_from([3, 7, 10]))
def test_a_start_in_mid_epoch_gives_the_tail_of_the_epoch(start: int, steps: int, batch_size: int) -> None:
    loader = toy_data(32).loader(batch_size=batch_size, views=("weak", "strong"), purpose="train")
    whole = list(loader.epoch(1, steps=steps))
    assert len(whole) == steps
    assert same(loader.epoch(1, start=start, steps=steps), whole[start:])


def test_an_epoch_longer_than_a_pass_goes_on_in_a_new_order_with_new_draws() -> None:
    loader = toy_data(40).loader(batch_size=10, views=("weak",), purpose="train")
    batches = list(loader.epoch(0, steps=8))
    first, second = batches[:4], batches[4:]
    assert same(first, loader.epoch(0))
    orders = [torch.cat([batch.index for batch in half]) for half in (first, second)]
    images = [torch.cat([batch.images for batch in half]) for half in (first, second)]
    assert not torch.equal(*orders)
    assert torch.equal(orders[0].sort().values, orders[1].sort().values)
    assert not torch.equal(images[0][orders[0].argsort()], images[1][orders[1].argsort()])


@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
def test_batches_do_not_depend_on_how_many_are_prepared_together(chunk: int) -> None:
    data = toy_data(50)
    images = Toy(50).split("train").images
    assert isinstance(images, torch.Tensor)
    feed = ResidentFeed(images, renderer=Renderer(data.task, torch.contiguous_format), chunk=chunk)
    chunked = Loader(
        feed,
        data.train_indices,
        order=Order(50, 7, 3, "train"),
        views=[View(name, Pipeline(VIEWS[name])) for name in ("weak", "strong")],
        labels=data.assigned,
    )
    loader = data.loader(batch_size=7, views=("weak", "strong"), purpose="train")
    assert same(chunked.epoch(2, start=3, steps=13), list(loader.epoch(2, steps=13))[3:])


def by_sample(batches: Iterable[Batch]) -> torch.Tensor:
    """The views of all batches in the order of the samples."""
    listed = list(batches)
    order = torch.cat([batch.index for batch in listed]).argsort()
    return torch.stack([torch.cat(view)[order] for view in zip(*(batch.views for batch in listed), strict=True)])


def test_views_of_a_sample_do_not_depend_on_the_batch_size() -> None:
    data = toy_data(40)
    small, large = (
        data.loader(batch_size=size, views=("strong", "strong"), purpose="train").epoch(5) for size in (4, 40)
    )
    assert torch.equal(by_sample(small), by_sample(large))


def test_views_epochs_purposes_and_seeds_draw_independently() -> None:
    data = toy_data(40)
    views = by_sample(data.loader(batch_size=8, views=("weak",) * 3, purpose="train").epoch(0))
    later = by_sample(data.loader(batch_size=8, views=("weak",) * 3, purpose="train").epoch(1))
    other = by_sample(data.loader(batch_size=8, views=("weak",) * 3, purpose="other").epoch(0))
    distinct = [*views, *later, *other]
    assert not any(torch.equal(a, b) for i, a in enumerate(distinct) for b in distinct[:i])
    assert torch.equal(views, by_sample(data.loader(batch_size=8, views=("weak",) * 3, purpose="train").epoch(0)))


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    list(toy_data().loader(batch_size=8, views=("strong",), purpose="train").epoch(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("world_size", [2, 3])
def test_ranks_share_the_global_batches(world_size: int) -> None:
    whole = toy_data(42).loader(batch_size=9, views=("weak", "strong"), purpose="train")
    ranks = [
        toy_data(42, rank=rank, world_size=world_size).loader(batch_size=9, views=("weak", "strong"), purpose="train")
        for rank in range(world_size)
    ]
    assert {len(loader) for loader in [whole, *ranks]} == {5}
    for batch, *shares in zip(whole.epoch(1), *(loader.epoch(1) for loader in ranks), strict=True):
        for rank, share in enumerate(shares):
            expected = Batch(
                batch.index[rank::world_size],
                None if batch.targets is None else batch.targets[rank::world_size],
                tuple(view[rank::world_size] for view in batch.views),
                batch.total,
            )
            assert same([share], [expected])
            assert share.total == len(batch)


def test_a_rank_without_a_sample_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"leave a last batch of 2 for 3 processes.*trainer\.batch_size"):
        toy_data(20, rank=0, world_size=3).loader(batch_size=2, views=("weak",), purpose="train")


@pytest.mark.parametrize(("length", "steps"), [(38, 3), (41, 3), (42, 4)])
def test_a_last_batch_is_left_out_where_ranks_would_have_single_samples(length: int, steps: int) -> None:
    loader = toy_data(length, rank=2, world_size=3).loader(batch_size=12, views=("weak",), purpose="train")
    assert [len(batch) for batch in loader.epoch(0)] == [4, 4, 4, 2][:steps]
    assert len(toy_data(length).loader(batch_size=12, views=("weak",), purpose="train")) == 4


@settings(max_examples=25, deadline=None)
@given(size=st.integers(4, 40), batch_size=st.integers(1, 9), world_size=st.integers(1, 4))
def test_sharded_evaluation_covers_every_sample_once(size: int, batch_size: int, world_size: int) -> None:
    loaders = [
        toy_data(2 * size, rank=rank, world_size=world_size).evaluation("test", batch_size, shard=True)
        for rank in range(world_size)
    ]
    index = torch.cat([batch.index for loader in loaders for batch in loader.epoch(0)])
    assert torch.equal(index.sort().values, torch.arange(size))


def test_an_unlabelled_loader_carries_no_targets() -> None:
    loader = toy_data().loader(batch_size=8, views=("weak", "weak"), purpose="u", labelled=False)
    assert all(batch.targets is None and len(batch.views) == 2 for batch in loader.epoch(0))


def test_the_test_view_is_the_normalised_image_in_the_wanted_memory_format() -> None:
    data = toy_data(channels_last=True)
    images = Toy().split("test").images
    assert isinstance(images, torch.Tensor)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.task.mean, data.task.std))
    batches = list(data.evaluation("test", 6).epoch(0))
    assert [len(batch) for batch in batches] == [6, 6, 6, 2]
    torch.testing.assert_close(torch.cat([batch.images for batch in batches]), (images / 255 - mean) / std)
    assert all(batch.images.is_contiguous(memory_format=torch.channels_last) for batch in batches)


def test_loaders_that_cannot_serve_are_refused() -> None:
    data = toy_data(40)
    with pytest.raises(ConfigError, match="a batch of 64 is larger than the 40 training samples"):
        data.loader(batch_size=64, views=("weak",), purpose="train")
    with pytest.raises(ConfigError, match=r"no view 'wek'.*strong, test, weak"):
        data.loader(batch_size=8, views=("wek",), purpose="train")
    with pytest.raises(ConfigError, match="at least 1 sample"):
        data.loader(batch_size=0, views=("weak",), purpose="train")
