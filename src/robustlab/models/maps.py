"""Feature maps: what a convolutional trunk computes before it pools over places."""

from __future__ import annotations

from torch import Tensor, nn

from robustlab.core.errors import ConfigError

POOLING = "avgpool"
"""Name of the pooling layer in torchvision's convolutional networks; what comes before it runs in order."""


def feature_maps(trunk: nn.Module, images: Tensor) -> Tensor:
    """Return the last feature maps of `trunk` before pooling, float [B, C, h, w], for images float [B, c, H, W].

    Own networks give them by `maps`, timm's by `forward_features`, torchvision's by the modules before their pooling.
    Raises `ConfigError` for a trunk that has no maps, e.g. a perceptron or a transformer on a sequence of tokens.
    """
    maps = _last(trunk, images)
    if maps is None or maps.dim() != 4:
        raise ConfigError(
            f"the network's trunk ({type(trunk).__name__}) has no feature maps of places in the image; choose a "
            "convolutional network: model=small_cnn, preact_resnet18, or model=timm model.architecture=resnet50"
        )
    return maps


def _last(trunk: nn.Module, images: Tensor) -> Tensor | None:
    if hasattr(trunk, "maps"):
        return trunk.maps(images)  # type: ignore[operator]
    if hasattr(trunk, "forward_features"):
        maps = trunk.forward_features(images)  # type: ignore[operator]
        return maps.permute(0, 3, 1, 2) if str(getattr(trunk, "output_fmt", "")) == "NHWC" else maps
    children = dict(trunk.named_children())
    if POOLING not in children:
        return None
    for name, module in children.items():
        if name == POOLING:
            break
        images = module(images)
    return images
