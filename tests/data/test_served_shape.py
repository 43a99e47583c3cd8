"""The test view: the images as they are, or cut by a transform that must not draw."""

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.data.run_data import Data
from robustlab.data.transforms.augment import Flip
from robustlab.data.transforms.resample import CenterCrop, RandomResizedCrop, Resize
from tests.data.toy_source import Toy


def test_networks_see_what_the_test_view_serves():
    views = {"weak": [RandomResizedCrop(4)], "test": [Resize(6), CenterCrop(4)]}
    data = Data(Toy(), seed=0, views=views)
    assert data.task.image_shape == (3, 4, 4)
    batch = next(iter(data.evaluation("test", 5).epoch(0)))
    assert batch.images.shape == (5, 3, 4, 4)
    batch = next(iter(data.loader(batch_size=5, views=("weak", "test"), purpose="train").epoch(0)))
    assert [view.shape for view in batch.views] == [(5, 3, 4, 4)] * 2


@pytest.mark.parametrize("storage", ["resident", "streaming"])
def test_the_centre_is_served_whatever_the_storage(storage):
    plain = next(iter(Data(Toy(), seed=0).evaluation("test", 5).epoch(0)))
    data = Data(Toy(lazy=storage == "streaming"), seed=0, views={"test": [CenterCrop(4)]}, storage=storage)
    batch = next(iter(data.evaluation("test", 5).epoch(0)))
    assert torch.equal(batch.images, plain.images[:, :, 2:6, 2:6])


def test_a_test_view_that_draws_is_refused():
    with pytest.raises(ConfigError, match=r"dataset\.views\.test must give the same images every time"):
        Data(Toy(), seed=0, views={"test": [Flip(0.5)]})
