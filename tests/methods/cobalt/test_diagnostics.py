"""Numbers about concepts, by hand."""

import math

import pytest
import torch

from robustlab.methods.groups.cobalt import concept_statistics as diagnostics

TABLE = torch.tensor([[0, 1], [0, 0], [2, -1], [-1, 1]], dtype=torch.int16)
LABELS = torch.tensor([0, 0, 1, 1])


def test_presence_and_usage():
    assert diagnostics.presence(TABLE, 4).long().tolist() == [[1, 1, 0, 0], [1, 0, 0, 0], [0, 0, 1, 0], [0, 1, 0, 0]]
    assert diagnostics.usage(TABLE, 4).tolist() == pytest.approx([3 / 6, 2 / 6, 1 / 6, 0])


def test_an_image_counts_once_for_each_concept():
    counts = diagnostics.counts_by(TABLE, LABELS, num_concepts=4, num_values=3)
    assert counts.tolist() == [[2, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]]


def test_attribute_contrast_is_averaged_over_labels():
    # Label 0: concept 0 in 2 of 2 with a = 0, in 1 of 2 with a = 1. Label 1: in 1 of 1 and 0 of 1.
    table = torch.tensor([[0], [0], [0], [1], [0], [1]])
    labels, attributes = torch.tensor([0, 0, 0, 0, 1, 1]), torch.tensor([0, 0, 1, 1, 0, 1])
    found = diagnostics.attribute_contrast(table, labels, attributes, num_concepts=3)
    assert found.tolist() == pytest.approx([0.75, 0.75, 0])


def test_purity_and_recall_are_averaged_over_labels():
    # Concept 0, by label and attribute: 2 of 2 and 1 of 2; 1 of 1 and 0 of 1. Label 2 has one attribute alone.
    # Concept 1 has all other images, so that it tells attributes apart as well; of equal ones the first is meant.
    table = torch.tensor([[0], [0], [0], [1], [0], [1], [0], [0]])
    labels, attributes = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 1, 1, 0, 1, 1, 1])
    found = diagnostics.attribute_purity_and_recall(table, labels, attributes, num_concepts=2)
    assert found == (pytest.approx(1 / (1 + 0.25)), pytest.approx(1))
    alone = diagnostics.attribute_purity_and_recall(table[6:], labels[6:], attributes[6:], num_concepts=2)
    assert all(math.isnan(value) for value in alone)


def test_a_concept_of_the_label_does_not_pass_for_one_of_the_attribute():
    labels = torch.tensor([0] * 20 + [1] * 20)
    attributes = torch.tensor([0] * 19 + [1] + [0] + [1] * 19)
    found = diagnostics.attribute_purity_and_recall(labels[:, None], labels, attributes, num_concepts=2)
    assert found == (0.5, 0.5)


def test_a_label_with_one_attribute_says_nothing_of_contrast():
    table, labels, attributes = torch.tensor([[0], [1], [0]]), torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1])
    assert diagnostics.attribute_contrast(table, labels, attributes, num_concepts=2).tolist() == [1, 1]
    alone = diagnostics.attribute_contrast(table[1:], labels[1:], attributes[1:], num_concepts=2)
    assert bool(alone.isnan().all())


def test_normalised_information():
    same, other = torch.tensor([[0], [0], [1], [1]]), torch.tensor([[0], [1], [0], [1]])
    assert diagnostics.normalised_information(same, LABELS, num_concepts=3) == pytest.approx(1)
    assert diagnostics.normalised_information(other, LABELS, num_concepts=3) == pytest.approx(0, abs=1e-12)
    assert diagnostics.normalised_information(same, torch.zeros(4).long(), num_concepts=3) == 0
    # image 0 counts half for concept 0 and half for concept 1
    shared = torch.tensor([[0, 1], [1, 1]])
    joint = [[1 / 4, 0], [1 / 4, 1 / 2]]
    information = sum(
        p * math.log(p / (row * column))
        for (row, line) in zip((1 / 4, 3 / 4), joint, strict=True)
        for p, column in zip(line, (1 / 2, 1 / 2), strict=True)
        if p
    )
    entropies = math.log(2) - (0.25 * math.log(0.25) + 0.75 * math.log(0.75))
    found = diagnostics.normalised_information(shared, torch.tensor([0, 1]), num_concepts=2)
    assert found == pytest.approx(2 * information / entropies)


def test_summary():
    area = torch.tensor([[0.5, 0.5], [0.75, 0.25], [1.0, 0.0], [0.0, 1.0]]).half()
    found = diagnostics.summary(TABLE, area, LABELS, num_concepts=4, attributes=torch.tensor([0, 1, 0, 1]))
    assert found["concepts_used"] == 3
    assert found["concepts_per_image"] == pytest.approx(5 / 4)
    assert found["largest_slot"] == pytest.approx(0.5625)
    assert found["attribute_contrast"] == 1
    assert (found["attribute_purity"], found["attribute_recall"]) == (1, 0.5)  # of concept 2
    assert 1 < found["perplexity"] < 3
    without = diagnostics.summary(TABLE, area, LABELS, num_concepts=4)
    assert without == {name: value for name, value in found.items() if "attribute" not in name}
