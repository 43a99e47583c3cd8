"""Feature maps: places of the image are kept, and pooling them gives the features that the classifier reads."""

import pytest
import torch

from robustlab.core.errors import ConfigError
from robustlab.models.external import timm_model, torchvision_model
from robustlab.models.mlp import mlp
from robustlab.models.preact_resnet import preact_resnet18, wide_resnet
from robustlab.models.resnet import cifar_resnet
from robustlab.models.small_cnn import small_cnn

RGB = (3, 32, 32)


@pytest.mark.parametrize(
    ("network", "grid"),
    [
        (small_cnn(num_classes=2, image_shape=RGB), 8),
        (small_cnn(num_classes=2, image_shape=RGB, widths=(12, 24, 48), strides=(2, 1, 2)), 8),
        (preact_resnet18(num_classes=2, image_shape=RGB, width=4), 4),
        (wide_resnet(num_classes=2, image_shape=RGB, depth=10, widen=1), 8),
        (cifar_resnet(num_classes=2, image_shape=RGB, width=4), 4),
        (timm_model(num_classes=2, image_shape=(3, 64, 64), architecture="resnet10t"), 2),
        (torchvision_model(num_classes=2, image_shape=(3, 64, 64), architecture="resnet18"), 2),
    ],
    ids=["small_cnn", "small_cnn_grid", "preact_resnet18", "wide_resnet", "cifar_resnet", "timm", "torchvision"],
)
def test_the_mean_of_the_maps_is_what_the_heads_read(network, grid):
    network.eval()
    images = torch.randn(2, 3, 64, 64) if grid == 2 else torch.randn(2, *RGB)
    maps = network.maps(images)
    assert maps.shape == (2, network.feature_dim, grid, grid)
    torch.testing.assert_close(maps.mean(dim=(2, 3)), network.features(images))


def test_maps_that_timm_gives_with_channels_last_are_turned():
    network = timm_model(
        num_classes=2,
        image_shape=(3, 32, 32),
        architecture="swin_tiny_patch4_window7_224",
        options={"img_size": 32, "embed_dim": 6, "depths": (1, 1), "num_heads": (1, 1), "window_size": 4},
    )
    assert network.maps(torch.randn(2, *RGB)).shape == (2, 12, 4, 4)


@pytest.mark.parametrize(
    "network",
    [
        mlp(num_classes=2, image_shape=RGB),
        timm_model(
            num_classes=2,
            image_shape=RGB,
            architecture="vit_tiny_patch16_224",
            options={"img_size": 32, "depth": 1, "embed_dim": 12},
        ),
    ],
    ids=["perceptron", "transformer"],
)
def test_trunks_without_maps_are_refused_with_the_mend(network):
    with pytest.raises(ConfigError, match=r"no feature maps.*model=small_cnn"):
        network.maps(torch.randn(2, *RGB))


def test_strides_take_the_place_of_pooling():
    network = small_cnn(num_classes=2, image_shape=(3, 32, 48), widths=(4, 8), strides=(4, 2), convs=2)
    assert network.maps(torch.randn(1, 3, 32, 48)).shape == (1, 8, 4, 6)


@pytest.mark.parametrize("options", [{"strides": (2, 1)}, {"strides": (2, 0, 1)}, {"strides": (2, 1, 2), "stride": 2}])
def test_strides_that_do_not_fit_are_refused(options):
    with pytest.raises(ConfigError, match="strides"):
        small_cnn(num_classes=2, image_shape=RGB, widths=(12, 24, 48), **options)
