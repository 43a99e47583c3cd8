"""The embedded digits: shapes, the fixed stratified split, the declared normalisation."""

import pytest
import torch
from sklearn.datasets import load_digits

from robustlab.core.errors import ConfigError
from robustlab.data.sources.digits import Digits


def test_split_is_fixed_disjoint_and_complete():
    source = Digits()
    train, test = source.split("train"), source.split("test")
    assert train.images.shape == (1438, 1, 8, 8)
    assert test.images.shape == (359, 1, 8, 8)
    assert train.images.dtype == torch.uint8
    assert train.labels.dtype == torch.int64
    assert torch.bincount(test.labels).tolist() == [36, 36, 35, 37, 36, 36, 36, 36, 35, 36]
    images, classes = load_digits(return_X_y=True)
    everything = sorted((row.tobytes(), int(label)) for row, label in zip(images, classes, strict=True))
    grey = torch.cat([train.images, test.images]).to(torch.float64).mul(16 / 255).round().flatten(1).numpy()
    labels = torch.cat([train.labels, test.labels]).tolist()
    assert sorted((row.tobytes(), label) for row, label in zip(grey, labels, strict=True)) == everything
    # the first training labels, written down once: a change of the split would void every recorded result
    assert train.labels[:20].tolist() == [1, 2, 4, 5, 7, 8, 9, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3]
    assert torch.equal(Digits().split("train").images, train.images)


def test_grey_levels_span_the_byte_range_and_match_the_declared_moments():
    source = Digits()
    pixels = source.split("train").images
    assert (int(pixels.min()), int(pixels.max())) == (0, 255)
    assert float((pixels / 255).mean()) == pytest.approx(source.task.mean[0], abs=1e-3)
    assert float((pixels / 255).std()) == pytest.approx(source.task.std[0], abs=1e-3)


def test_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="'val'"):
        Digits().split("val")
