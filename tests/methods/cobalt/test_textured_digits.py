"""Discovery on digits whose backgrounds agree with the class: concepts become the backgrounds, without a label."""

import pytest
import torch

from robustlab.core import rng
from robustlab.data.run_data import Data
from robustlab.data.sources.textured_digits import TexturedDigits
from robustlab.engine.learner import Learner
from robustlab.methods.groups.cobalt.concept_statistics import attribute_contrast, counts_by
from robustlab.methods.groups.cobalt.discover import Discovery
from robustlab.methods.groups.cobalt.discovery_settings import (
    DictionarySettings,
    DiscoverySettings,
    SlotSettings,
    ViewSettings,
)
from robustlab.models.small_cnn import small_cnn
from tests.methods.cobalt.toy import CPU

EPOCHS, BATCH = 8, 64


@pytest.mark.slow
@pytest.mark.real_data
def test_concepts_become_the_backgrounds(real_data):
    data = Data(TexturedDigits(root=str(real_data), train=1500), seed=0)
    settings = DiscoverySettings(
        slots=SlotSettings(count=3, hidden=96),
        views=ViewSettings(scale=(0.3, 1.0), flip=0.0, jitter=(0, 0, 0, 0), grey=0.0),
        dictionary=DictionarySettings(codes=6),
    )
    discovery = Discovery(settings, task=data.task, runtime=CPU, seed=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(rng.fold(0, "init", "discovery"))
        student = discovery.wrap(
            small_cnn(num_classes=2, image_shape=data.task.image_shape, widths=(12, 24, 48), strides=(2, 1, 2))
        )
    learner = Learner(
        student,
        runtime=CPU,
        optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-3, weight_decay=1e-5),
    )
    loader = data.loader(batch_size=BATCH, views=("test",), purpose="discovery", labelled=False)
    discovery.build(learner, updates=EPOCHS * len(loader))
    for epoch in range(EPOCHS):
        for batch in loader.epoch(epoch):
            discovery.step(batch.images, batch.index, epoch=epoch, total=batch.total)
    table = discovery.extract(data, ("train",)).tables["train"]
    labels, attributes = data.labels("train"), data.attributes("train")
    assert attributes is not None
    counts = counts_by(table, labels, num_concepts=6, num_values=2).sum(dim=1)
    assert int((counts >= 20).sum()) >= 3
    assert float(attribute_contrast(table, labels, attributes, num_concepts=6).max()) >= 0.8
