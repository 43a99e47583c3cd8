import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robustlab.data.dataset import TaskSpec
from robustlab.metrics.group_accuracy import (
    GroupAccuracies,
    accuracy_by_group,
    average,
    balanced_average,
    class_and_attribute,
    group_of,
    inferred_accuracies,
    inferred_worst,
    weighted_average,
    worst,
)
from robustlab.metrics.intervals import wilson_interval
from robustlab.metrics.metric_names import is_group_accuracy


@given(
    st.integers(1, 12).flatmap(
        lambda a: st.tuples(st.just(a), st.lists(st.tuples(st.integers(0, 9), st.integers(0, a - 1)), min_size=1))
    )
)
def test_group_index_and_class_with_attribute_are_each_others_inverse(case):
    num_attributes, pairs = case
    labels, attributes = torch.tensor(pairs).unbind(1)
    groups = group_of(labels, attributes, num_attributes=num_attributes)
    assert groups.tolist() == [y * num_attributes + a for y, a in pairs]
    back = class_and_attribute(groups, num_attributes=num_attributes)
    assert torch.equal(back[0], labels)
    assert torch.equal(back[1], attributes)


def test_names_of_groups_follow_the_index():
    task = TaskSpec(2, (3, 8, 8), (0.5,) * 3, (0.5,) * 3, ("land bird", "water/bird"), ("land", "water", "sky"))
    assert (task.num_attributes, task.num_groups) == (3, 6)
    assert task.group_names[4] == "water_bird-water"
    for group, name in enumerate(task.group_names):
        y, a = class_and_attribute(torch.tensor(group), num_attributes=3)
        assert name == f"{task.label_names[int(y)]}-{task.attribute_names[int(a)]}"
    assert TaskSpec(10, (1, 8, 8), (0.5,), (0.5,)).num_groups == 0


def hand_made() -> tuple[torch.Tensor, torch.Tensor, GroupAccuracies]:
    """Group 0: 6 of 8 right, group 1: 1 of 2, group 2: nobody, group 3: 0 of 0 ... 5: 3 of 10, 6: 4 of 4."""
    right = {0: (6, 8), 1: (1, 2), 5: (3, 10), 6: (4, 4)}
    groups = torch.tensor([group for group, (_, n) in right.items() for _ in range(n)])
    correct = torch.tensor([place < k for k, n in right.values() for place in range(n)])
    return correct, groups, accuracy_by_group(correct, groups, num_groups=8)


def test_hand_made_groups_give_their_hand_computed_values():
    _, _, found = hand_made()
    assert found.counts.tolist() == [8, 2, 0, 0, 0, 10, 4, 0]
    assert found.accuracy[[0, 1, 5, 6]].tolist() == [0.75, 0.5, 0.3, 1.0]
    assert found.accuracy[[2, 3, 4, 7]].isnan().all()
    training = torch.tensor([80, 0, 5, 0, 0, 10, 10, 3])  # groups 2 and 7 have no sample here
    values = {
        "avg": average(found),
        "adjusted": weighted_average(found, training),
        "balanced": balanced_average(found),
        "worst": float(found.accuracy[worst(found)]),
    }
    assert values["avg"] == pytest.approx(14 / 24)
    assert values["adjusted"] == pytest.approx((0.75 * 80 + 0.3 * 10 + 1.0 * 10) / 100)
    assert values["balanced"] == pytest.approx((0.75 + 0.5 + 0.3 + 1.0) / 4)
    assert values["worst"] == 0.3
    assert worst(found) == 5  # not the smallest group
    assert len(set(values.values())) == 4


def test_waterbirds_adjusted_average_uses_the_training_counts():
    """The published weights: a model that is right on the common groups only looks far better than on the test mix."""
    train, test = torch.tensor([3498, 184, 56, 1057]), torch.tensor([2255, 2255, 642, 642])
    found = GroupAccuracies(torch.tensor([1.0, 0.5, 0.25, 1.0], dtype=torch.float64), test)
    assert weighted_average(found, train) == pytest.approx((3498 + 92 + 14 + 1057) / 4795)
    assert average(found) == pytest.approx((2255 + 1127.5 + 160.5 + 642) / 5794)


def test_weights_that_are_all_zero_say_nothing():
    _, _, found = hand_made()
    assert math.isnan(weighted_average(found, torch.tensor([0, 0, 9, 0, 0, 0, 0, 0])))


samples = st.lists(st.tuples(st.booleans(), st.integers(0, 5)), min_size=1, max_size=60)


@given(samples)
def test_averages_lie_between_the_worst_and_the_best_group(rows):
    correct, groups = torch.tensor(rows).unbind(1)
    found = accuracy_by_group(correct.bool(), groups.long(), num_groups=7)
    assert average(found) == pytest.approx(correct.double().mean().item())
    present = found.accuracy[found.present]
    for value in (average(found), balanced_average(found), weighted_average(found, torch.arange(1, 8))):
        assert present.min() - 1e-12 <= value <= present.max() + 1e-12
    assert found.accuracy[worst(found)] == present.min()
    assert found.counts[worst(found)] > 0


@given(samples, st.integers(0, 999))
def test_the_order_of_samples_does_not_matter(rows, seed):
    correct, groups = torch.tensor(rows).unbind(1)
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
    one = accuracy_by_group(correct, groups, num_groups=6)
    other = accuracy_by_group(correct[order], groups[order], num_groups=6)
    assert torch.equal(one.counts, other.counts)
    torch.testing.assert_close(one.accuracy, other.accuracy, equal_nan=True)


def test_wilson_interval():
    low, high = wilson_interval(0.8, 100)  # R: prop.test(80, 100, correct = FALSE)
    assert (low, high) == (pytest.approx(0.7111708, abs=1e-6), pytest.approx(0.8666331, abs=1e-6))
    assert wilson_interval(0.0, 10) == (0.0, pytest.approx(0.2775328, abs=1e-6))
    assert wilson_interval(1.0, 10) == (pytest.approx(0.7224672, abs=1e-6), 1.0)


@given(st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_an_interval_holds_its_share_and_narrows_with_samples(case):
    right, count = case
    low, high = wilson_interval(right / count, count)
    assert 0 <= low <= right / count <= high <= 1
    narrower = wilson_interval(right / count, 4 * count)
    assert narrower[1] - narrower[0] < high - low


def test_inferred_groups_overlap():
    """A sample counts in every concept that it contains, once, however many of its slots show it."""
    concepts = torch.tensor([[0, 1], [0, 0], [1, -1], [2, 1], [-1, -1]], dtype=torch.int16)
    labels = torch.tensor([0, 0, 0, 1, 1])
    correct = torch.tensor([True, False, True, False, False])
    found = inferred_accuracies(correct, labels, concepts, num_classes=2)
    assert found.counts.tolist() == [2, 0, 2, 1, 0, 1]  # (concept, label): 00 01 10 11 20 21
    assert found.accuracy[[0, 2, 3, 5]].tolist() == [0.5, 1.0, 0.0, 0.0]
    assert inferred_worst(correct, labels, concepts, num_classes=2) == 0.0
    assert inferred_worst(correct, labels, concepts, num_classes=2, min_count=2) == 0.5
    assert inferred_worst(correct, labels, concepts, num_classes=2, min_count=3) is None
    assert inferred_worst(correct, labels, torch.full((5, 2), -1), num_classes=2) is None


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(0, 2), st.lists(st.integers(-1, 4), min_size=3, max_size=3)),
        min_size=1,
        max_size=40,
    ),
    st.integers(1, 6),
)
def test_inferred_worst_is_the_least_over_all_pairs(rows, min_count):
    shares = []
    for k in range(5):
        for y in range(3):
            members = [right for right, label, slots in rows if label == y and k in slots]
            if len(members) >= min_count:
                shares.append(sum(members) / len(members))
    found = inferred_worst(
        torch.tensor([right for right, _, _ in rows]),
        torch.tensor([label for _, label, _ in rows]),
        torch.tensor([slots for _, _, slots in rows]),
        num_classes=3,
        min_count=min_count,
    )
    assert found == (pytest.approx(min(shares)) if shares else None)


def test_with_one_concept_for_all_the_inferred_worst_is_the_worst_class():
    labels = torch.tensor([0, 0, 0, 1, 1])
    correct = torch.tensor([True, True, False, True, False])
    one = inferred_worst(correct, labels, torch.zeros(5, 1, dtype=torch.int16), num_classes=2)
    assert one == accuracy_by_group(correct, labels, num_groups=2).accuracy.min() == 0.5


def test_which_metrics_are_shares():
    shares = ("test/worst_group", "val/adjusted_avg", "test/group/land bird-water", "test/class/cat", "test/bg_gap")
    assert all(map(is_group_accuracy, shares))
    assert not any(map(is_group_accuracy, ("test/loss", "train/loss", "train/lr/network", "loss", "diagnostics/group")))
