from __future__ import annotations

import random
from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from torch import Tensor

from robustlab.core.errors import ConfigError
from robustlab.methods.groups.cobalt.sampler import capped, probabilities
from robustlab.methods.groups.cobalt.sampler_report import SamplerReport
from robustlab.methods.groups.cobalt.sampler_settings import SamplerSettings


def sample(concepts: list[list[int]], labels: list[int], *, eta: float = 0.0, **options) -> SamplerReport:
    """Rows of `concepts` may differ in length.

    options: of `SamplerSettings`, by default such that every concept is kept and no image bounded; and `area` and
    `codes` of `probabilities`.
    """
    slots = max(map(len, concepts))
    table = torch.tensor([row + [-1] * (slots - len(row)) for row in concepts], dtype=torch.int16)
    area, codes = options.pop("area", None), options.pop("codes", None)
    return probabilities(
        table,
        torch.tensor(labels),
        num_concepts=int(table.max()) + 1 if codes is None else len(codes),
        num_classes=max(labels) + 1,
        settings=SamplerSettings(**{"exponent": eta, "rare_count": 0, "rare_share": 0.0, "max_ratio": None, **options}),
        area=None if area is None else torch.tensor(area),
        codes=None if codes is None else torch.tensor(codes),
    )


def three_steps(concepts: list[set[int]], labels: list[int], *, eta: float, count: int, seed: int) -> list[int]:
    """Algorithm 1 as it is written: a concept, then a label, then an image."""
    draws = random.Random(seed)
    known = sorted(set().union(*concepts))
    chosen = []
    for _ in range(count):
        concept = draws.choice(known)
        members = [i for i, row in enumerate(concepts) if concept in row]
        sizes = Counter(labels[i] for i in members)
        label = draws.choices(list(sizes), [size**-eta for size in sizes.values()])[0]
        chosen.append(draws.choice([i for i in members if labels[i] == label]))
    return chosen


OVERLAPS = ([[0], [0, 1], [0, 0], [1, 2], [0, 1, 2], [3], [3, 0], [1]], [0, 0, 0, 1, 1, 1, 1, 0])
"""Images of several concepts, one of them twice; concept 3 comes with label 1 alone."""


@pytest.mark.parametrize("eta", [-1.0, 0.0, 0.5, 2.0])
def test_the_closed_form_is_the_frequency_of_the_three_steps(eta):
    concepts, labels = OVERLAPS
    p = sample(concepts, labels, eta=eta).p
    count = 3000
    drawn = Counter(three_steps([set(row) for row in concepts], labels, eta=eta, count=count, seed=0))
    assert chisquare([drawn[i] for i in range(len(labels))], (p * count).numpy()).pvalue > 0.01


def test_the_chi_square_test_sees_a_wrong_exponent():
    concepts, labels = OVERLAPS
    p = sample(concepts, labels, eta=0.0).p
    drawn = Counter(three_steps([set(row) for row in concepts], labels, eta=2.0, count=3000, seed=0))
    assert chisquare([drawn[i] for i in range(len(labels))], (p * 3000).numpy()).pvalue < 1e-6


def test_values_by_hand():
    report = sample(*OVERLAPS, eta=1.0)
    # n[k, y]: concept 0: 3, 2; 1: 2, 2; 2: 0, 2; 3: 0, 2. q of concept 0: 2/5, 3/5.
    assert report.table.tolist() == [[3, 2], [2, 2], [0, 2], [0, 2]]
    first, second = (2 / 5) / 3, (3 / 5) / 2
    wanted = [first, first + 1 / 4, first, 1 / 4 + 1 / 2, second + 1 / 4 + 1 / 2, 1 / 2, 1 / 2 + second, 1 / 4]
    torch.testing.assert_close(report.p, torch.tensor(wanted, dtype=torch.float64) / 4)


@pytest.mark.parametrize(
    ("parametrisation", "exponent", "rare"),
    [("class", 1.0, 0.75), ("class", 0.0, 0.5), ("image", 1.0, 0.5), ("image", 0.0, 0.25), ("image", 2.0, 0.75)],
)
def test_the_two_readings_of_lambda(parametrisation, exponent, rare):
    report = sample([[0]] * 4, [0, 0, 0, 1], eta=exponent, parametrisation=parametrisation)
    assert report.label_share.tolist() == pytest.approx([1 - rare, rare])
    assert report.p[:3].tolist() == pytest.approx([(1 - rare) / 3] * 3)


@given(exponent=st.floats(-3, 3))
def test_image_weights_are_class_weights_of_one_less(exponent):
    one = SamplerSettings(parametrisation="image", exponent=exponent + 1).eta
    assert one == pytest.approx(SamplerSettings(exponent=exponent).eta, abs=1e-12)


def test_waterbirds_with_backgrounds_as_concepts():
    """The shares that the counts of its training split give."""
    counts, wanted = [3498, 184, 56, 1057], {
        0.0: [0.25, 0.25, 0.25, 0.25],
        1.0: [0.008, 0.426, 0.492, 0.074],
        2.0: [0.000, 0.485, 0.500, 0.015],
    }  # fmt: skip
    groups = torch.arange(4).repeat_interleave(torch.tensor(counts))
    for eta, shares in wanted.items():
        report = sample([[g] for g in (groups % 2).tolist()], (groups // 2).tolist(), eta=eta)
        found = torch.zeros(4, dtype=torch.float64).index_add_(0, groups, report.p)
        assert found.tolist() == pytest.approx(shares, abs=6e-4)


def group_mass(report: SamplerReport, groups: Tensor) -> list[float]:
    return torch.zeros(int(groups.max()) + 1, dtype=torch.float64).index_add_(0, groups, report.p).tolist()


FEW = settings(max_examples=25)
one_concept_each = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


@given(rows=one_concept_each)
@FEW
def test_eta_0_makes_label_and_concept_independent(rows):
    """One concept an image: each concept has the same mass, and in it each label that occurs."""
    concepts, labels = [k for k, _ in rows], [y for _, y in rows]
    report = sample([[k] for k in concepts], labels)
    known = set(rows)
    wanted = {
        (k, y): 1 / len(set(concepts)) / sum(pair[0] == k for pair in known) for k, y in known
    }  # fmt: skip
    pairs = sorted(known)
    groups = torch.tensor([pairs.index(row) for row in rows])
    assert group_mass(report, groups) == pytest.approx([wanted[pair] for pair in pairs], abs=1e-12)


@given(rows=one_concept_each.map(lambda rows: [*rows, *((a, y) for a in range(3) for y in range(3))]))
@FEW
def test_concepts_that_are_the_attribute_give_group_balance(rows):
    """All groups occur: each is drawn as often as any other, as with weights 1 / n_g."""
    report = sample([[a] for a, _ in rows], [y for _, y in rows])
    groups = torch.tensor([3 * y + a for a, y in rows])
    by_group = 1 / torch.bincount(groups).double()[groups]
    torch.testing.assert_close(report.p, by_group / by_group.sum(), rtol=1e-12, atol=0)


@given(labels=st.lists(st.integers(0, 3), min_size=1, max_size=40))
@FEW
def test_one_concept_for_all(labels):
    by_class = 1 / torch.bincount(torch.tensor(labels)).double()[torch.tensor(labels)]
    same = [[0]] * len(labels)
    torch.testing.assert_close(sample(same, labels).p, by_class / by_class.sum())
    uniform = sample(same, labels, eta=0.0, parametrisation="image")
    torch.testing.assert_close(uniform.p, torch.full((len(labels),), 1 / len(labels), dtype=torch.float64))
    assert uniform.effective_size == pytest.approx(len(labels))
    assert uniform.largest == pytest.approx(1)


slots = st.lists(
    st.tuples(st.lists(st.integers(0, 5), min_size=1, max_size=3), st.integers(0, 2)), min_size=1, max_size=60
)


@given(rows=slots, eta=st.floats(-2, 4), rare=st.integers(0, 30), single=st.booleans(), ratio=st.floats(1, 5))
@FEW
def test_probabilities_whatever_the_concepts(rows, eta, rare, single, ratio):
    concepts, labels = [row for row, _ in rows], [y for _, y in rows]
    options = {"rare_count": rare, "drop_single_class": single}
    report = sample(concepts, labels, eta=eta, **options)
    assert float(report.p.sum()) == pytest.approx(1, abs=1e-12)
    assert (report.p > 0).all()  # every image has a concept that is kept
    assert 1 <= report.effective_size <= len(rows) + 1e-9
    assert sum(report.label_share.tolist()) == pytest.approx(1)
    bounded = sample(concepts, labels, eta=eta, max_ratio=ratio, **options)
    assert float(bounded.p.sum()) == pytest.approx(1, abs=1e-12)
    assert bounded.largest <= ratio * (1 + 1e-9)
    assert bounded.effective_size >= report.effective_size * (1 - 1e-9)


def test_rare_concepts_are_left_out_and_named():
    report = sample([[0]] * 6 + [[0, 1]] * 2 + [[2]] * 2, [0, 1] * 5, rare_count=3)
    assert report.kept.tolist() == [True, False, False]
    assert report.dropped == [1, 2]
    assert report.adopted == report.metrics()["images_adopted"] == 2  # those of concept 2 have no other
    assert report.metrics()["concepts_kept"] == 1
    assert report.record()["dropped"] == [1, 2]


def test_what_is_rare_grows_with_the_data_set():
    rows, labels = [[0]] * 96 + [[0, 1]] * 4, [0, 1] * 50
    assert sample(rows, labels, rare_count=0, rare_share=0.05).dropped == [1]
    assert sample(rows, labels, rare_count=0, rare_share=0.04).dropped == []
    assert sample(rows, labels, rare_count=5, rare_share=0.0).dropped == [1]


def test_three_images_of_a_rare_concept_among_5000_are_drawn_like_others():
    """One of the three has no other concept: it joins the nearest one, and nothing else changes for any image."""
    count = 5000
    rows, labels = [[i % 7] for i in range(count)], [i // 7 % 2 for i in range(count)]
    rare = [[7], [7, 1], [2, 7], *rows[3:]]
    codes = [[float(k), 0.0] for k in range(7)] + [[3.2, 1.0]]  # concept 3 is the nearest to 7
    report = sample(rare, labels, rare_count=20, rare_share=0.002, codes=codes)
    replaced = sample([[3], [1], [2], *rows[3:]], labels)
    torch.testing.assert_close(report.p, replaced.p, rtol=1e-12, atol=0)
    assert report.kept.tolist() == [True] * 7 + [False]
    assert report.adopted == 1
    assert float(report.p[:3].sum()) < 3.1 / count
    assert report.largest < 1.01
    assert report.effective_size > 0.999 * count


def test_an_image_without_a_concept_joins_the_one_nearest_to_its_largest_slot():
    rows, labels = [[0]] * 8 + [[1]] * 8 + [[2, 3]], [0, 1] * 8 + [0]
    codes = [[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]]  # 2 is near 0, 3 near 1
    for area, joined in (([0.7, 0.3], 0), ([0.3, 0.7], 1)):
        found = sample(rows, labels, rare_count=3, area=[[1.0, 0.0]] * 16 + [area], codes=codes)
        wanted = sample([*rows[:-1], [joined]], labels)
        torch.testing.assert_close(found.p, wanted.p, rtol=1e-12, atol=0)
        assert found.kept.tolist() == [True, True, False, False]


def test_without_codes_an_orphan_joins_the_commonest_concept():
    report = sample([[0]] * 4 + [[1]] * 6 + [[2]], [0, 1] * 5 + [0], rare_count=3)
    torch.testing.assert_close(report.p, sample([[0]] * 4 + [[1]] * 7, [0, 1] * 5 + [0]).p)


def test_where_all_concepts_are_rare_classes_are_balanced():
    report = sample([[0], [1], [1], [2]], [0, 0, 0, 1], rare_count=20)
    assert report.kept.tolist() == [False, True, False]
    assert report.p.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 6, 1 / 2])


def test_by_default_no_image_is_drawn_over_100_times_an_epoch():
    """One image of label 1 among the 2,500 of its concept would be a quarter of all draws."""
    rows, labels = [[i % 2] for i in range(5000)], [0] * 4999 + [1]
    free = sample(rows, labels)
    assert free.largest == pytest.approx(1250)
    report = probabilities(
        torch.tensor(rows), torch.tensor(labels), num_concepts=2, num_classes=2, settings=SamplerSettings()
    )
    assert report.largest == pytest.approx(100)
    assert report.bounded == report.metrics()["images_bounded"] == 1
    assert report.effective_size > 100 * free.effective_size


def test_concepts_of_one_class_stay_unless_asked_otherwise():
    rows, labels = [[0], [0], [0, 1], [0, 1]], [0, 1, 1, 1]
    assert sample(rows, labels).kept.tolist() == [True, True]
    report = sample(rows, labels, rare_count=0, rare_share=0.0, drop_single_class=True)
    assert report.kept.tolist() == [True, False]
    assert report.label_share.tolist() == pytest.approx([0.5, 0.5])


def test_a_bound_moves_what_is_above_it_to_the_others():
    p = torch.tensor([0.5, 0.3, 0.1, 0.1, 0.0], dtype=torch.float64)
    # 0.5 -> 0.4 raises 0.3 to 0.36, and no further.
    torch.testing.assert_close(capped(p, 0.4), torch.tensor([0.4, 0.36, 0.12, 0.12, 0.0], dtype=torch.float64))
    torch.testing.assert_close(capped(p, 0.35), torch.tensor([0.35, 0.35, 0.15, 0.15, 0.0], dtype=torch.float64))
    torch.testing.assert_close(capped(p, 0.2), torch.tensor([0.25] * 4 + [0.0], dtype=torch.float64))
    assert torch.equal(capped(p, 0.6), p)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"parametrisation": "label"}, r"method.sampler.parametrisation is 'label'; it must be one of class, image"),
        ({"max_ratio": 0.5}, r"method.sampler.max_ratio is 0.5; it must be at least 1"),
        ({"rare_count": -1}, "method.sampler.rare_count"),
        ({"rare_share": -0.1}, "method.sampler.rare_share"),
        ({"kind": "even"}, r"method.sampler.kind is 'even'; it must be one of stepwise, fitted"),
        ({"kind": "fitted", "exponent": 1.0}, "method.sampler.kind=fitted has no exponent"),
        ({"kind": "fitted", "parametrisation": "image"}, "method.sampler.kind=fitted has no exponent"),
        ({"iterations": 0}, "method.sampler.iterations"),
        ({"tolerance": 0.0}, "method.sampler.tolerance"),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(ConfigError, match=message):
        SamplerSettings(**options)
