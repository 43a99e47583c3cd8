"""Pictures are drawn, and show what they should where that can be told from numbers."""

from dataclasses import replace

import pytest
import torch
from matplotlib.image import imread

from robustlab.data.dataset import TaskSpec
from robustlab.methods.groups.cobalt import canvas, charts, pictures
from robustlab.methods.groups.cobalt.extraction import Assignment
from tests.methods.cobalt.toy import make_data, make_discovery, train

TASK = TaskSpec(2, (3, 16, 16), (0.5,) * 3, (0.25,) * 3, ("left", "right"), ("vertical", "horizontal"))


def drawn(path):
    picture = imread(path)
    assert min(picture.shape[:2]) > 200
    assert picture[..., :3].std() > 0.02, "it is not blank"
    return picture


def seen(images=2):
    concepts = torch.tensor([[0, 11, -1]]).repeat(images, 1)
    winners = torch.zeros(images, 4, 4, dtype=torch.int64)
    winners[:, :, 2:] = 1
    area = torch.tensor([[0.5, 0.5, 0.0]]).repeat(images, 1)
    return Assignment(concepts, area, area, winners)


@pytest.mark.parametrize("channels", [1, 3])
def test_slots(tmp_path, channels):
    images = torch.randint(0, 256, (2, channels, 16, 16), dtype=torch.uint8)
    pictures.draw_slots(images, seen(), tmp_path / "new" / "slots.png", titles=["left", "right"])
    drawn(tmp_path / "new" / "slots.png")


def test_outside_of_a_slot_the_image_is_faded():
    mask = canvas.slot_masks(seen(1).winners, 3, (16, 16))[0]
    assert mask.shape == (3, 16, 16)
    assert bool(mask[0, :, :8].all())
    assert not bool(mask[0, :, 8:].any())
    picture = canvas.as_picture(torch.full((3, 16, 16), 50, dtype=torch.uint8))
    found = canvas.highlighted(picture, mask[0])
    assert found[:, :8] == pytest.approx(50 / 255)
    assert found[:, 8:].min() > 0.8


def test_concepts_have_colours_of_their_own():
    assert len({tuple(canvas.colour(concept)) for concept in range(30)}) == 30


def test_top_images_are_those_with_the_largest_and_clearest_slots():
    table = torch.tensor([[0, 1], [0, -1], [1, 0], [1, 1]])
    area = torch.tensor([[0.5, 0.5], [1.0, 0.0], [0.5, 0.5], [0.5, 0.5]])
    margin = torch.tensor([[0.4, 0.1], [0.1, 0.0], [0.2, 0.5], [0.3, 0.1]])
    best = pictures.top_images(table, area, margin, num_concepts=3, count=2)
    assert [rows.tolist() for rows in best] == [[2, 0], [3, 2], []]


def test_concepts_without_images_are_left_out(tmp_path):
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    gallery = [(images, replace(seen(), concepts=torch.tensor([[0, 2, -1], [0, 2, -1]]))), None, (images[:1], seen(1))]
    table = torch.tensor([[0, 2], [0, -1], [0, 0]])
    labels, attributes = torch.tensor([0, 1, 1]), torch.tensor([1, 1, 0])
    for name, known in (("with", attributes), ("without", None)):
        pictures.draw_concepts(gallery, table, labels, tmp_path / f"{name}.png", task=TASK, attributes=known)
    assert drawn(tmp_path / "with.png").shape[0] > drawn(tmp_path / "without.png").shape[0]


@pytest.mark.parametrize("attributes", [None, torch.arange(60) % 2])
def test_charts(tmp_path, attributes):
    labels = (torch.arange(60) > 40).long()
    charts.draw_table(torch.randint(-1, 6, (60, 3)), labels, tmp_path / "table.png", num_concepts=6, task=TASK)
    probabilities = torch.rand(60, dtype=torch.float64)
    probabilities[:3] = 0
    probabilities /= probabilities.sum()
    charts.draw_sampling(probabilities, labels, tmp_path / "sampling.png", task=TASK, attributes=attributes)
    drawn(tmp_path / "table.png")
    drawn(tmp_path / "sampling.png")


def test_illustrations_of_a_discovery(tmp_path):
    data = make_data()
    discovery = make_discovery(data)
    train(discovery, data)
    concepts = discovery.extract(data, ("train",))
    found = pictures.illustrate(discovery, concepts, data, tmp_path, images=3, each=2)
    assert set(found) == {"slots", "concepts", "table"}
    for path in found.values():
        drawn(path)
