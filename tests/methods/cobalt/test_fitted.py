"""Draws that balance the labels of all concepts at once, against exact arithmetic."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustlab.methods.groups.cobalt.concept_statistics import label_variation, presence, rare_group_shares
from robustlab.methods.groups.cobalt.sampler import probabilities
from robustlab.methods.groups.cobalt.sampler_report import SamplerReport
from robustlab.methods.groups.cobalt.sampler_settings import SamplerSettings

GROUPS = {(0, 0): 3800, (0, 1): 200, (1, 0): 200, (1, 1): 3800}
"""Images of (label, attribute): they agree in 95 %."""


def images() -> tuple[Tensor, Tensor]:
    """Labels and attributes of 8,000 images."""
    pairs = torch.tensor(list(GROUPS)).repeat_interleave(torch.tensor(list(GROUPS.values())), dim=0)
    return pairs[:, 0], pairs[:, 1]


def balanced(concepts: Tensor | list[list[int]], labels: Tensor | list[int], **options) -> SamplerReport:
    table, targets = torch.as_tensor(concepts), torch.as_tensor(labels)
    return probabilities(
        table,
        targets,
        num_concepts=int(table.max()) + 1,
        num_classes=int(targets.max()) + 1,
        settings=SamplerSettings(
            **{"rare_count": 0, "rare_share": 0.0, "max_ratio": None, "tolerance": 1e-6, **options}
        ),
    )


def rare_share(concepts: Tensor, **options) -> float:
    labels, attributes = images()
    shares = rare_group_shares(balanced(concepts, labels, **options).p, labels, attributes)
    assert shares["rare_groups_before"] == pytest.approx(0.05)
    return shares["rare_groups"]


def pure() -> Tensor:
    return images()[1][:, None]


def with_uninformative() -> Tensor:
    """Two more codes, which every image has."""
    return torch.cat([pure(), torch.full((8000, 1), 2), torch.full((8000, 1), 3)], dim=1)


def with_scattered() -> Tensor:
    """Two more codes of which every other image, in any group, has the one and the other half the other."""
    return torch.cat([pure(), 2 + torch.arange(8000)[:, None] % 2], dim=1)


def impure() -> Tensor:
    """5 % of each group have the code of the other attribute."""
    _, attributes = images()
    place = torch.cat([torch.arange(size) for size in GROUPS.values()])
    return torch.where(place % 20 == 0, 1 - attributes, attributes)[:, None]


@pytest.mark.parametrize(
    ("concepts", "exponent", "share"),
    [
        (pure, 0.0, 0.5),
        (pure, 1.0, 0.95),
        (with_uninformative, 0.0, (2 * 0.5 + 2 * 0.05) / 4),
        (with_uninformative, 1.0, (2 * 0.95 + 2 * 0.05) / 4),
        (with_scattered, 0.0, (2 * 0.5 + 2 * 0.05) / 4),
        (with_scattered, 1.0, (2 * 0.95 + 2 * 0.05) / 4),
        # of the 452.5 and 47.5 in 1,000 images of a concept that have one label and the other, 1.25 and 23.75 are rare
        (impure, 0.0, (1.25 / 452.5 + 23.75 / 47.5) / 2),
        (impure, 1.0, 0.095 * 1.25 / 452.5 + 0.905 * 23.75 / 47.5),
    ],
)
def test_share_of_rare_groups_under_algorithm_1(concepts, exponent, share):
    """0.50, 0.95, 0.28, 0.50 (twice), 0.25, 0.45: other codes and impurity both dilute the balance."""
    assert rare_share(concepts(), exponent=exponent) == pytest.approx(share, abs=1e-9)


@pytest.mark.parametrize("concepts", [pure, with_uninformative, with_scattered])
def test_fitted_draws_of_pure_concepts_have_half_rare_groups_whatever_else_is_there(concepts):
    assert rare_share(concepts(), kind="fitted") == pytest.approx(0.5, abs=1e-4)


def test_fitted_draws_cannot_undo_impurity():
    assert rare_share(impure(), kind="fitted") == pytest.approx((1.25 / 452.5 + 23.75 / 47.5) / 2, abs=1e-4)


def test_variation_before_and_after():
    labels, _ = images()
    stepwise = balanced(with_uninformative(), labels)
    assert stepwise.metrics()["variation_before"] == pytest.approx(0.45)
    # of the draws with concept 0, half a quarter of all come from its own, the others as the data are
    rare = (0.5 / 4 + 2 * 0.025 / 4) / (1 / 4 + 2 * 0.5 / 4)
    assert stepwise.metrics()["variation"] == pytest.approx(0.5 - rare)
    fitted = balanced(with_uninformative(), labels, kind="fitted")
    assert fitted.metrics()["variation_before"] == pytest.approx(0.45)
    assert fitted.metrics()["variation"] < 1e-5
    assert fitted.eta is None
    assert "eta" not in fitted.metrics()
    assert fitted.record()["fit"]["one_label"] == ()


def test_variation_by_hand():
    members = torch.tensor([[True, True], [True, False], [True, False], [False, False]])
    p = torch.tensor([0.1, 0.2, 0.3, 0.4], dtype=torch.float64)
    found = label_variation(p, members, torch.tensor([0, 1, 2, 0]), num_classes=3)
    assert found.tolist() == pytest.approx([0.5 - 1 / 3, 2 / 3])
    assert bool(label_variation(p, members & False, torch.tensor([0, 1, 2, 0]), num_classes=3).isnan().all())


def test_rare_groups_are_those_with_less_than_half_of_an_even_share():
    labels = torch.tensor([0] * 10 + [1] * 10)
    attributes = torch.tensor([0] * 8 + [1] * 2 + [0] * 5 + [1] * 5)
    p = torch.full((20,), 1 / 20, dtype=torch.float64)
    assert rare_group_shares(p, labels, attributes) == pytest.approx({"rare_groups_before": 0.1, "rare_groups": 0.1})
    assert rare_group_shares(p, labels, torch.arange(20) % 2) == {}


def test_of_all_balanced_draws_the_nearest_to_even_ones_are_found():
    """Projected onto one concept by hand: labels of it get the geometric mean of their masses, then classes."""
    report = balanced([[0]] * 8 + [[0]] * 2, [0] * 8 + [1] * 2, kind="fitted")
    assert report.p.tolist() == pytest.approx([1 / 16] * 8 + [1 / 4] * 2)
    # Two concepts of 8 + 2 and 5 + 5 images: the unbalanced one shrinks from 10 : 10 to 2 * sqrt(8 * 2) : 10.
    rows, labels = [[0]] * 10 + [[1]] * 10, [0] * 8 + [1] * 2 + [0] * 5 + [1] * 5
    report = balanced(rows, labels, kind="fitted")
    assert float(report.p[:10].sum()) == pytest.approx(8 / 18)


slots = st.lists(
    st.tuples(st.lists(st.integers(0, 3), min_size=1, max_size=3), st.integers(0, 2)), min_size=1, max_size=40
)


@given(rows=slots)
@settings(max_examples=25, deadline=None)
def test_where_images_of_all_kinds_are_there_every_concept_is_balanced(rows):
    """With one image at least of each set of concepts and each label, the fit is always possible."""
    every = [(list(some), y) for size in (1, 2) for some in itertools.combinations(range(4), size) for y in range(3)]
    sets = [(sorted(set(row)), y) for row, y in rows]
    sets += every + [(row, y) for row, _ in sets for y in range(3)]
    concepts = [row + [-1] * (4 - len(row)) for row, _ in sets]
    report = balanced(concepts, [y for _, y in sets], kind="fitted")
    assert report.fit is not None
    assert report.fit.left_out == ()
    assert report.variation.max() < 1e-4
    assert report.label_share.tolist() == pytest.approx([1 / 3] * 3, abs=1e-4)
    assert (report.p > 0).all()
    members = presence(torch.tensor(concepts), 4)
    # A Kullback-Leibler projection multiplies each image by factors of its label and of its concepts: images with both
    # in common are drawn alike.
    kinds = [(tuple(row), y) for row, y in zip(members.tolist(), (y for _, y in sets), strict=True)]
    for kind in set(kinds):
        same = report.p[torch.tensor([one == kind for one in kinds])]
        assert same.tolist() == pytest.approx([float(same[0])] * len(same))


def test_a_concept_of_one_label_is_named_and_the_others_are_fitted():
    labels, _ = images()
    extra = torch.where(torch.arange(8000) < 500, 2, -1)[:, None]  # images of label 0 alone
    report = balanced(torch.cat([pure(), extra], dim=1), labels, kind="fitted")
    assert report.fit is not None
    assert (report.fit.one_label, report.fit.conflicting) == ((2,), ())
    assert report.variation[:2].max() < 1e-4
    assert report.metrics()["variation"] == pytest.approx(0.5)  # of the one that nothing can balance
    assert report.metrics()["concepts_not_fitted"] == 1


def test_labels_that_occur_with_a_concept_are_even_though_others_are_missing():
    rows = [[0]] * 6 + [[1]] * 6
    report = balanced(rows, [0, 0, 0, 0, 1, 1, 0, 1, 2, 2, 2, 2], kind="fitted")
    within = torch.zeros(3, dtype=torch.float64).index_add_(0, torch.tensor([0, 0, 0, 0, 1, 1]), report.p[:6])
    assert float(within[0]) == pytest.approx(float(within[1]), rel=1e-3)


@pytest.mark.parametrize("options", [{"iterations": 200}, {}, {"tolerance": 1e-3}])
def test_concepts_that_exclude_each_other_s_balance_are_found_after_finitely_many_rounds(options):
    """All images of label 1 have concepts 0 and 1; of label 0 all have 0, half have 1.

    Balance of both would leave the others of label 0 undrawn.
    """
    rows = [[0, 1]] * 50 + [[0, -1]] * 50 + [[0, 1]] * 100
    report = balanced(rows, [0] * 100 + [1] * 100, kind="fitted", **options)
    assert report.fit is not None
    assert report.fit.one_label == ()
    assert report.fit.conflicting == (1,)
    assert report.fit.iterations < 200
    assert report.variation[0] < 1e-4
    assert report.variation[1] > 0.1
    assert (report.p > 0).all()


def test_a_bound_that_undoes_part_of_the_balance_shows_in_the_variation():
    labels, _ = images()
    report = balanced(pure(), labels, kind="fitted", max_ratio=3.0)
    assert report.largest == pytest.approx(3)
    assert report.bounded == 400
    assert 0.3 < report.metrics()["variation"] < 0.45
