"""The post-activation ResNet for 32x32 images: 3x3 stem, no max-pooling (He et al. 2015, the usual CIFAR variant)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from robustlab.core.errors import ConfigError
from robustlab.models.heads import TwoHeads
from robustlab.models.layers import conv3x3
from robustlab.models.residual import ResidualBlock, ResNetTrunk
from robustlab.models.weights import started_from

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class BasicBlock(ResidualBlock):
    """out = ReLU(BN(conv(ReLU(BN(conv(x))))) + shortcut(x)); shortcut: 1x1 convolution and BN, or identity."""

    depth, expansion = 2, 1

    def __init__(self, inputs: int, width: int, *, stride: int):
        """Build a block from `inputs` to `width` channels."""
        super().__init__()
        self.conv1 = conv3x3(inputs, width, stride=stride)
        self.norm1 = nn.BatchNorm2d(width)
        self.act1 = nn.ReLU()
        self.conv2 = conv3x3(width, width)
        self.norm2 = nn.BatchNorm2d(width)
        self.act2 = nn.ReLU()
        self.join(inputs, width, stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map float [B, inputs, H, W] to [B, width, H / stride, W / stride]."""
        hidden = self.act1(self.norm1(self.conv1(x)))
        return self.act2(self.add(x, self.norm2(self.conv2(hidden))))


def cifar_resnet(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    proj_dim: int | None = None,
    weights: str | None = None,
    depth: int = 18,
    width: int = 64,
) -> TwoHeads:
    """Return ResNet-18 (11,173,962 parameters at 10 classes, RGB) or ResNet-34 (21,282,122).

    PyTorch's default initialisation. Raises `ConfigError` for another depth.
    weights: see `started_from`.
    """
    if depth not in BLOCKS:
        raise ConfigError(f"model.depth={depth}: this ResNet comes with 18 or 34 layers; for others choose model=timm")
    widths = [width * 2**stage for stage in range(len(BLOCKS[depth]))]
    trunk = ResNetTrunk(conv3x3(image_shape[0], width), BasicBlock, widths=widths, blocks=BLOCKS[depth])
    network = TwoHeads(trunk, feature_dim=trunk.width, num_classes=num_classes, proj_dim=proj_dim)
    return started_from(network, weights)


def resnet_small(
    *,
    num_classes: int,
    image_shape: tuple[int, int, int],
    proj_dim: int | None = None,
    weights: str | None = None,
    widths: Sequence[int] = (8, 16, 32),
    blocks: Sequence[int] = (2, 2, 2),
) -> TwoHeads:
    """Return the same network with stages of any number, width and depth, for CPU work.

    The defaults give six blocks of 232 units (DemP, section 9.3's smoke run) and 44,226 parameters at 10 classes and
    one channel. PyTorch's default initialisation. Raises `ConfigError` for stages without width or blocks.
    weights: see `started_from`.
    """
    if not widths or len(widths) != len(blocks) or min(*widths, *blocks) < 1:
        raise ConfigError(
            f"model.widths={list(widths)}, model.blocks={list(blocks)}: at least one stage is needed, each with a "
            f"positive width and number of blocks"
        )
    trunk = ResNetTrunk(conv3x3(image_shape[0], widths[0]), BasicBlock, widths=widths, blocks=blocks)
    network = TwoHeads(trunk, feature_dim=trunk.width, num_classes=num_classes, proj_dim=proj_dim)
    return started_from(network, weights)
