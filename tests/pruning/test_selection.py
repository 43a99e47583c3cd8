import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustlab.core.errors import ConfigError, NumericalError
from robustlab.pruning.unit_selection import Ranking, check_reachable, cumulative_targets, removed_at


def awake(widths: dict[str, int]) -> dict[str, torch.Tensor]:
    return {name: torch.zeros(width, dtype=torch.bool) for name, width in widths.items()}


def lowest(scores, *, original, target, **options) -> dict[str, torch.Tensor]:
    return Ranking(scores, original=original, **options).chosen(removed_at(target, sum(original.values())))


def test_cumulative_targets_of_the_authors():
    found = cumulative_targets(0.9, start=0.5, steps=5)
    assert found == pytest.approx([0.5, 0.7, 0.8, 0.85, 0.875, 0.8875, 0.9])
    shares = [(now - before) / (1 - before) for before, now in zip([0.0, *found[:-1]], found, strict=True)]
    assert shares == pytest.approx([0.5, 0.4, 1 / 3, 0.25, 1 / 6, 0.1, 1 / 9])


@pytest.mark.parametrize(("target", "steps"), [(0.5, 5), (0.3, 5), (0.9, 1)])
def test_a_single_round(target, steps):
    assert cumulative_targets(target, start=0.5, steps=steps) == [target]


def test_the_lowest_of_all_go_but_the_best_of_each_set_stays():
    scores = {"a": torch.tensor([0.3, 0.1, 0.2]), "b": torch.tensor([5.0, 0.4, 7.0, 6.0, 8.0])}
    widths = {"a": 3, "b": 5}
    chosen = lowest(scores, original=widths, idle=awake(widths), target=0.5)
    assert chosen["a"].tolist() == [False, True, True]
    assert chosen["b"].tolist() == [True, True, False, False, False]


def test_per_layer_takes_the_same_share_of_every_set():
    widths = {"a": 10, "b": 3, "c": 7}
    scores = {"a": torch.arange(10.0), "b": 100 + torch.arange(3.0), "c": -torch.arange(7.0)}
    chosen = lowest(scores, original=widths, idle=awake(widths), target=0.5, scope="per_layer")
    counts = {name: int(mask.sum()) for name, mask in chosen.items()}
    assert counts == {"a": 5, "b": 2, "c": 3}  # 5, 1.5, 3.5 of 10: the leftover goes to the first of equal fractions
    assert chosen["c"].tolist() == [False] * 4 + [True] * 3


def test_idle_units_count_as_removed_and_are_returned():
    widths = {"a": 4, "b": 4}
    idle = awake(widths)
    idle["a"][3] = True
    scores = {"a": torch.tensor([1.0, 2.0, 3.0, 100.0]), "b": torch.tensor([10.0, 20.0, 30.0, 40.0])}
    chosen = lowest(scores, original=widths, idle=idle, target=0.25)
    assert chosen["a"].tolist() == [True, False, False, True]
    assert not chosen["b"].any()


def test_units_gone_before_count_too():
    scores = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([3.0, 4.0, 5.0, 6.0])}
    chosen = lowest(scores, original={"a": 4, "b": 4, "whole": 8}, idle=awake({"a": 2, "b": 4}), target=0.25)
    assert {name: int(mask.sum()) for name, mask in chosen.items()} == {"a": 1, "b": 1}


def test_round_to_keeps_multiples():
    widths = {"a": 20, "b": 12}
    scores = {name: torch.arange(float(width)) for name, width in widths.items()}
    chosen = lowest(scores, original=widths, idle=awake(widths), target=0.5, round_to=8)
    assert {name: int((~mask).sum()) for name, mask in chosen.items()} == {"a": 16, "b": 8}


@given(
    widths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    target=st.floats(0, 0.95),
    scope=st.sampled_from(["global", "per_layer"]),
    min_width=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_the_target_is_reached_to_the_unit_or_refused(widths, target, scope, min_width, seed):
    original = {str(number): width for number, width in enumerate(widths)}
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(width, generator=generator) for name, width in original.items()}
    total, goal = sum(widths), removed_at(target, sum(widths))
    try:
        check_reachable(target, original, scored=original, min_width=min_width)
    except ConfigError:
        assert goal > sum(max(width - min_width, 0) for width in widths)
        return
    chosen = lowest(scores, original=original, idle=awake(original), target=target, scope=scope, min_width=min_width)
    assert sum(int(mask.sum()) for mask in chosen.values()) == goal
    assert abs(goal / total - target) <= 0.5 / total + 1e-9
    for name, mask in chosen.items():
        kept, gone = scores[name][~mask], scores[name][mask]
        assert not mask.any() or len(kept) >= min_width
        assert len(gone) == 0 or gone.max() <= kept.min()


def test_broken_scores_are_refused():
    with pytest.raises(NumericalError, match="units a "):
        lowest({"a": torch.tensor([1.0, float("nan")])}, original={"a": 2}, idle=awake({"a": 2}), target=0.5)


def test_a_target_out_of_reach_is_refused():
    with pytest.raises(ConfigError, match=r"at most 9 can be removed, a sparsity of 0\.450"):
        check_reachable(0.5, {"a": 10, "b": 10}, scored={"a": 10}, min_width=1)


def test_scores_that_tell_nothing_take_from_all_sets_alike():
    widths = {"a": 8, "b": 16, "c": 4}
    scores = {name: torch.ones(width) for name, width in widths.items()}
    chosen = lowest(scores, original=widths, idle=awake(widths), target=0.5)
    assert {name: mask.nonzero().flatten().tolist() for name, mask in chosen.items()} == {
        "a": [0, 1, 2, 3],
        "b": list(range(8)),
        "c": [0, 1],
    }


@given(
    widths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    share=st.floats(0, 0.99),
    scope=st.sampled_from(["global", "per_layer"]),
    seed=st.integers(0, 99),
)
def test_a_share_of_the_cost_is_reached_to_the_nearest_unit(widths, share, scope, seed):
    original = {str(number): width for number, width in enumerate(widths)}
    generator = torch.Generator().manual_seed(seed)
    scores = {name: torch.rand(width, generator=generator) for name, width in original.items()}
    weights = {name: number + 1.0 for number, name in enumerate(original)}
    whole = sum(weights[name] * width for name, width in original.items())

    def saved(left):
        return 1 - sum(weights[name] * width for name, width in left.items()) / whole

    ranking = Ranking(scores, original=original, idle=awake(original), scope=scope)
    found = saved(ranking.widths(ranking.for_cost(share, saved)))
    every = [saved(ranking.widths(ranking.chosen(goal))) for goal in range(ranking.most + 1)]
    if scope == "global":
        assert abs(found - share) == pytest.approx(min(abs(one - share) for one in every))
    else:  # leftovers of rounding may make the cost of n + 1 units a little larger than that of n
        assert abs(found - share) <= max(weights.values()) / whole or found == pytest.approx(every[-1])


def test_broken_scores_are_refused_whatever_the_target_is():
    with pytest.raises(NumericalError, match="units a "):
        Ranking({"a": torch.tensor([float("inf")])}, original={"a": 1}, idle=awake({"a": 1}))
