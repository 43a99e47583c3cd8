"""Frozen features in the place of images: what is served, and when it is computed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.data.dataset import TaskSpec
from robustlab.data.noise.transitions import Symmetric
from robustlab.data.run_data import Data
from robustlab.data.serving.frozen_features import FrozenFeatures
from robustlab.data.transforms.augment import Flip
from robustlab.data.transforms.resample import CenterCrop
from robustlab.models.heads import TwoHeads
from tests.data.toy_source import Toy


class Counting(nn.Module):
    """A trunk that counts the images it has seen."""

    def __init__(self, task: TaskSpec, *, weights: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(weights)
            self.layers = nn.Sequential(nn.Flatten(), nn.Linear(task.image_shape[1] ** 2 * 3, 5), nn.BatchNorm1d(5))
        self.seen = 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.layers(images)


class Frozen:
    """Makes data of which a trunk has seen the images, and keeps the trunk of the data made last."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def data(self, source: Toy | None = None, *, weights: int = 0, settings: object = (), **options) -> Data:
        views = {"weak": [Flip(0.5), CenterCrop(6)], "test": [CenterCrop(6)]}
        frozen = self.maker(weights, settings)
        return Data(source or Toy(), **{"seed": 0, "views": views, "frozen": frozen, **options})

    def maker(self, weights: int, settings: object) -> Callable[[TaskSpec], FrozenFeatures]:
        def make(task: TaskSpec) -> FrozenFeatures:
            self.trunk = Counting(task, weights=weights)
            network = TwoHeads(self.trunk, feature_dim=5, num_classes=task.num_classes)
            return FrozenFeatures(network, name="net", settings=settings, cache_dir=self.folder, batch_size=16)

        return make

    @property
    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "features").glob("*.npy"))


@pytest.fixture
def frozen(tmp_path) -> Frozen:
    return Frozen(tmp_path)


@pytest.mark.parametrize("options", [{}, {"storage": "streaming", "workers": 0}, {"channels_last": True}])
def test_features_are_those_of_the_test_view(frozen, options):
    data, plain = frozen.data(**options), frozen.data(frozen=None)
    assert data.task.image_shape == (5, 1, 1)
    for split in ("train", "test"):
        (images,), (served,) = (list(one.evaluation(split, 100).epoch(0)) for one in (plain, data))
        wanted = torch.cat([frozen.trunk.layers(part) for part in images.images.split(16)]).detach()
        assert torch.allclose(served.images, wanted[:, :, None, None], atol=1e-6)
        assert torch.equal(served.index, images.index)
        assert torch.equal(served.targets, images.targets)


def test_all_views_are_the_features_of_the_sample(frozen):
    data = frozen.data()
    (every,) = data.evaluation("train", 100).epoch(0)
    loader = data.loader(batch_size=3, views=("weak", "weak", "test"), purpose="train")
    batches = list(loader.epoch(1))
    assert len(set(torch.cat([batch.index for batch in batches]).tolist())) == 39  # 40 = 13 * 3 + 1
    for batch in batches:
        assert all(torch.equal(view, every.images[batch.index]) for view in batch.views)
        assert torch.equal(batch.targets, data.assigned[batch.index])
    for start in range(len(batches)):
        rest = list(loader.epoch(1, start=start))
        assert [batch.index.tolist() for batch in rest] == [batch.index.tolist() for batch in batches[start:]]


def test_they_are_computed_once_for_all_seeds_labels_and_subsets(frozen):
    frozen.data().evaluation("test", 10)
    assert frozen.trunk.seen == 40 + 20
    for options in ({"seed": 3}, {"noise": Symmetric(rate=0.5)}, {"subset": 8}, {"val_fraction": 0.25}):
        data = frozen.data(**options)
        assert sum(len(batch) for batch in data.evaluation("test", 10).epoch(0)) == 20
        assert frozen.trunk.seen == 0, options
    assert len(frozen.files) == 2


def test_other_weights_settings_and_images_have_files_of_their_own(frozen):
    frozen.data()
    for number, options in enumerate(({"weights": 1}, {"settings": "another crop"}, {"source": Toy(44)}), start=2):
        frozen.data(**options)
        assert frozen.trunk.seen in (40, 44)
        assert len(frozen.files) == number


def test_a_damaged_file_is_made_again(frozen):
    (before,) = frozen.data().evaluation("train", 100).epoch(0)
    (name,) = frozen.files
    path = frozen.folder / "features" / name
    path.write_bytes(path.read_bytes()[:-7])
    (after,) = frozen.data().evaluation("train", 100).epoch(0)
    assert frozen.trunk.seen == 40
    assert torch.equal(after.images, before.images)


def test_nothing_is_left_where_images_cannot_be_had(frozen):
    class Broken(nn.Identity):
        def forward(self, input: Tensor) -> Tensor:
            raise RuntimeError("no memory left")

    network = TwoHeads(Broken(), feature_dim=5, num_classes=4)
    make = lambda task: FrozenFeatures(network, name="net", settings=(), cache_dir=frozen.folder)  # noqa: E731
    with pytest.raises(RuntimeError, match="no memory left"):
        frozen.data(frozen=make)
    assert frozen.files == []


def test_the_data_set_stays_the_one_that_it_is(frozen):
    """A file of concepts that was made from images is then one of these data, too."""
    data, plain = frozen.data(), frozen.data(frozen=None)
    for split in ("train", "test"):
        assert data.fingerprint(split) == plain.fingerprint(split)
        assert torch.equal(data.labels(split), plain.labels(split))


def test_a_network_without_pooled_features_is_refused(frozen):
    with pytest.raises(ConfigError, match="pooled features"):
        FrozenFeatures(nn.Linear(2, 2), name="mine", settings=(), cache_dir=frozen.folder)


def test_weights_are_those_of_the_network_in_evaluation(frozen):
    """Serving features changes neither BatchNorm's statistics nor anything else of the network."""
    frozen.data().evaluation("test", 10)
    trunk = frozen.trunk
    assert not trunk.training
    assert trunk.layers[2].num_batches_tracked == 0
    assert not any(parameter.requires_grad for parameter in trunk.parameters())
