import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from robustlab.data.serving.order import Order


@settings(deadline=None)
@given(length=st.integers(1, 300), batch_size=st.integers(1, 64), drop_last=st.booleans())
def test_an_unshuffled_pass_serves_every_place_once(length: int, batch_size: int, drop_last: bool) -> None:
    order = Order(length, batch_size, seed=0, purpose="p", shuffle=False, drop_last=drop_last)
    served = [row for step in range(order.steps) for row in order.rows(step)]
    whole = length - length % batch_size if drop_last else length
    assert served == list(range(whole))


@settings(deadline=None)
@given(length=st.integers(1, 300), batch_size=st.integers(1, 64))
def test_a_shuffled_pass_leaves_out_at_most_a_lone_last_sample(length: int, batch_size: int) -> None:
    order = Order(length, batch_size, seed=0, purpose="p")
    sizes = [len(order.rows(step)) for step in range(order.steps)]
    lone = length % batch_size == 1 and length > batch_size
    assert sum(sizes) == length - lone
    assert all(size == batch_size for size in sizes[:-1])
    assert length == 1 or batch_size == 1 or sizes[-1] > 1


def test_steps_of_the_published_setting() -> None:
    half = Order(25_000, 256, seed=0, purpose="p")
    assert (half.steps, len(half.rows(97))) == (98, 168)
    full = Order(50_000, 256, seed=0, purpose="p")
    assert (full.steps, len(full.rows(195))) == (196, 80)


def test_the_order_depends_on_seed_purpose_epoch_and_cycle_and_on_nothing_else() -> None:
    order = Order(50, 8, seed=1, purpose="p")
    reference = order.permutation(epoch=2, cycle=0)
    assert torch.equal(reference.sort().values, torch.arange(50))
    assert torch.equal(reference, Order(50, 13, seed=1, purpose="p", drop_last=True).permutation(epoch=2, cycle=0))
    others = [
        order.permutation(epoch=3, cycle=0),
        order.permutation(epoch=2, cycle=1),
        Order(50, 8, seed=2, purpose="p").permutation(epoch=2, cycle=0),
        Order(50, 8, seed=1, purpose="q").permutation(epoch=2, cycle=0),
    ]
    assert not any(torch.equal(reference, other) for other in others)
