"""The VGG-16 of DemP's experiments: BatchNorm everywhere, a 13th convolution of 1,024 channels, two dense layers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.models.chain import chain_units
from robustlab.models.heads import TwoHeads
from robustlab.models.layers import conv3x3
from robustlab.models.units import Units
from robustlab.models.weights import started_from

WIDTHS = (1, 1, 2, 2, 4, 4, 4, 8, 8, 8, 8, 8, 16)
"""Channels of the convolutions, in units of `width`."""
HALVED = (2, 4, 7, 10)
"""Convolutions, counted from 0, that a 2x2 max-pool comes before."""


class VGGTrunk(nn.Module):
    """Convolutions, average pool, dense layers; each with norm and ReLU: float [B, C, H, W] to [B, feature_dim]."""

    def __init__(self, image_shape: tuple[int, int, int], *, width: int, dense: Sequence[int], pool: int | None):
        """Build the trunk; `pool` is the side of the average pool. Raises `ConfigError` for images too small."""
        super().__init__()
        inputs, *size = image_shape
        height, breadth = (side // 2 ** len(HALVED) for side in size)
        if min(height, breadth) < (pool or 1):
            raise ConfigError(
                f"{size[0]}x{size[1]} images are halved {len(HALVED)} times, to {height}x{breadth}, too small for the "
                f"average pool (model.pool={pool}); choose model=small_cnn or resnet_small for them"
            )
        convs: list[nn.Module] = []
        for number, factor in enumerate(WIDTHS):
            if number in HALVED:
                convs.append(nn.MaxPool2d(2))
            convs += [conv3x3(inputs, factor * width), nn.BatchNorm2d(factor * width), nn.ReLU()]
            inputs = factor * width
        self.convs = nn.Sequential(*convs)
        self.pool = nn.AdaptiveAvgPool2d(1) if pool is None else nn.AvgPool2d(pool)
        inputs *= 1 if pool is None else (height // pool) * (breadth // pool)
        layers: list[nn.Module] = []
        for outputs in dense:
            layers += [nn.Linear(inputs, outputs, bias=False), nn.BatchNorm1d(outputs), nn.ReLU()]
            inputs = outputs
        self.dense = nn.Sequential(*layers)
        self.feature_dim = inputs

    def forward(self, images: Tensor) -> Tensor:
        """Return the features: what the last dense layer gives."""
        return self.dense(self.pool(self.convs(images)).flatten(1))

    def units(self) -> Units:
        """Declare the channels of each convolution and the units of each dense layer."""
        return chain_units(self.named_modules())


def vgg16(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    proj_dim: int | None = None,
    weights: str | None = None,
    width: int = 64,
    dense: Sequence[int] = (4096, 4096),
    pool: int | None = 2,
) -> TwoHeads:
    """Return the network: 12,928 removable units at the default widths.

    Not torchvision's VGG-16: BatchNorm after every layer but the last, max-pools before convolutions 3, 5, 8 and 11
    only, 1,024 channels in the 13th (DemP, section 3.3). width: channels of the first convolutions. dense: widths of
    the dense layers. pool: side of the average pool before them, which the authors' description leaves open; 64x64
    images, as they use, reach it as 4x4 maps. None: over the whole map. PyTorch's default initialisation.
    Raises `ConfigError` for dense layers without width.
    weights: see `started_from`.
    """
    if not dense or min(dense) < 1 or width < 1:
        raise ConfigError(
            f"model.width={width}, model.dense={list(dense)}: at least one dense layer is needed, all widths positive"
        )
    trunk = VGGTrunk(image_shape, width=width, dense=dense, pool=pool)
    network = TwoHeads(trunk, feature_dim=trunk.feature_dim, num_classes=num_classes, proj_dim=proj_dim)
    return started_from(network, weights)
