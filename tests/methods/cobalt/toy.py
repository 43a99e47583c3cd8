"""A small data set whose backgrounds are striped one way or the other, and a discovery on it."""

from __future__ import annotations

import torch

from robustlab.core import rng
from robustlab.core.runtime import Runtime
from robustlab.data.dataset import DataSource, Split, TaskSpec
from robustlab.data.run_data import Data
from robustlab.engine.learner import Learner
from robustlab.methods.groups.cobalt.discover import Discovery
from robustlab.methods.groups.cobalt.discovery_settings import (
    DictionarySettings,
    DiscoverySettings,
    ExtractSettings,
    SlotSettings,
    ViewSettings,
)
from robustlab.models.small_cnn import small_cnn

SIDE = 16
CPU = Runtime(torch.device("cpu"))


class Stripes(DataSource):
    """A bright square (its place tells the label) over vertical (a = 0) or horizontal (a = 1) stripes."""

    splits = ("train", "val", "test")

    def __init__(self, *, train: int = 96, label_shift: int = 0, attributes: bool = True) -> None:
        """label_shift: added to all labels, modulo 2; the images stay. attributes: False keeps them to itself."""
        names = ("vertical", "horizontal") if attributes else ()
        self.task = TaskSpec(2, (3, SIDE, SIDE), (0.5,) * 3, (0.25,) * 3, ("left", "right"), names)
        self.sizes, self.label_shift, self.told = {"train": train, "val": 24, "test": 40}, label_shift, attributes

    def split(self, name: str) -> Split:
        draws = rng.generator(rng.fold(0, name))
        count = self.sizes[name]
        labels = torch.arange(count) % 2
        attributes = torch.where(torch.rand(count, generator=draws) < 0.8, labels, 1 - labels)
        phase, top = torch.rand(count, generator=draws), torch.randint(0, SIDE - 5, (count,), generator=draws)
        wave = torch.sin(torch.arange(SIDE) * 1.6 + 6.3 * phase[:, None])
        stripes = (90 + 60 * wave)[:, None, :].expand(-1, SIDE, -1)
        stripes = torch.where((attributes == 1)[:, None, None], stripes.transpose(1, 2), stripes)
        colour = torch.tensor([[1.0, 0.7, 0.4], [0.4, 0.7, 1.0]])[attributes]
        images = stripes[:, None] * colour[:, :, None, None]
        for image, label, row in zip(images, labels.tolist(), top.tolist(), strict=True):
            image[:, row : row + 5, 8 * label + 1 : 8 * label + 6] = 250
        return Split(images.round().to(torch.uint8), (labels + self.label_shift) % 2, attributes if self.told else None)


def make_data(*, seed: int = 0, source: DataSource | None = None, **options) -> Data:
    return Data(source or Stripes(), seed=seed, **options)


def make_settings(**groups) -> DiscoverySettings:
    """Small networks; `groups` replaces whole groups."""
    defaults = {
        "slots": SlotSettings(count=3, dim=8, hidden=16),
        "views": ViewSettings(scale=(0.3, 1.0), flip=0.5, jitter=(0.2, 0.2, 0.0, 0.0), grey=0.0),
        "dictionary": DictionarySettings(codes=5),
        "extract": ExtractSettings(batch_size=32),
    }
    return DiscoverySettings(**{**defaults, **groups})


def make_discovery(
    data: Data, *, seed: int = 0, settings: DiscoverySettings | None = None, runtime: Runtime = CPU, updates: int = 12
) -> Discovery:
    discovery = Discovery(settings or make_settings(), task=data.task, runtime=runtime, seed=seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(seed, "init", "discovery"))
        network = small_cnn(num_classes=2, image_shape=data.task.image_shape, widths=(8, 16), strides=(2, 2))
        student = discovery.wrap(network)
    learner = Learner(student, runtime=runtime, optimizer=lambda parameters: torch.optim.Adam(parameters, lr=2e-3))
    discovery.build(learner, updates=updates)
    return discovery


def train(discovery: Discovery, data: Data, *, epochs: int = 1, start: int = 0, steps: int | None = None):
    """Do the steps `start` .. of each epoch; return the scalars of all."""
    loader = data.loader(batch_size=32, views=("test",), purpose="discovery", labelled=False)
    return [
        discovery.step(batch.images, batch.index, epoch=epoch, total=batch.total)
        for epoch in range(epochs)
        for batch in loader.epoch(epoch, start=start, steps=steps)
    ]
